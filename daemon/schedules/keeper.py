"""Keeps the schedules: one thread that sleeps until the next time on the wall clock.

It never sleeps longer than `NAP_S`, because a thread's sleep counts monotonic time, which stands still while the
machine sleeps: that is how a wake is noticed, and every time that passed meanwhile.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Protocol

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.planning import due, plan
from daemon.schedules.roster import Roster, definition
from daemon.schedules.wake import Clocks, Jump
from jobs.errors import LedgerUnavailable, MlxdError, ScheduleNotFound
from jobs.failpoints import reach
from jobs.firing import SOURCE, Fire, Situation, Standing, Step
from jobs.model import TERMINAL, Job, NewJob, State
from jobs.schedules import ScheduleBook

log: Final = logging.getLogger(__name__)

#: Longest sleep, seconds.
NAP_S: Final = 30.0
#: Seconds until another try when a job could not be written down.
TRY_AGAIN_S: Final = 5.0


class Office(Protocol):
    """What the keeper needs of the daemon."""

    def problem(self, schedule: ScheduleConfig) -> str | None:
        """Return why jobs of *schedule* cannot be made, if they cannot."""

    def job(self, schedule: ScheduleConfig, fire: Fire) -> NewJob:
        """Return the job of a time of *schedule*."""

    def limit(self) -> int:
        """Return how many unfinished jobs there may be."""

    def announce(self, job: Job) -> None:
        """Tell of a new job, and have it run."""

    def stopped(self, job: Job) -> None:
        """Tell of a job that was cancelled, or asked to stop."""

    def woke(self, jump: Jump) -> None:
        """The machine has slept; return soon."""


class Keeper:
    """`start`, `stop`, `wake` and `job_ended` may be called from any thread; `turn` is the thread's own."""

    def __init__(
        self,
        book: ScheduleBook,
        roster: Roster,
        office: Office,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        nap_s: float = NAP_S,
    ) -> None:
        self._book = book
        self._roster = roster
        self._office = office
        self._clock = clock
        self._nap_s = nap_s
        self._clocks = Clocks(clock, monotonic)
        self._news = threading.Condition()
        self._woken = False
        self._stopping = False
        self._why = "mlxd did not run"
        self._thread = threading.Thread(target=self._loop, name="schedules", daemon=True)
        #: Schedules that could not do what they should, and why.
        self.troubles: dict[str, str] = {}

    def start(self, configured: Iterable[ScheduleConfig] | None) -> None:
        """Take the configuration's schedules (None: it cannot be read, keep what is known), then begin."""
        if configured is not None:
            self._roster.sync(configured)
        self._roster.realign()
        self._thread.start()

    def reconfigure(self, configured: Iterable[ScheduleConfig]) -> None:
        """Keep these schedules of the configuration from now on."""
        self._roster.sync(configured)
        self.wake()

    def stop(self) -> None:
        """End the thread; what passes from now on is missed."""
        with self._news:
            self._stopping = True
            self._news.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def wake(self) -> None:
        """Make the thread look again: something has changed."""
        with self._news:
            self._woken = True
            self._news.notify()

    def job_ended(self, job: Job) -> None:
        """Hear of a job that is not running any more: the next of its schedule may have waited for it."""
        if job.source.kind == SOURCE and (job.state in TERMINAL or job.state is State.QUARANTINED):
            self.wake()

    def turn(self) -> float:
        """Do everything that is due; return for how many seconds nothing will be."""
        jump = self._clocks.jump()
        try:
            if jump is not None:
                self._jumped(jump)
            now = self._clock()
            waiting = self._book.waiting()
            pauses = [self._serve(one, now, waits=one.name in waiting) for one in self._book.all()]
        except LedgerUnavailable as error:
            log.warning("Schedules cannot be read: %s", error.message, extra={"action": "ledger_unavailable"})
            return TRY_AGAIN_S
        self._why = "mlxd was late"
        if jump is not None and jump.asleep:
            self._office.woke(jump)
        return min([self._nap_s, *pauses])

    def _loop(self) -> None:
        while not self._stopping:
            pause = self.turn()
            with self._news:
                self._news.wait_for(lambda: self._woken or self._stopping, timeout=pause)
                self._woken = False

    def _jumped(self, jump: Jump) -> None:
        log.info(
            "The machine slept, or its clock was set: %+.0f s.",
            jump.seconds,
            extra={"action": "clock_jumped", "seconds": round(jump.seconds)},
        )
        if jump.asleep:
            self._why = "the computer slept"
        self._roster.realign()

    def _serve(self, standing: Standing, now: datetime, *, waits: bool) -> float:
        """Do what is due for one schedule; return the seconds until something will be."""
        try:
            schedule = definition(standing)
            if waits or _pause(schedule, standing, now) <= 0:
                self._step(schedule, now)
                standing = self._book.get(schedule.name)
            self.troubles.pop(schedule.name, None)
            return max(0.0, _pause(schedule, standing, self._clock()))
        except ScheduleNotFound:
            return math.inf
        except MlxdError as error:
            if self.troubles.get(standing.name) != error.message:
                log.warning("The schedule %s: %s", standing.name, error.message, extra={"action": "schedule_trouble"})
            self.troubles[standing.name] = error.message
        except Exception as error:  # one schedule's surprise must not end all schedules
            log.exception("The schedule %s failed.", standing.name, extra={"action": "schedule_failed"})
            self.troubles[standing.name] = f"unexpected {type(error).__name__}; `mlxd logs` says where"
        return TRY_AGAIN_S

    def _step(self, schedule: ScheduleConfig, now: datetime) -> None:
        reach("schedule.due")
        problem = self._office.problem(schedule)

        def decide(situation: Situation) -> Step | None:
            return plan(
                definition(situation.standing),
                situation,
                now=now,
                why=self._why,
                problem=problem,
                job=lambda fire: self._office.job(schedule, fire),
            )

        turned = self._book.turn(schedule.name, decide, limit=self._office.limit())
        for job in turned.cancelled:
            self._office.stopped(job)
        for job in turned.created:
            reach("schedule.fired")
            log.info("A schedule fired.", extra={"action": "schedule_fired", "schedule": schedule.name, "job": job.id})
            self._office.announce(job)


def _pause(schedule: ScheduleConfig, standing: Standing, now: datetime) -> float:
    """Return the seconds until the next time."""
    if standing.paused or not schedule.enabled or standing.next_at is None:
        return math.inf
    return (due(schedule, standing, standing.next_at) - now).total_seconds()
