"""When memory is short, and when it is enough again."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.models.watermarks import CALM_S, RELAXED, Level, Marks, Sample, judge

MARKS = Marks(soft=100, hard=200)


def after(*samples: tuple[float, int, Level]):
    """Return how things stand after samples of (time, footprint, kernel level)."""
    strain = RELAXED
    for now, footprint, kernel in samples:
        strain = judge(strain, Sample(footprint=footprint, kernel=kernel), MARKS, now)
    return strain


def test_a_mark_is_believed_at_once_and_says_which():
    """Above the soft mark is a warning, above the hard one critical, each with the numbers."""
    assert after((0, 100, Level.NORMAL)).level is Level.NORMAL
    warned = after((0, 101, Level.NORMAL))
    assert (warned.level, warned.footprint) == (Level.WARN, 101)
    assert "occupy" in warned.reason
    assert after((0, 201, Level.NORMAL)).level is Level.CRITICAL
    assert after((0, 101, Level.NORMAL), (0.1, 201, Level.NORMAL)).level is Level.CRITICAL


def test_the_kernels_word_counts_whatever_we_occupy():
    """A kernel under pressure is believed even if nothing of ours is loaded."""
    assert after((0, 0, Level.WARN)).level is Level.WARN
    critical = after((0, 0, Level.CRITICAL))
    assert critical.level is Level.CRITICAL
    assert critical.reason == "the system's memory pressure is critical"


def test_a_level_is_left_only_after_a_calm_time_below_it():
    """It stays for `CALM_S` after its last sign, and just below a mark is not below it."""
    spike = (0.0, 201, Level.NORMAL)
    assert after(spike, (CALM_S - 1, 50, Level.NORMAL)).level is Level.CRITICAL
    assert after(spike, (CALM_S + 1, 50, Level.NORMAL)).level is Level.NORMAL
    assert after(spike, (CALM_S + 1, 150, Level.NORMAL)).level is Level.WARN
    assert after(spike, (CALM_S + 1, 195, Level.NORMAL)).level is Level.CRITICAL


samples = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 300), st.sampled_from(Level)), max_size=40)


@given(samples)
def test_nothing_flaps(steps):
    """However the samples come, a level is never lowered within `CALM_S` of a sign of it."""
    strain, now, last = RELAXED, 0.0, dict.fromkeys(Level, float("-inf"))
    for wait, footprint, kernel in steps:
        now += wait
        before, strain = strain, judge(strain, Sample(footprint=footprint, kernel=kernel), MARKS, now)
        shown = max(kernel, Level.CRITICAL if footprint > 200 else Level.WARN if footprint > 100 else Level.NORMAL)
        assert strain.level >= shown
        if strain.level < before.level:
            assert now - last[before.level] >= CALM_S
        for level in Level:
            if shown >= level:
                last[level] = now
