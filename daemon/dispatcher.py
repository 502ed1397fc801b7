"""Sees to it that every job that could run has a hint in the queue, within seconds, whatever was lost.

The queue's hints are never the truth. One thread sleeps until the earliest of: a job becomes due, somebody says that
something changed, or the periodic look (which is what finds lost hints and orphaned claims).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final, Protocol

from daemon.executor import Executor
from jobs.errors import LedgerUnavailable, StaleFence
from jobs.failpoints import reach
from jobs.ledger import Ledger
from jobs.model import Job, Lane, State

log = logging.getLogger(__name__)

#: Seconds between two looks at the ledger when nothing happens.
LOOK_EVERY: Final = 30.0
#: More jobs than this never wait (the configuration's limit is lower by default).
_MOST: Final = 100_000
#: Seconds between two tries while the ledger cannot be read or written.
TRY_AGAIN: Final = 5.0


class Hints(Protocol):
    """What the dispatcher needs of the queue."""

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0) -> None:
        """Leave a hint."""

    def clear(self) -> None:
        """Drop every hint."""

    def waiting(self) -> int:
        """Return how many hints wait."""


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
        arrivals: Callable[[], object] = lambda: None,
        held: Callable[[], Collection[Lane]] = frozenset,
    ) -> None:
        """*arrivals* is called at each look of the thread: what blocked jobs wait for may have come unannounced."""
        self._ledger = ledger
        self._queue = queue
        self._executor = executor
        self._clock = clock
        self._every = every
        self._arrivals = arrivals
        self._held = held
        ledger.on_problem(self.wake)
        self._news = threading.Condition()
        self._woken = False
        self._stopping = False
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
        """Leave a hint for a queued job, or note the time at which it will be due."""
        if job.state is not State.QUEUED:
            return
        if job.not_before is not None and job.not_before > self._clock():
            self.wake()
        else:
            self._queue.put(job.id, lane=job.lane, priority=job.priority)

    def look(self) -> None:
        """Mend whatever differs between ledger and queue. Safe to call at any time, from any thread."""
        for orphan in self._executor.orphans():
            self._take_back(orphan)
        waiting = self._queue.waiting()
        if waiting >= self._ledger.counts().get(State.QUEUED, 0):
            return
        if waiting < len(self._ready()):
            # Hints were lost, or jobs became due. Clearing first bounds their number; a doubled hint is harmless.
            self._queue.clear()
            reach("hints.cleared")
            # Looked up again: a hint that came since and was cleared away belongs to a job that is there by now.
            for job in self._ready():
                self._queue.put(job.id, lane=job.lane, priority=job.priority)

    def _ready(self) -> list[Job]:
        held = self._held()
        return self._ledger.ready(limit=_MOST, lanes=[lane for lane in Lane if lane not in held])

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
            self._arrivals()
            self.look()
            due = self._ledger.next_due()
        except LedgerUnavailable as error:
            self.problem = error.message
            log.warning("The ledger cannot be read: %s", error.message, extra={"action": "ledger_unavailable"})
            return TRY_AGAIN
        self.problem = None
        if due is None:
            return self._every
        return min(self._every, max(0.0, (due - self._clock()).total_seconds()))
