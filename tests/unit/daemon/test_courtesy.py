"""Work that has not begun lets a crowd of submitters go first."""

from __future__ import annotations

import pytest

from daemon.courtesy import CROWD, EXPECTED, MOST, Courtesy
from jobs.model import Lane


class Office:
    """A courtesy by a clock of its own; *crowds* are the seconds at which further crowds come while a worker waits."""

    def __init__(self, *crowds: float) -> None:
        self.now = 0.0
        self.begun: list[tuple[str, Lane, float]] = []
        self._crowds = list(crowds)
        self.courtesy = Courtesy(clock=lambda: self.now, pause=self._pause)
        self.execute = self.courtesy.first(lambda job, lane: self.begun.append((job, lane, self.now)))

    def _pause(self, seconds: float) -> None:
        end = self.now + seconds
        while self._crowds and self._crowds[0] < end:
            self.now = self._crowds.pop(0)
            self.courtesy.taking(CROWD)
        self.now = end


def test_nobody_submits_nobody_waits() -> None:
    """A job begins at once; so it does beside those who come one at a time."""
    office = Office()
    office.courtesy.taking(CROWD - 1)
    office.execute("a", Lane.NORMAL)
    assert office.begun == [("a", Lane.NORMAL, 0.0)]


@pytest.mark.parametrize("lane", [Lane.NORMAL, Lane.BATCH])
def test_a_crowd_goes_first(lane: Lane) -> None:
    """The job begins when no more of the crowd is expected: after the last batch of it, and a moment."""
    office = Office(0.03, 0.06)
    office.courtesy.taking(64)
    office.execute("a", lane)
    assert office.begun == [("a", lane, pytest.approx(0.06 + EXPECTED))]


def test_a_crowd_that_never_ends_holds_nobody_up_for_long() -> None:
    """After the longest wait the job begins beside them; the next one waits anew."""
    office = Office(*(0.01 * number for number in range(1, 100)))
    office.courtesy.taking(64)
    office.execute("a", Lane.NORMAL)
    office.execute("b", Lane.NORMAL)
    assert [at for _, _, at in office.begun] == [pytest.approx(MOST), pytest.approx(2 * MOST)]


def test_an_interactive_job_waits_for_nobody() -> None:
    """Somebody waits for it as the crowd waits for its answers."""
    office = Office()
    office.courtesy.taking(64)
    office.execute("a", Lane.INTERACTIVE)
    assert office.begun == [("a", Lane.INTERACTIVE, 0.0)]


def test_a_crowd_of_yesterday_is_forgotten() -> None:
    """Only what comes at the moment counts."""
    office = Office()
    office.courtesy.taking(64)
    office.now = EXPECTED
    office.execute("a", Lane.NORMAL)
    assert office.begun == [("a", Lane.NORMAL, EXPECTED)]
