"""A daemon's schedules with injected clocks: real ledger, real book, keeper and desk, a real executor, no threads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fakes_daemon import Bench

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.department import schedules
from jobs.model import Job, State


class FakeDoors:
    """The service's part: validates with the bench's tasks, remembers what was announced."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.announced: list[Job] = []

    def validate(self, task: str, params: Mapping[str, Any]) -> None:
        self._bench._parse(task, params)

    def announce(self, job: Job) -> None:
        self.announced.append(job)


class Calendar:
    """Schedules over a real ledger; time moves when told to, as awake, asleep or off."""

    def __init__(self, folder: Path, start: datetime, *, limit: int = 1000) -> None:
        self.folder = folder
        self.now = start
        self.limit = limit
        self.woke = 0
        self.stopped: list[str] = []
        self.switch_on()

    def switch_on(self, *configured: ScheduleConfig, sync: bool = False) -> None:
        """Start a daemon on the same files; *configured* counts with *sync* or when something is given."""
        self.bench = Bench(self.folder)
        self.bench.clock.now = self.now
        self.bench.task("noop", lambda ctx, params: {})
        self.doors = FakeDoors(self.bench)
        parts = schedules(
            self.bench.ledger,
            self.doors,
            results=self.folder / "results",
            limit=lambda: self.limit,
            stop=self.stopped.append,
            on_wake=(self._wake,),
            clock=self.bench.clock,
            monotonic=self.bench.clock.monotonic,
            nap_s=86_400.0,
        )
        self.keeper, self.desk, self.book = parts.keeper, parts.desk, parts.desk._book
        self.roster = parts.desk._roster
        if configured or sync:
            self.roster.sync(configured)
        self.roster.realign()

    def switch_off(self) -> None:
        self.now = self.bench.clock.now
        self.bench.close()

    def off(self, length: timedelta, *configured: ScheduleConfig) -> None:
        """Switch off, let *length* pass, switch on again and take the first turn."""
        self.switch_off()
        self.now += length
        self.switch_on(*configured)
        self.keeper.turn()

    def sleep(self, length: timedelta) -> None:
        """Close the lid for *length*: only the wall clock goes on. Then take the first turn."""
        self.bench.clock.now += length
        self.keeper.turn()

    def live(self, length: timedelta, *, work: bool = True) -> None:
        """Let *length* pass as the thread would: turn, sleep as long as it says, turn. Jobs end at once with *work*."""
        end = self.bench.clock.now + length
        while True:
            pause = self.keeper.turn()
            if work and self.work():
                continue
            left = (end - self.bench.clock.now).total_seconds()
            if left <= 0:
                return
            self.bench.clock.advance(min(left, max(pause, 0.001)))

    def work(self) -> int:
        """Run every queued job to its end; return how many."""
        ready = self.bench.ledger.ready()
        for job in ready:
            self.bench.executor.execute(job.id)
        return len(ready)

    def jobs(self, *states: State) -> list[Job]:
        return self.bench.ledger.find(states=states, limit=10_000, newest_first=False)

    def times(self, name: str) -> list[datetime]:
        """Return the times that became jobs, oldest first."""
        return [fire.at for fire in reversed(self.book.fires(name, 10_000)) if fire.job]

    def _wake(self) -> None:
        self.woke += 1

    def close(self) -> None:
        self.bench.close()


def a_schedule(**said: Any) -> ScheduleConfig:
    """Return a schedule of the task ``noop``, by the hour unless *said* otherwise."""
    timing = {} if {"cron", "every", "at"} & set(said) else {"cron": "0 * * * *"}
    return ScheduleConfig.model_validate({"name": "s", "task": "noop", "timezone": "UTC", **timing, **said})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
