"""Group commit: writers that would wait for each other share one transaction, and so one sync of the disk.

A commit that survives a power cut waits for the disk, and while it does, others want to write. Instead of a commit
each, what waits is written together by one of those who wait, the leader; each hears what became of its own part. Who
comes alone leads at once: it pays for nothing but itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

#: Writes that one leader takes at most: the first of them waits for the last.
MOST: Final = 256


class Write:
    """One write: *body* says it to the connection of a transaction, *verb* is one of `jobs.failpoints.VERBS`."""

    __slots__ = ("_called", "body", "error", "result", "settled", "verb")

    def __init__(self, verb: str, body: Callable[[Connection], Any]) -> None:
        self.verb = verb
        self.body = body
        self.result: Any = None
        self.error: BaseException | None = None
        #: Whether `result` or `error` is what became of it.
        self.settled = False
        self._called = threading.Lock()
        self._called.acquire()

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        """Say what became of it."""
        self.result, self.error, self.settled = result, error, True

    def call(self) -> None:
        """Call the thread that waits: it is settled, or its turn to lead."""
        self._called.release()

    def wait(self) -> None:
        """Wait for `call`."""
        self._called.acquire()

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.result


class Group:
    """Gathers writes. *commit* makes some durable and settles each of them; it is called by one thread at a time."""

    def __init__(self, commit: Callable[[Sequence[Write]], None]) -> None:
        self._commit = commit
        self._door = threading.Lock()
        self._waiting: list[Write] = []
        self._led = False

    def run(self, write: Write) -> Any:
        """Have *write* done, and return or raise what became of it."""
        with self._door:
            self._waiting.append(write)
            leads, self._led = not self._led, True
        if not leads:
            write.wait()
        if not write.settled:
            self._lead(write)
        return write.outcome()

    def _lead(self, own: Write) -> None:
        """Do everything that waits, *own* among it, and hand the lead over to the first of those who came meanwhile."""
        with self._door:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            self._commit(batch)
        finally:
            with self._door:
                heir = self._waiting[0] if self._waiting else None
                self._led = heir is not None
            for write in batch:
                if not write.settled:
                    write.settle(error=RuntimeError("The write was interrupted."))
                if write is not own:
                    write.call()
            if heir is not None:
                heir.call()
