"""The daemon as the keeper sees it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.wake import Jump
from jobs.errors import MlxdError
from jobs.firing import SOURCE, Fire
from jobs.model import Job, NewJob, Placement, Source, State

log: Final = logging.getLogger(__name__)


class Doors(Protocol):
    """What the office needs of the service."""

    def validate(self, task: str, params: Mapping[str, Any]) -> None:
        """Raise if such a job could not be made."""

    def announce(self, job: Job) -> None:
        """Tell of a new or changed job, and have it run if it is to."""


class ScheduleOffice:
    """Makes jobs of schedules' times and hands them on.

    *results* is where a schedule's outputs go by default, *limit* how many unfinished jobs there may be, *stop* makes
    a running job stop, *on_wake* are called (on a thread of their own) when the machine has slept.
    """

    def __init__(
        self,
        doors: Doors,
        *,
        results: Path,
        limit: Callable[[], int],
        stop: Callable[[str], object],
        on_wake: tuple[Callable[[], object], ...],
    ) -> None:
        self._doors = doors
        self._results = results
        self._stop = stop
        self._on_wake = on_wake
        self.limit = limit
        self.announce = doors.announce

    def problem(self, schedule: ScheduleConfig) -> str | None:
        """Return why jobs of *schedule* cannot be made, if they cannot."""
        try:
            self._doors.validate(schedule.task, schedule.params)
        except MlxdError as error:
            return error.message
        return None

    def check(self, schedule: ScheduleConfig) -> None:
        """Raise `UnknownTask` or `InvalidParams` if jobs of *schedule* cannot be made."""
        self._doors.validate(schedule.task, schedule.params)

    def job(self, schedule: ScheduleConfig, fire: Fire) -> NewJob:
        """Return the job of a time of *schedule*."""
        local = fire.at.astimezone(schedule.zone)
        return NewJob(
            task=schedule.task,
            params=schedule.params,
            lane=schedule.lane,
            priority=schedule.priority,
            source=Source(kind=SOURCE, rule=schedule.name, detail=local.isoformat(timespec="seconds")),
            placement=Placement(
                directory=schedule.output or self._results / f"schedule-{schedule.name}",
                stem=local.strftime("%Y-%m-%d_%H-%M"),
            ),
        )

    def stopped(self, job: Job) -> None:
        """Make a cancelled job stop, or tell that it will not begin."""
        if job.state is State.RUNNING:
            self._stop(job.id)
        else:
            self.announce(job)

    def woke(self, jump: Jump) -> None:
        """Have everything looked at that the time may have changed, once."""
        threading.Thread(target=self._look, name="woke", args=(jump,), daemon=True).start()

    def _look(self, jump: Jump) -> None:
        log.info("Looking around after a sleep.", extra={"action": "woke", "seconds": round(jump.seconds)})
        for look in self._on_wake:
            look()
