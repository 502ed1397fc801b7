"""How large a piece of a prompt is."""

from __future__ import annotations

from plugins.lm_pace import Pace


def test_the_first_piece_is_moderate():
    """Nothing measured yet: 512 tokens, or the most that is allowed."""
    assert Pace(2048).piece(others=False) == 512
    assert Pace(128).piece(others=True) == 128


def test_alone_a_piece_takes_at_most_a_quarter_of_a_second():
    """At 4,000 tokens a second that is 512, on a fast machine the most there is, on a slow one the least."""
    pace = Pace(2048)
    pace.computed(512, 0.128)
    assert pace.piece(others=False) == 512
    fast = Pace(2048)
    fast.computed(512, 0.01)
    assert fast.piece(others=False) == 2048
    slow = Pace(2048)
    slow.computed(512, 60.0)
    assert slow.piece(others=False) == 64


def test_beside_others_a_piece_takes_as_long_as_two_steps():
    """At 10 ms a step and 20,000 tokens a second: 256 tokens, though nobody tried that size before."""
    pace = Pace(2048)
    pace.computed(1024, 0.05)
    pace.stepped(0.01)
    pace.computed(64, 0.004)
    assert pace.piece(others=True) == 256


def test_pieces_do_not_shrink_below_what_each_one_costs():
    """When the smallest pieces take as long as larger ones, larger ones are computed: the gap is the same."""
    pace = Pace(2048)
    pace.stepped(0.001)
    for size in (64, 128, 256, 512):
        pace.computed(size, 0.02 + size / 40_000)
    assert pace.piece(others=True) == 512


def test_new_measurements_move_the_old_ones():
    """A machine that gets slower is noticed; pieces too small to be telling are not counted."""
    pace = Pace(2048)
    pace.computed(1024, 0.1)
    for _ in range(30):
        pace.computed(1024, 1.0)
    assert pace.piece(others=False) == 256
    pace.computed(1, 10.0)
    assert pace.piece(others=False) == 256
