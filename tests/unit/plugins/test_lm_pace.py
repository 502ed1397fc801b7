"""How large a piece of a prompt is."""

from __future__ import annotations

from plugins.lm_pace import Pace


def test_the_first_piece_is_moderate():
    """Nothing measured yet: 256 tokens, or the most that is allowed."""
    assert Pace(2048).piece(others=False) == 256
    assert Pace(128).piece(others=True) == 128


def test_alone_a_piece_takes_a_quarter_of_a_second():
    """At 4,000 tokens a second that is a thousand, in multiples of 32, never more than the most."""
    pace = Pace(2048)
    pace.computed(400, 0.1)
    assert pace.piece(others=False) == 992
    pace = Pace(2048)
    pace.computed(1000, 0.01)
    assert pace.piece(others=False) == 2048


def test_beside_others_a_piece_takes_as_long_as_a_step():
    """At 10 ms a step and 20,000 tokens a second: 192 tokens; a slow machine still gets on."""
    pace = Pace(2048)
    pace.computed(2000, 0.1)
    pace.stepped(0.01)
    assert pace.piece(others=True) == 192
    slow = Pace(2048)
    slow.computed(32, 1.0)
    slow.stepped(0.01)
    assert slow.piece(others=True) == 32


def test_new_measurements_move_the_old_ones():
    """A machine that gets slower is noticed; pieces too small to be telling are not counted."""
    pace = Pace(2048)
    pace.computed(1000, 0.1)
    for _ in range(30):
        pace.computed(1000, 1.0)
    assert 224 <= pace.piece(others=False) <= 288
    pace.computed(1, 10.0)
    assert pace.piece(others=False) >= 224
