"""Schedules as they are written down, and decisions about them: frozen values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import AwareDatetime

from jobs.model import Frozen, Job, NewJob

#: What `jobs.model.Source.kind` of a schedule's jobs says.
SOURCE: Final = "schedule"


class Standing(Frozen):
    """A schedule as it is written down."""

    name: str
    #: "config" or "added".
    origin: str
    definition: dict[str, Any]
    fingerprint: str
    #: What intervals count from.
    anchor: AwareDatetime
    #: The next time; None: none is left.
    next_at: AwareDatetime | None = None
    paused: bool = False


class Fire(Frozen):
    """A time of a schedule that became a job, or waits for its turn to become one."""

    #: The time as the schedule says it, without jitter.
    at: AwareDatetime
    #: "on-time", "catch-up", "backfill" or "manual".
    kind: str
    #: None: it waits for its turn.
    job: str | None = None


class Miss(Frozen):
    """Times of a schedule that became no job."""

    first: AwareDatetime
    last: AwareDatetime
    #: How many; counting stops at some thousand.
    count: int
    #: Why, for people.
    reason: str
    noticed_at: AwareDatetime


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a decision about a schedule goes by; true for as long as the transaction lasts."""

    standing: Standing
    #: Its jobs that are not done, oldest first.
    busy: tuple[Job, ...]
    #: Its times that wait for their turn, oldest first.
    waiting: tuple[datetime, ...]
    #: Times from its next one on that were taken already: only a clock that was set back comes to them again.
    taken: frozenset[datetime] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Step:
    """A decision about a schedule."""

    #: The next time from now on.
    next_at: datetime | None
    #: Times that become jobs one after the other, with their kind.
    take: tuple[tuple[datetime, str], ...] = ()
    #: Waiting times that are dropped.
    drop: tuple[datetime, ...] = ()
    #: Whether the jobs that are not done are cancelled.
    cancel: bool = False
    missed: tuple[Miss, ...] = ()
    #: Makes the job of a time; None: none starts now.
    job: Callable[[Fire], NewJob] | None = None


@dataclass(kw_only=True)
class Turned:
    """What a step did."""

    #: Jobs that are new.
    created: list[Job] = field(default_factory=list)
    #: Jobs as they are after having been cancelled.
    cancelled: list[Job] = field(default_factory=list)
