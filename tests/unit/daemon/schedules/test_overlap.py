"""What becomes of a time while the job before is not done."""

from __future__ import annotations

import pytest
from fakes_schedules import utc

from daemon.schedules.overlap import MOST_WAITING, Overlap, overlap

ONE, TWO, THREE = utc("2026-01-01"), utc("2026-01-02"), utc("2026-01-03")


@pytest.mark.parametrize("policy", Overlap)
def test_nothing_in_the_way(policy: Overlap) -> None:
    """Every time is taken when no job is under way and none waits."""
    assert overlap(policy, [ONE, TWO], busy=None, waiting=()).take == (ONE, TWO)
    assert overlap(policy, [], busy="job x was running", waiting=[ONE]).take == ()


def test_skip() -> None:
    """The time passes, and the reason names the job; waiting times are in the way too."""
    found = overlap(Overlap.SKIP, [TWO], busy="job x was running", waiting=())
    assert (found.take, found.missed, found.reason) == ((), (TWO,), "job x was running; overlap is skip")
    assert overlap(Overlap.SKIP, [TWO], busy=None, waiting=[ONE]).missed == (TWO,)


def test_queue_is_bounded() -> None:
    """Times wait, but not without end."""
    assert overlap(Overlap.QUEUE, [TWO], busy="b", waiting=[ONE]).take == (TWO,)
    full = overlap(Overlap.QUEUE, [TWO, THREE], busy="b", waiting=[ONE] * (MOST_WAITING - 1))
    assert (full.take, full.missed) == ((TWO,), (THREE,))


def test_cancel_running() -> None:
    """The latest time takes the place of the job that runs and of all that wait."""
    found = overlap(Overlap.CANCEL_RUNNING, [TWO, THREE], busy="b", waiting=[ONE])
    assert (found.take, found.drop, found.missed, found.cancel) == ((THREE,), (ONE,), (ONE, TWO), True)
