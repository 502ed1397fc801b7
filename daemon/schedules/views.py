"""Schedules as people and programs see them, and what can be asked about them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import AwareDatetime, model_validator

from daemon.config.schedules import ScheduleConfig
from jobs.firing import Fire, Miss
from jobs.model import Frozen, Job


class Condition(StrEnum):
    """Where a schedule stands."""

    #: It will fire.
    ACTIVE = "active"
    #: It rests until it is resumed.
    PAUSED = "paused"
    #: The configuration says ``enabled = false``.
    DISABLED = "disabled"
    #: No time is left.
    OVER = "over"


class ScheduleStatus(Frozen):
    """One schedule."""

    name: str
    #: "config" or "added" (at run time).
    origin: str
    state: Condition
    #: The timing for people.
    when: str = ""
    #: Whose clocks count.
    timezone: str = ""
    task: str = ""
    #: The next time, and when it really happens, jitter included.
    next_at: AwareDatetime | None = None
    due_at: AwareDatetime | None = None
    #: The latest time that became a job.
    last: Fire | None = None
    #: Times that wait for the job before.
    waiting: int = 0
    #: Why it does not do what it should, if so.
    problem: str | None = None


class ScheduleDetails(ScheduleStatus):
    """One schedule with its definition, its past and its future."""

    definition: ScheduleConfig | None = None
    #: The next five times.
    upcoming: tuple[AwareDatetime, ...] = ()
    #: Times that became jobs or wait for their turn, latest first.
    fires: tuple[Fire, ...] = ()
    #: Times that became no job and why, latest first.
    missed: tuple[Miss, ...] = ()


class Span(Frozen):
    """A past stretch of time."""

    #: Both ends belong to it.
    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _forward(self) -> Span:
        if self.end < self.start:
            raise ValueError("the end comes before the start")
        return self


class Backfilled(Frozen):
    """What a backfill did."""

    #: Times that will become jobs now, one after the other.
    inserted: int
    #: Times that had become jobs before, or waited for it.
    known: int


class Upcoming(Frozen):
    """The next times of a schedule."""

    times: tuple[AwareDatetime, ...] = ()
    #: Whose clocks count.
    timezone: str


class SchedulesFacade(Protocol):
    """Everything the socket asks about schedules. Every method may raise any `jobs.errors.MlxdError`."""

    def all(self) -> list[ScheduleStatus]:
        """Return the schedules by name."""

    def show(self, name: str) -> ScheduleDetails:
        """Return one schedule with its past and future."""

    def add(self, schedule: ScheduleConfig) -> ScheduleStatus:
        """Take a new schedule; its job template is checked first."""

    def pause(self, name: str) -> ScheduleStatus:
        """Let a schedule rest."""

    def resume(self, name: str) -> ScheduleStatus:
        """Let a schedule go on with its next time from now."""

    def remove(self, name: str) -> None:
        """Forget a schedule that was added."""

    def run(self, name: str) -> Job:
        """Make its job now, whatever else goes on; its times are not touched."""

    def next(self, name: str, count: int) -> Upcoming:
        """Return its next times."""

    def backfill(self, name: str, start: datetime, end: datetime) -> Backfilled:
        """Make the jobs of past times that did not become any."""
