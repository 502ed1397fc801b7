"""When old jobs are forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.config.model import QueueConfig
from daemon.housekeeping import AFTER_START, EVERY, Housekeeping
from jobs.errors import LedgerUnavailable
from jobs.pruning import AT_ONCE

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class House:
    """Old jobs, and a daemon that is busy or not."""

    def __init__(self, old: int) -> None:
        self.old = old
        self.asked: list[tuple[datetime, int]] = []
        self.idle = True
        self.at = 0.0
        self.broken = False
        self.settings = QueueConfig()
        self.keeping = Housekeeping(
            self,  # type: ignore[arg-type]  # what it needs of it
            settings=lambda: self.settings,
            idle=lambda: self.idle,
            clock=lambda: NOW,
            monotonic=lambda: self.at,
        )

    def forget(self, *, before: datetime, keep: int) -> int:
        self.asked.append((before, keep))
        if self.broken:
            raise LedgerUnavailable("The disk is full.")
        gone = min(self.old, AT_ONCE)
        self.old -= gone
        return gone

    def look(self, *, after: float) -> int:
        """Look *after* so many seconds, and return how often the ledger was asked."""
        self.at += after
        before = len(self.asked)
        self.keeping.look()
        return len(self.asked) - before


def test_it_clears_a_minute_after_the_start_and_then_once_a_day() -> None:
    """All that is old goes in small steps; until the next day nothing is asked."""
    house = House(old=2 * AT_ONCE + 50)

    assert house.look(after=1) == 0
    assert house.look(after=AFTER_START) == 3
    assert house.old == 0
    assert house.look(after=EVERY - 1) == 0
    assert house.look(after=1) == 1
    assert set(house.asked) == {(NOW - timedelta(days=90), 1000)}


def test_it_waits_while_jobs_run() -> None:
    """While anything runs nothing is forgotten, and it stops when something begins."""
    house = House(old=10 * AT_ONCE)
    house.idle = False
    assert house.look(after=AFTER_START) == 0
    house.idle = True
    forget = house.forget

    def interrupted(**facts: Any) -> int:
        house.idle = len(house.asked) < 2
        return forget(**facts)

    house.forget = interrupted  # type: ignore[method-assign]
    assert house.look(after=30) == 3
    house.idle = True
    house.forget = forget  # type: ignore[method-assign]
    assert house.look(after=30) == 8
    assert house.old == 0


def test_much_is_done_in_several_looks() -> None:
    """Who calls is held up for some steps only; the next look goes on where this one ended."""
    house = House(old=50 * AT_ONCE)

    assert [house.look(after=AFTER_START) for _ in range(3)] == [20, 20, 11]


def test_a_ledger_that_cannot_be_written_is_left_for_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and tried again on the next day."""
    house = House(old=5)
    house.broken = True

    assert house.look(after=AFTER_START) == 1
    assert "were not forgotten" in caplog.text
    assert house.look(after=60) == 0
    house.broken = False
    assert house.look(after=EVERY) == 1
    assert house.old == 0


def test_for_ever_is_a_time_to_keep() -> None:
    """A time to keep that reaches before the first year forgets nothing."""
    house = House(old=0)
    house.settings = QueueConfig.model_construct(keep=4000 * 366 * 86_400.0, keep_jobs=1000)

    house.look(after=AFTER_START)

    assert house.asked[0][0] == datetime.min.replace(tzinfo=UTC)
