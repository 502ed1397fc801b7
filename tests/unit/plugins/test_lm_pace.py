"""How large a piece of a prompt is."""

from __future__ import annotations

from plugins.lm_pace import Pace


def _measured(fixed: float, each: float, *sizes: int) -> Pace:
    """Return a pace that has seen pieces which cost *fixed* seconds and *each* a token."""
    pace = Pace(2048)
    for size in sizes:
        pace.computed(size, fixed + each * size)
    return pace


def test_the_first_piece_is_moderate():
    """Nothing measured yet: 512 tokens, or the most that is allowed."""
    assert Pace(2048).piece(others=False) == 512
    assert Pace(128).piece(others=True) == 128


def test_alone_a_piece_takes_at_most_a_quarter_of_a_second():
    """On a fast machine the most there is, on a slow one the least, in between what fits."""
    assert _measured(0.0, 0.00025, 512, 1024).piece(others=False) == 512
    assert _measured(0.0, 0.00001, 512).piece(others=False) == 2048
    assert _measured(0.0, 0.1, 512).piece(others=False) == 64


def test_beside_others_a_piece_takes_as_long_as_two_steps():
    """At 10 ms a step and 20,000 tokens a second: 256 tokens, though nobody tried that size before."""
    pace = _measured(0.001, 0.00005, 1024, 64)
    pace.stepped(0.01)
    assert pace.piece(others=True) == 256


def test_pieces_do_not_shrink_below_what_each_one_costs():
    """As measured on a GPU, 40 ms for any piece and 20 us a token: 2,048 tokens take twice what 128 take."""
    pace = _measured(0.040, 0.00002, 128, 512)
    pace.stepped(0.0066)
    assert pace.piece(others=True) == 2048


def test_one_slow_measurement_rules_nothing_out():
    """The first piece of a size may have built kernels for seconds; the next one counts."""
    pace = _measured(0.001, 0.00001, 128, 512)
    pace.computed(1024, 3.0)
    pace.computed(1024, 0.01)
    assert pace.piece(others=False) == 2048


def test_what_was_measured_while_kernels_were_built_is_not_believed():
    """The first two pieces took 7 s and 3 s, as on a GPU: after a small one of 9 ms pieces are large again."""
    pace = Pace(2048)
    pace.computed(508, 7.0)
    pace.computed(508, 3.0)
    assert pace.piece(others=False) == 64
    pace.computed(64, 0.009)
    assert pace.piece(others=False) == 2048


def test_a_large_piece_that_is_truly_dear_is_believed():
    """Twice as dear a token as a small one, because of what it looks back at: pieces stay below it."""
    pace = Pace(2048)
    pace.computed(64, 0.01)
    pace.computed(1024, 0.32)
    assert pace.piece(others=False) == 512


def test_new_measurements_move_the_old_ones():
    """A machine that gets slower is noticed; pieces too small to be telling are not counted."""
    pace = _measured(0.0, 0.0001, 1024)
    assert pace.piece(others=False) == 2048
    for _ in range(5):
        pace.computed(1024, 1.0)
    assert pace.piece(others=False) == 64
    for _ in range(5):
        pace.computed(1024, 0.1)
    pace.computed(1, 10.0)
    assert pace.piece(others=False) == 2048


def _machine(fixed: float, each: float, back: float):
    """Return what a piece takes on a machine where looking back costs something."""
    return lambda size, behind: fixed + size * (each + back * behind)


def _through(pace: Pace, takes, length: int) -> list[float]:
    """Compute a prompt of *length* beside others; return what each piece took."""
    done, times = 0, []
    while done < length:
        size = min(pace.piece(others=True, behind=done), length - done)
        times.append(takes(size, done))
        pace.computed(size, times[-1], behind=done)
        done += size
    return times


def test_pieces_get_smaller_the_deeper_they_lie():
    """As measured on a CPU: 0.17 s for 256 tokens at the beginning, 0.44 s behind 1,500; none takes much longer."""
    pace, takes = Pace(2048), _machine(0.03, 0.00055, 7e-7)
    pace.stepped(0.1)
    _through(pace, takes, 2000)
    times = _through(pace, takes, 3000)
    assert max(times[:-1]) <= 2.0 * sorted(times)[len(times) // 2]
    assert pace.piece(others=True, behind=0) > pace.piece(others=True, behind=3000)


def test_nobody_is_held_up_for_long_by_what_passes_for_a_fixed_cost():
    """A prompt of 8,000 tokens where looking back is dear: no piece takes much longer than a quarter of a second.

    But for the first ones, before anything is known, and the smallest ones there are.
    """
    pace, takes = Pace(2048), _machine(0.03, 0.00055, 7e-7)
    pace.stepped(0.02)
    _through(pace, takes, 8000)
    assert max(_through(pace, takes, 8000)) <= max(2 * 0.25, takes(64, 8000))


def test_what_is_truly_fixed_holds_nobody_up_for_longer_than_a_quarter_of_a_second():
    """Three times 0.15 s would be nearly half a second between two words of others: then a smaller piece it is."""
    pace, takes = Pace(2048), _machine(0.15, 0.0002, 0.0)
    pace.stepped(0.02)
    _through(pace, takes, 4000)
    assert max(_through(pace, takes, 4000)) <= 0.25


def test_where_looking_back_costs_nothing_depth_changes_nothing():
    """As on a GPU; also when the first pieces took seconds because kernels were built."""
    pace, takes = Pace(2048), _machine(0.04, 0.00002, 0.0)
    pace.stepped(0.0066)
    pace.computed(508, 3.0)
    pace.computed(508, 7.0, behind=508)
    pace.computed(508, 0.05, behind=1016)
    _through(pace, takes, 8000)
    assert pace.piece(others=True, behind=8000) == pace.piece(others=True) == 2048


def test_a_prompts_cost_counts_what_it_looks_back_at():
    """Ten thousand tokens take more than ten times what a thousand take."""
    pace, takes = Pace(2048), _machine(0.03, 0.00055, 7e-7)
    _through(pace, takes, 3000)
    short, long = pace.seconds(1000), pace.seconds(10_000)
    assert short is not None
    assert long is not None
    assert 12 * short < long
