"""A schedule's real parts through nights in which the clocks change, sleeps, and clocks that are set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fakes_schedules import Calendar, a_schedule
from sqlalchemy import text

from jobs.model import ErrorInfo, NewJob
from torture.clock_oracle import CHANGES, caught_up, daily, on_the_wall

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_LIMIT = 3


@dataclass
class Year:
    """One calendar around one change of the clocks; *sabotage* breaks something."""

    folder: Path
    number: int
    seed: str
    sabotage: str = ""
    faults: int = 0
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.chance = random.Random(f"{self.seed}-year-{self.number}")
        self.change = CHANGES[self.number % len(CHANGES)]
        self.policy = self.chance.choice(("once", "all", "skip"))
        start = self.change.day - timedelta(minutes=self.chance.randint(0, 20 * 60), seconds=self.chance.randint(1, 59))
        self.calendar = Calendar(self.folder, start)
        minute = start.replace(second=0)
        reach = minute - 4 * _DAY, minute + 9 * _DAY
        at = self.change.at
        self.due = {
            "daily": daily(self.change.zone, at, *reach),
            "wall": on_the_wall(self.change.zone, 30, *reach),
        }
        zone = "UTC" if self.sabotage == "no-zone" else self.change.zone
        common: dict[str, Any] = {"timezone": zone, "catch_up": self.policy, "limit": _LIMIT}
        self.calendar.roster.sync(
            [
                a_schedule(name="daily", cron=f"{at.minute} {at.hour} * * *", **common),
                a_schedule(name="wall", cron="*/30 * * * *", **common),
                a_schedule(name="every", every="1h", **common),
            ]
        )
        self.wanted: dict[str, set[datetime]] = {name: set() for name in self.due}
        self.handled: dict[str, set[datetime]] = {name: set() for name in self.due}

    @property
    def now(self) -> datetime:
        """Return the time on the wall."""
        return self.calendar.bench.clock.now

    def run(self, events: int) -> None:
        """Let *events* things happen, one after the other, with some hours of ordinary life in between."""
        try:
            self._live(timedelta(hours=self.chance.uniform(1, 4)))
            for _ in range(events):
                self._event()
                self._live(timedelta(hours=self.chance.uniform(2, 5)))
            self._check()
        finally:
            self.calendar.close()

    def _event(self) -> None:
        self.faults += 1
        if self.sabotage == "no-memory":
            with self.calendar.bench.ledger.transaction("fire") as connection:
                connection.execute(text("DELETE FROM fires"))
        sleep, off, uniform = self.calendar.sleep, self.calendar.off, self.chance.uniform
        happenings: tuple[Callable[[], None], ...] = (
            lambda: self._gap(timedelta(minutes=uniform(1, 20)), sleep),
            lambda: self._gap(timedelta(hours=uniform(1, 40)), sleep),
            lambda: self._gap(timedelta(hours=uniform(0, 40)), off),
            lambda: self._gap(_HOUR, sleep),
            lambda: self._gap(_DAY, sleep),
            lambda: self._back(_HOUR, sleep),
            lambda: self._back(_DAY, sleep),
            lambda: self._back(self.chance.choice((_HOUR, _DAY)), off),
            self._slew,
        )
        self.chance.choice(happenings)()

    def _live(self, length: timedelta) -> None:
        """Let time pass as it should: every time that comes fires, unless it fired before the clock was set back."""
        before = self.now
        self.calendar.live(length)
        for name, due in self.due.items():
            come = {moment for moment in due if before < moment <= self.now}
            self.wanted[name] |= come
            self.handled[name] |= come

    def _gap(self, length: timedelta, pass_over: Any) -> None:
        """Let *length* pass in which nobody could act."""
        before = self.now
        pass_over(length)
        for name, due in self.due.items():
            come = [one for one in due if before < one <= self.now and one not in self.handled[name]]
            self.wanted[name] |= set(caught_up(self.policy, _LIMIT, come, self.now))
            self.handled[name] |= set(come)
        self.calendar.live(timedelta())

    def _back(self, length: timedelta, pass_over: Any) -> None:
        """Set the clock back: what fired stays fired, what was passed over comes again."""
        pass_over(-length)
        self.handled = {name: set(wanted) for name, wanted in self.wanted.items()}
        self.calendar.live(timedelta())

    def _slew(self) -> None:
        """Let the wall clock run by 500 parts in a million faster or slower, as NTP does, for two hours."""
        clock, rate = self.calendar.bench.clock, self.chance.choice((-5e-4, 5e-4))
        for _ in range(24):
            self._live(timedelta(minutes=5))
            clock.now += timedelta(seconds=300 * rate)

    def _check(self) -> None:
        where = f"{self.change.zone} {self.change.day:%Y-%m-%d}, catch_up {self.policy}, year {self.number}"
        jobs = self.calendar.jobs()
        for (name, time), count in Counter((job.source.rule, job.source.detail) for job in jobs).items():
            if count > 1:
                self.broken.append(f"{where}: {name} fired {count} times for {time}")
        self.broken += [f"{where}: {job.id} is {job.state.value}" for job in jobs if job.state != "succeeded"]
        self.broken += [f"{where}: {job.id} ran {job.fence} times" for job in jobs if job.fence > 1]
        if self.sabotage == "no-memory":
            return
        for name, wanted in self.wanted.items():
            got = set(self.calendar.times(name))
            self.broken += [f"{where}: {name} did not fire at {one}" for one in sorted(wanted - got)[:3]]
            self.broken += [f"{where}: {name} fired at {one}" for one in sorted(got - wanted)[:3]]
        if not self.calendar.times("every"):
            self.broken.append(f"{where}: the hourly schedule never fired")


def delays(folder: Path, jump: timedelta) -> list[str]:
    """Set the clock by *jump* while a job waits for a retry and one for a time; return what is wrong then."""
    folder.mkdir(parents=True)
    calendar = Calendar(folder, CHANGES[0].day)
    ledger, clock = calendar.bench.ledger, calendar.bench.clock
    try:
        soon = clock.now + timedelta(minutes=4)
        failing, told = (ledger.add(NewJob(task="noop", not_before=when))[0] for when in (None, soon))
        claimed = ledger.claim(failing.id, "me")
        assert claimed is not None
        ledger.fail(failing.id, claimed.fence, ErrorInfo(type="x", message="y"), retry_at=soon)
        clock.now += jump
        early = {job.id for job in ledger.ready()}
        clock.advance(600)
        late = {job.id for job in ledger.ready()}
        broken = []
        if failing.id not in late:
            broken.append(f"a retry in 4 minutes was not ready 10 minutes after the clock was set by {jump}")
        if jump < timedelta() and told.id in early | late:
            broken.append(f"a job for {soon} was ready at {clock.now}, after the clock was set by {jump}")
        if jump > timedelta() and told.id not in early:
            broken.append(f"a job for {soon} was not ready after the clock was set by {jump}")
        return broken
    finally:
        calendar.close()
