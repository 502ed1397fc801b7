"""How a running job is made to stop: by its person, by a drain, or to make room for somebody more urgent."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from jobs.errors import JobCancelled, LedgerUnavailable, MlxdError
from plugins.task import Call

#: Seconds between two tries to write down what must not be lost.
TRY_AGAIN: Final = 2.0
#: Jobs of which it is kept in mind that they had to make room.
_RECALLED_KEPT: Final = 10_000

Written = TypeVar("Written")


class Stop:
    """One job's stop signal: set once, with the reason; cancels the calls that are under way.

    *pause* is how many seconds lie between two tries of `persist`.
    """

    def __init__(self, *, pause: float = TRY_AGAIN) -> None:
        self.event = threading.Event()
        self._pause = pause
        self._lock = threading.Lock()
        self._reason: type[MlxdError] = JobCancelled
        self._calls: set[Call] = set()

    def set(self, reason: type[MlxdError]) -> None:
        """Ask the job to stop because of *reason*; a cancellation outranks a drain that came before it."""
        with self._lock:
            if not self.event.is_set() or reason is JobCancelled:
                self._reason = reason
            self.event.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def error(self) -> MlxdError:
        """Return the error that ends the job."""
        return self._reason()

    def check(self) -> None:
        """Raise the error if the job should stop."""
        if self.event.is_set():
            raise self.error()

    def persist(self, write: Callable[[], Written]) -> Written:
        """Do *write*, again and again while the ledger cannot be written: what was computed is not thrown away.

        Nothing else could run meanwhile, for nothing could be claimed.

        Raises:
            LedgerUnavailable: it could not be written, and the job is to stop.

        """
        while True:
            try:
                return write()
            except LedgerUnavailable:
                if self.event.wait(self._pause):
                    raise

    @contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """Cancel *call* when the signal comes, also when it had come before."""
        with self._lock:
            self._calls.add(call)
        try:
            if self.event.is_set():
                call.cancel()
            yield
        finally:
            with self._lock:
                self._calls.discard(call)


class Recalls:
    """Which jobs had to make room for a more urgent one. Who keeps nothing of his work has to do so once only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recalled: OrderedDict[str, None] = OrderedDict()

    def allow(self, job_id: str, *, kept: bool) -> bool:
        """Tell whether the job may be made to begin again, and note it; *kept*: it goes on where it was."""
        with self._lock:
            if job_id in self._recalled and not kept:
                return False
            self._recalled[job_id] = None
            if len(self._recalled) > _RECALLED_KEPT:
                self._recalled.popitem(last=False)
            return True
