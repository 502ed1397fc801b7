"""What huey keeps its messages in: heaps that workers block on, with a copy on disk."""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Protocol

from huey.constants import EmptyData
from huey.storage import BaseStorage

from jobs.failpoints import reach
from jobs.hints import Hint, HintFile

#: Where a message stands in its lane: the lower goes first. Its urgency, then the order of arrival.
Place = tuple[int, int]


class Order(Protocol):
    """Says what a free worker takes. Called under the lane's lock: it must neither wait nor call the storage."""

    def choose(self, lane: str, heads: Mapping[str, Place], out: Collection[str]) -> tuple[str | None, float | None]:
        """Return what need's first message is taken, None for nobody's; and after how many seconds to ask again.

        *heads* is where the first message of each need stands, *out* are the needs of what workers are busy with. A
        message of which no need is known has an empty one.
        """

    def waits(self, lane: str, need: str) -> None:
        """Hear that a first message of *need* waits; the workers may all be busy."""


class FirstCome:
    """Takes what stands first, whatever it needs."""

    def choose(self, lane: str, heads: Mapping[str, Place], out: Collection[str]) -> tuple[str | None, float | None]:  # noqa: ARG002 - see `Order`
        """Return the need of the first message."""
        return min(heads, key=heads.__getitem__, default=None), None

    def waits(self, lane: str, need: str) -> None:
        """Do nothing: nobody is held back."""


class LaneStorage(BaseStorage):  # type: ignore[misc]  # huey has no types
    """One lane's messages. `dequeue` sleeps until there is one: no polling, and no delay.

    huey's stock SQLite storage polls with a delay that grows to ten seconds.
    """

    blocking = True

    def __init__(self, name: str, *, file: HintFile, order: Order | None = None) -> None:
        super().__init__(name)
        self._file = file
        self._order = order or FirstCome()
        self._changed = threading.Condition()
        self._closed = False
        #: For each need a heap: the lower place first. What `_waiting` does not know (any more) is passed over.
        self._heaps: defaultdict[str, list[tuple[int, int, bytes]]] = defaultdict(list)
        #: Each message that waits: its place in the heap of its need.
        self._waiting: dict[bytes, Place] = {}
        #: What messages need, as far as it is known. Not written down: it depends on the configuration.
        self._needs: dict[bytes, str] = {}
        #: What the workers are busy with, by thread.
        self._out: dict[int, str] = {}
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

    def label(self, data: bytes, need: str) -> None:
        """Note what the message *data* needs, which waits or is about to."""
        with self._changed:
            if self._needs.get(data, "") == need:
                return
            self._needs[data] = need
            if data in self._waiting:
                self._push(need, self._waiting[data], data)
                self._changed.notify()

    def _place(self, hint: Hint, number: int) -> None:
        place = (-hint.priority, number)
        if hint.data in self._waiting:
            worse = max(place, self._waiting[hint.data])
            self._file.remove(worse[1])
            place = min(place, self._waiting[hint.data])
        self._waiting[hint.data] = place
        self._push(self._needs.get(hint.data, ""), place, hint.data)

    def _push(self, need: str, place: Place, data: bytes) -> None:
        if need not in self._heaps:
            self._order.waits(self.name, need)
        heapq.heappush(self._heaps[need], (*place, data))

    def dequeue(self) -> bytes | None:
        """Wait for a message and return it, or None once the storage is closed."""
        me = threading.get_ident()
        with self._changed:
            self._out.pop(me, None)  # a worker that comes back is done with what it took
            while not self._closed:
                need, pause = self._order.choose(self.name, self._heads(), frozenset(self._out.values()))
                if need is not None:
                    self._out[me] = need
                    return self._take(need)
                self._changed.wait(pause)
            return None

    def _heads(self) -> dict[str, Place]:
        """Return where the first message of each need stands, and forget those of which none waits."""
        for need, heap in list(self._heaps.items()):
            while heap and not self._stands(need, heap[0]):
                heapq.heappop(heap)
            if not heap:
                del self._heaps[need]
        return {need: (heap[0][0], heap[0][1]) for need, heap in self._heaps.items()}

    def _stands(self, need: str, entry: tuple[int, int, bytes]) -> bool:
        """Tell whether *entry* is a message's own place, and not one that it had before."""
        rank, number, data = entry
        return self._waiting.get(data) == (rank, number) and self._needs.get(data, "") == need

    def _take(self, need: str) -> bytes:
        _, number, data = heapq.heappop(self._heaps[need])
        del self._waiting[data]
        self._needs.pop(data, None)
        self._file.remove(number)
        reach("hint.taken")
        return data

    def poke(self) -> None:
        """Let the workers that wait ask again what they may take."""
        with self._changed:
            if self._waiting:
                self._changed.notify_all()

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
