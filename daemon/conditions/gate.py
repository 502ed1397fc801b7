"""Holds jobs of a lane back while the lane's conditions do not hold, and lets them go when they do.

A job that is held back stays queued in the ledger and loses its hint; it costs no attempt. Who holds it back writes the
lane down as held in the same breath, and wakes the one thread here, which puts a hint for each ready job of the lane
when the lane opens. So none is lost:

1. held is noted before the hint is dropped, under the lock;
2. the thread strikes the lane out first and puts the hints afterwards: a hint that is dropped in between has noted the
   lane as held again, which wakes the thread once more;
3. a lane without ready jobs is struck out under the lock that (1) takes, after a look at the ledger, where every job
   stands before its hint is put.

The thread sleeps unless a lane is held, or a lane that wants its jobs stopped has some running.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Final, Protocol

from daemon.conditions.hours import next_change
from daemon.conditions.policy import OPEN, Verdict, judge, needs
from daemon.conditions.readers import Readings
from daemon.config.lanes import LaneConfig
from daemon.views import LaneStatus
from jobs.errors import JobNotFound, LedgerUnavailable
from jobs.model import Job, Lane, State

log = logging.getLogger(__name__)

#: Time between two looks at the machine while jobs wait or may have to stop.
LOOK_EVERY: Final = timedelta(seconds=30)
#: The same where only the clock counts. Not just the one time: a machine that sleeps wakes late.
CLOCK_EVERY: Final = timedelta(minutes=5)
#: Seconds; a sleep may end a moment early by the clock on the wall.
_SHORTEST: Final = 0.05
#: What a lane is that the configuration does not name.
_PLAIN: Final = LaneConfig()
#: More jobs than this never wait.
_MOST: Final = 100_000


class Waiting(Protocol):
    """What the gate needs of the ledger."""

    def get(self, job_id: str) -> Job:
        """Return a job."""

    def ready(self, limit: int = 1000, *, lanes: Collection[Lane] = tuple(Lane)) -> list[Job]:
        """Return the queued jobs of *lanes* that may start now."""


class Running(Protocol):
    """What the gate needs of the executor."""

    def running(self) -> list[Job]:
        """Return the jobs that run now."""

    def step_aside(self, lane: Lane) -> int:
        """Ask the running jobs of *lane* to go back into the queue; return how many."""


class Memory(Protocol):
    """What the gate needs to know of the machine's memory; whoever knows it calls `Gate.nudge` when that changes."""

    def holds(self, lane: Lane) -> str | None:
        """Return why no job of *lane* should begin now, None if it may."""

    def stops(self, lane: Lane) -> bool:
        """Tell whether running jobs of *lane* have to step aside."""


class Plenty:
    """Memory that is never short."""

    def holds(self, lane: Lane) -> str | None:  # noqa: ARG002 - see `Memory`
        """Hold nothing."""
        return None

    def stops(self, lane: Lane) -> bool:  # noqa: ARG002 - see `Memory`
        """Stop nothing."""
        return False


class Gate:
    """*lanes* is what the configuration says now; *held_back* hears of each job whose hint was dropped.

    Besides what a lane's conditions say, *memory* may hold its jobs back or let them step aside.
    """

    def __init__(
        self,
        *,
        lanes: Callable[[], Mapping[Lane, LaneConfig]],
        ledger: Waiting,
        readings: Readings,
        clock: Callable[[], datetime],
        held_back: Callable[[Job], None],
        zone: tzinfo | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._lanes = lanes
        self._memory = memory or Plenty()
        self._ledger = ledger
        self._readings = readings
        self._clock = clock
        self._held_back = held_back
        self._zone = zone
        self._news = threading.Condition()
        self._held: dict[Lane, Verdict] = {}
        self._watched: set[Lane] = set()
        self._unread: dict[Lane, frozenset[str]] = {}
        self._woken = False
        self._stopping = False
        self._runs: Running | None = None
        self._put: Callable[[Job], None] = lambda _job: None
        self._thread = threading.Thread(target=self._loop, name="conditions", daemon=True)

    def start(self, runs: Running, put: Callable[[Job], None]) -> None:
        """Begin to look after what is held; *put* leaves a hint for a job."""
        self._runs, self._put = runs, put
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is held stays held."""
        with self._news:
            self._stopping = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def nudge(self) -> None:
        """Look now: the configuration has changed, or the machine woke up."""
        with self._news:
            self._wake()

    # What the executor asks.

    def admits(self, job_id: str) -> bool:
        """Tell whether the job may be claimed; if not, the hint may be dropped: it will be put again."""
        conditional = self._conditional()
        if not conditional:
            return True
        try:
            job = self._ledger.get(job_id)
        except (JobNotFound, LedgerUnavailable):
            return True  # the claim finds out, and says so
        if job.state is not State.QUEUED or job.lane not in conditional or not self._closed(job.lane, conditional):
            return True
        self._held_back(job.model_copy(update={"waiting": self.why(job)}))
        return False

    def must_stop(self, job: Job) -> bool:
        """Tell whether the job that just began must stop again, and have an eye on it if it may have to later."""
        lane = self._conditional().get(job.lane)
        if self._memory.stops(job.lane):
            return True
        if lane is None or not lane.stop:
            return False
        with self._news:
            if job.lane not in self._watched:
                self._watched.add(job.lane)
                self._wake()
            return job.lane in self._held

    # What people ask.

    def why(self, job: Job) -> str | None:
        """Return why a queued job is held back, and until when; None if it is not."""
        if job.state is not State.QUEUED or (job.not_before is not None and job.not_before > self._clock()):
            return None
        with self._news:
            return self._held.get(job.lane, OPEN).reason

    def held(self) -> frozenset[Lane]:
        """Return the lanes whose jobs wait for a condition."""
        with self._news:
            return frozenset(self._held)

    def status(self) -> list[LaneStatus]:
        """Return the lanes that have conditions."""
        conditional = self._conditional()
        with self._news:
            return [
                LaneStatus(
                    lane=lane,
                    waiting=self._held.get(lane, OPEN).reason,
                    until=self._held.get(lane, OPEN).until,
                    unread=tuple(sorted(self._unread.get(lane, ()))),
                )
                for lane in conditional
            ]

    # Deciding.

    def _conditional(self) -> dict[Lane, LaneConfig]:
        lanes = self._lanes()
        named = {lane: lanes.get(lane, _PLAIN) for lane in Lane}
        return {lane: config for lane, config in named.items() if config.conditional or self._memory.holds(lane)}

    def _closed(self, lane: Lane, conditional: Mapping[Lane, LaneConfig]) -> bool:
        with self._news:
            if lane in self._held:
                return True
        verdict = self._judge(lane, conditional[lane])
        if verdict.open:
            return False
        with self._news:
            self._hold(lane, verdict)
        return True

    def _judge(self, lane: Lane, config: LaneConfig, *, anew: bool = False) -> Verdict:
        verdict = judge(config, self._readings(needs(config), anew=anew), self._clock(), self._zone)
        if (short := self._memory.holds(lane)) is not None:
            verdict = replace(verdict, reasons=(*verdict.reasons, short), until=None)
        unread = frozenset(fact.value for fact in verdict.unread)
        with self._news:
            news = unread - self._unread.get(lane, frozenset())
            self._unread[lane] = unread
        for key in sorted(news):
            log.warning(
                "lanes.%s.%s cannot be checked on this machine; it counts as fulfilled.",
                lane.value,
                key,
                extra={"action": "condition_unread", "lane": lane.value, "condition": key},
            )
        return verdict

    def _hold(self, lane: Lane, verdict: Verdict) -> None:
        """Note *lane* as held; the lock is ours."""
        if lane not in self._held:
            log.info("Lane held back.", extra={"action": "lane_held", "lane": lane.value, "reason": verdict.reason})
            self._wake()
        self._held[lane] = verdict

    def _wake(self) -> None:
        self._woken = True
        self._news.notify()

    # The thread.

    def _loop(self) -> None:
        pause: float | None = 0.0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._woken or self._stopping, timeout=pause)
                if self._stopping:
                    return
                self._woken = False
            pause = self._turn()

    def _turn(self) -> float | None:
        """Look once at every lane that is held or watched; return how long to sleep, in seconds; None: until woken."""
        conditional = self._conditional()
        for lane in Lane:
            if self._memory.stops(lane):
                self._step_aside(lane, self._memory.holds(lane))
        for lane in self._snapshot(self._watched):
            self._look_at_running(lane, conditional.get(lane))
        for lane in self._snapshot(self._held):
            self._look_at_held(lane, conditional.get(lane))
        with self._news:
            busy = [conditional[lane] for lane in {*self._held, *self._watched} if lane in conditional]
        return min((self._pause(config) for config in busy), default=None)

    def _snapshot(self, lanes: Collection[Lane]) -> tuple[Lane, ...]:
        with self._news:
            return tuple(lanes)

    def _pause(self, config: LaneConfig) -> float:
        now = self._clock()
        look = now + (LOOK_EVERY if needs(config) else CLOCK_EVERY)
        if config.between is not None:
            look = min(look, next_change(config.between, now, self._zone) or look)
        return max(_SHORTEST, (look - now).total_seconds())

    def _look_at_held(self, lane: Lane, config: LaneConfig | None) -> None:
        verdict = OPEN if config is None else self._judge(lane, config, anew=True)
        if verdict.open:
            self._open(lane)
            return
        with self._news:
            self._held[lane] = verdict
            # While running jobs still step aside, they are about to be ready.
            if lane not in self._watched and not self._any_ready(lane):
                del self._held[lane]

    def _open(self, lane: Lane) -> None:
        with self._news:
            before = self._held.pop(lane)
        try:
            jobs = self._ledger.ready(_MOST, lanes=(lane,))
        except LedgerUnavailable:
            with self._news:
                self._held.setdefault(lane, before)
            return
        log.info("Lane open.", extra={"action": "lane_open", "lane": lane.value, "jobs": len(jobs)})
        for job in jobs:
            self._put(job)

    def _any_ready(self, lane: Lane) -> bool:
        try:
            return bool(self._ledger.ready(1, lanes=(lane,)))
        except LedgerUnavailable:
            return True

    def _look_at_running(self, lane: Lane, config: LaneConfig | None) -> None:
        with self._news:
            runs = self._runs
            if runs is None or config is None or not config.stop or all(job.lane is not lane for job in runs.running()):
                self._watched.discard(lane)
                return
        verdict = self._judge(lane, config)
        if not verdict.open:
            with self._news:
                self._hold(lane, verdict)
            self._step_aside(lane, verdict.reason)

    def _step_aside(self, lane: Lane, reason: str | None) -> None:
        if self._runs is not None and (count := self._runs.step_aside(lane)):
            context = {"action": "lane_stopped", "lane": lane.value, "reason": reason, "jobs": count}
            log.info("Running jobs step aside.", extra=context)
