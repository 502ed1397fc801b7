"""How many windows at once: doubled while that was measured to pay."""

from plugins.whisper_pace import Ladder, Pace


def _climb(ladder, seconds, *, times=40):
    """Measure what the ladder wants, again and again; *seconds* gives the time of so many at once."""
    for _ in range(times):
        ladder.took(ladder.size(), seconds(ladder.size()))
    return ladder.size()


def test_a_batch_grows_while_it_pays():
    """Where many take no longer than one it grows to the most; where each takes its time it stays at one."""
    assert _climb(Ladder(16), lambda _: 0.01) == 16
    assert _climb(Ladder(16), lambda size: 0.01 * size) == 1
    assert _climb(Ladder(16), lambda size: 0.01 * max(1, size / 4)) == 4
    assert _climb(Ladder(6), lambda _: 0.01) == 4


def test_one_slow_measurement_decides_nothing():
    """A first time that built kernels is outvoted by the next ones."""
    ladder = Ladder(4)
    slow = iter([5.0])
    assert _climb(ladder, lambda _: next(slow, 0.01)) == 4


def test_a_group_is_tried_again_after_kernels_were_built_for_it():
    """As on a GPU: the first group of each size took seconds, the second one milliseconds."""
    pace, built = Pace(16, on_cpu=False), set()
    for _ in range(12):
        size = pace.group()
        pace.encoded(size, 0.005 * (size + 1) + (0 if size in built else 4.0))
        built.add(size)
    assert pace.group() == 16


def test_a_group_is_encoded_within_a_bounded_time():
    """However well it pays, a group takes a quarter of a second at most, or as long as one window."""
    pace = Pace(16, on_cpu=False)
    for _ in range(20):
        pace.encoded(pace.group(), 0.02 * pace.group() * 0.9 ** pace.group())
    assert 2 <= pace.group() <= 16
    slow = Pace(16, on_cpu=False)
    for _ in range(20):
        slow.encoded(slow.group(), 0.2 * slow.group() * 0.9)
    assert slow.group() == 1


def test_after_memory_ran_out_fewer_come_at_once():
    """Half as many places and half as large groups, down to one."""
    pace = Pace(8, on_cpu=False)
    for _ in range(8):
        pace.encoded(pace.group(), 0.001)
    assert (pace.places(), pace.group()) == (8, 8)
    pace.fewer()
    assert (pace.places(), pace.group()) == (4, 4)
    for _ in range(5):
        pace.fewer()
    assert (pace.places(), pace.group()) == (1, 1)
