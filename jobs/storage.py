"""What huey keeps its messages in: a heap that workers block on, with a copy on disk."""

from __future__ import annotations

import heapq
import threading

from huey.constants import EmptyData
from huey.storage import BaseStorage

from jobs.failpoints import reach
from jobs.hints import Hint, HintFile


class LaneStorage(BaseStorage):  # type: ignore[misc]  # huey has no types
    """One lane's messages. `dequeue` sleeps until there is one: no polling, and no delay.

    huey's stock SQLite storage polls with a delay that grows to ten seconds.
    """

    blocking = True

    def __init__(self, name: str, *, file: HintFile) -> None:
        super().__init__(name)
        self._file = file
        self._changed = threading.Condition()
        self._closed = False
        # Higher priority first, then order of arrival.
        self._heap = [(-hint.priority, n, hint.data) for n, hint in file.rows().items() if hint.lane == name]
        heapq.heapify(self._heap)
        self._waiting = {data for _, _, data in self._heap}

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Add *data*, unless the same message waits already: the ledger is asked for lost hints again and again."""
        with self._changed:
            if data in self._waiting:
                return
            self._waiting.add(data)
            rank = int(priority or 0)
            number = self._file.add(Hint(self.name, rank, data))
            heapq.heappush(self._heap, (-rank, number, data))
            reach("hint.put")
            self._changed.notify()

    def dequeue(self) -> bytes | None:
        """Wait for a message and return it, or None once the storage is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._heap or self._closed)
            if self._closed:
                return None
            _, number, data = heapq.heappop(self._heap)
            self._waiting.discard(data)
            self._file.remove(number)
            reach("hint.taken")
            return data

    def holds(self, data: bytes) -> bool:
        """Return whether the message *data* waits."""
        with self._changed:
            return data in self._waiting

    def queue_size(self) -> int:
        """Return how many messages wait."""
        with self._changed:
            return len(self._heap)

    def close(self) -> None:
        """Send the workers home; messages stay where they are."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def peek_data(self, key: str) -> object:  # noqa: ARG002 - huey's signature
        """Return nothing: results and revocations live in the ledger."""
        return EmptyData

    pop_data = peek_data
