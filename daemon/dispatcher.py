"""Sees to it that every job that could run has a hint in the queue, within seconds, whatever was lost.

The queue's hints are never the truth. One thread sleeps until the earliest of: a job becomes due, somebody says that
something changed, or the periodic look (which is what finds lost hints and orphaned claims).

A look asks for each job by name whether it has a hint in its lane. Counting would not do: hints that lead nowhere (the
queue's file is anybody's) would stand for those that are missing, for as long as no worker has time for them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from daemon.executor import Executor
from jobs.asked import what_is_asked
from jobs.errors import LedgerUnavailable, StaleFence
from jobs.failpoints import reach
from jobs.ledger import Ledger
from jobs.model import Job, Lane, State

log = logging.getLogger(__name__)

#: Seconds between two looks at the ledger when nothing happens.
LOOK_EVERY: Final = 30.0
#: Seconds until the look for a job that went astray.
ASTRAY_AFTER: Final = 1.0
#: Seconds until the first look at what a job is blocked by.
UNBLOCK_AFTER: Final = 5.0
#: Seconds between two tries while the ledger cannot be read or written.
TRY_AGAIN: Final = 5.0


class Hints(Protocol):
    """What the dispatcher needs of the queue."""

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0, need: str = "") -> None:
        """Leave a hint, or say what the job needs of one that waits."""

    def hinted(self, job_id: str, *, lane: Lane) -> bool:
        """Tell whether a hint for the job waits in *lane*."""


class Dispatcher:
    """Keeps the queue in step with the ledger, but for the lanes that are *held*: those have somebody of their own."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        queue: Hints,
        executor: Executor,
        clock: Callable[[], datetime],
        every: float = LOOK_EVERY,
        arrivals: Callable[[], float | None] = lambda: None,
        held: Callable[[], Collection[Lane]] = frozenset,
        need: Callable[[str, Mapping[str, Any]], str] | None = None,
    ) -> None:
        """*arrivals* is called at each look of the thread: what blocked jobs wait for may have come unannounced.

        It returns after how many seconds at most it wants to be called again, None for no wish. *need* says of a task
        and its parameters what such a job cannot do without: the queue's order goes by it.
        """
        self._ledger = ledger
        self._queue = queue
        self._executor = executor
        self._clock = clock
        self._every = every
        self._arrivals = arrivals
        self._held = held
        self._need = need
        #: Whether hints may wait of which nobody has said what they need: they outlive the daemon.
        self._unlabelled = need is not None
        ledger.on_problem(self.wake)
        self._news = threading.Condition()
        self._woken = False
        self._stopping = False
        #: When the next delayed job may start; the condition's lock guards it.
        self._due: datetime | None = None
        self._thread = threading.Thread(target=self._loop, name="dispatcher", daemon=True)
        #: What stands in the way at the moment, for `mlxd doctor` and the health page.
        self.problem: str | None = None

    def start(self) -> None:
        """Look for the first time, then keep looking."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._news:
            self._stopping = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, job: Job) -> None:
        """Leave a hint for a queued job, or note the time at which it will be due, or may be unblocked."""
        if job.state is State.BLOCKED:
            self._expect(self._clock() + timedelta(seconds=UNBLOCK_AFTER))
        if job.state is not State.QUEUED:
            return
        if job.not_before is not None and job.not_before > self._clock():
            self._expect(job.not_before)
        else:
            need = self._need(job.task, job.params) if self._need else ""
            self._queue.put(job.id, lane=job.lane, priority=_rank(job.priority, begun=job.fence > 0), need=need)

    def look(self) -> None:
        """Mend whatever differs between ledger and queue. Safe to call at any time, from any thread."""
        for orphan in self._executor.orphans():
            self._take_back(orphan)
        held, unlabelled, self._unlabelled = self._held(), self._unlabelled, False
        found = []
        for job in self._ledger.ready_ids(lanes=[lane for lane in Lane if lane not in held]):
            # One that was taken this moment and is not claimed yet gets another; a doubled hint is harmless. But that
            # one may wait far behind when the job is interrupted: a begun job's hint moves up.
            missing = not self._queue.hinted(job.id, lane=job.lane)
            if missing:
                reach("hint.missing")
            if missing or job.begun or unlabelled:
                found.append(job)
        needs = self._needs([job.id for job in found])
        for job in found:
            priority = _rank(job.priority, begun=job.begun)
            self._queue.put(job.id, lane=job.lane, priority=priority, need=needs.get(job.id, ""))

    def _needs(self, job_ids: Sequence[str]) -> Mapping[str, str]:
        """Return what the jobs need, as far as that is known."""
        if self._need is None or not job_ids:
            return {}
        with self._ledger.reading() as connection:
            asked = what_is_asked(connection, job_ids)
        return {job_id: self._need(task, params) for job_id, (task, params) in asked.items()}

    def relabel(self) -> None:
        """Say anew what all waiting jobs need, soon: models may be called otherwise now."""
        self._unlabelled = self._need is not None
        self.wake()

    def _take_back(self, orphan: Job) -> None:
        reach("orphan.found")
        try:
            self._ledger.release(orphan.id, orphan.fence)
        except StaleFence:
            return
        log.warning("Took an orphaned job back.", extra={"action": "job_orphan_released", **orphan.log_context})

    def wake(self) -> None:
        """Look soon: something has changed."""
        with self._news:
            self._woken = True
            self._news.notify()

    def look_soon(self) -> None:
        """Look in a second: a job went astray, and what led it there may lead the next one there at once."""
        self._expect(self._clock() + timedelta(seconds=ASTRAY_AFTER))

    def _expect(self, due: datetime) -> None:
        """Look when *due* has come, if not earlier. Many retries that are written down together cost no look each."""
        with self._news:
            if self._due is None or due < self._due:
                self._due = due
                self._news.notify()

    def _loop(self) -> None:
        while not self._stopping:
            self._sleep(self._turn())

    def _sleep(self, most: float) -> None:
        """Sleep until something is due or somebody wakes us, at most *most* seconds."""
        end = time.monotonic() + most
        with self._news:
            while not (self._woken or self._stopping):
                pause = min(end - time.monotonic(), self._until_due())
                if pause <= 0:
                    break
                self._news.wait(pause)
            self._woken = False

    def _until_due(self) -> float:
        return math.inf if self._due is None else (self._due - self._clock()).total_seconds()

    def _writable(self) -> bool:
        """Tell whether the ledger can be written, or can be again."""
        problem = self._ledger.problem
        if problem is None:
            return True
        well = self._ledger.probe()
        if well:
            log.info("The ledger can be written again.", extra={"action": "ledger_recovered"})
        else:
            log.warning("%s", problem, extra={"action": "ledger_unwritable"})
        return well

    def _turn(self) -> float:
        """Look once; return how long to sleep at most, in seconds."""
        with self._news:
            self._due = None
        try:
            if not self._writable():
                return TRY_AGAIN
            soon = self._arrivals()
            # Asked before the look: what becomes due while it goes on is due after it, and not forgotten.
            due = self._ledger.next_due()
            self.look()
        except LedgerUnavailable as error:
            self.problem = error.message
            log.warning("The ledger cannot be read: %s", error.message, extra={"action": "ledger_unavailable"})
            return TRY_AGAIN
        self.problem = None
        if due is not None:
            self._expect(due)
        return self._every if soon is None else min(soon, self._every)


def _rank(priority: int, *, begun: bool) -> int:
    """Return the order among hints: by priority, and of equals what was begun first.

    Hints outlive the daemon and those of interrupted jobs are put after its death: in order of arrival a job that ran
    would have to wait for all that waited behind it.
    """
    return 2 * priority + begun
