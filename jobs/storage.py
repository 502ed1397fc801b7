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
        #: Higher priority first, then order of arrival. What `_waiting` does not know (any more) is passed over.
        self._heap: list[tuple[int, int, bytes]] = []
        #: Each message that waits: its place in the heap.
        self._waiting: dict[bytes, tuple[int, int]] = {}
        for number, hint in file.rows().items():
            if hint.lane == name:
                self._place(hint, number)

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Add *data*, unless the same message waits already: the ledger is asked for lost hints again and again.

        With a higher *priority* than the one that waits it takes its place.
        """
        hint = Hint(self.name, int(priority or 0), data)
        with self._changed:
            if data in self._waiting and self._waiting[data][0] <= -hint.priority:
                return
            self._place(hint, self._file.add(hint))
            reach("hint.put")
            self._changed.notify()

    def _place(self, hint: Hint, number: int) -> None:
        place = (-hint.priority, number)
        if hint.data in self._waiting:
            worse = max(place, self._waiting[hint.data])
            self._file.remove(worse[1])
            place = min(place, self._waiting[hint.data])
        self._waiting[hint.data] = place
        heapq.heappush(self._heap, (*place, hint.data))

    def dequeue(self) -> bytes | None:
        """Wait for a message and return it, or None once the storage is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            number, data = self._first()
            self._file.remove(number)
            reach("hint.taken")
            return data

    def _first(self) -> tuple[int, bytes]:
        """Take the most urgent message that waits out of memory, and return it with its number."""
        while True:
            rank, number, data = heapq.heappop(self._heap)
            if self._waiting.get(data) == (rank, number):
                del self._waiting[data]
                return number, data

    def holds(self, data: bytes) -> bool:
        """Return whether the message *data* waits."""
        with self._changed:
            return data in self._waiting

    def queue_size(self) -> int:
        """Return how many messages wait."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Send the workers home; messages stay where they are."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def peek_data(self, key: str) -> object:  # noqa: ARG002 - huey's signature
        """Return nothing: results and revocations live in the ledger."""
        return EmptyData

    pop_data = peek_data
