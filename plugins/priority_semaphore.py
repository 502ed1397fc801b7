"""Lets so many threads at once do something, the most urgent first.

Python's threads that all decode at once only get in each other's way (sixteen recordings: the first window was there
after 0.74 s, where one recording alone takes 0.015 s), and each is done when all are.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PrioritySemaphore:
    """A semaphore with *places*; who waits is let in by urgency (the least number first), then in order of coming."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, urgency: int) -> Iterator[None]:
        """Hold a place for the block, once there is one."""
        with self._changed:
            ticket = (urgency, next(self._numbers))
            heapq.heappush(self._line, ticket)
            self._changed.wait_for(lambda: self._free > 0 and self._line[0] == ticket)
            heapq.heappop(self._line)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
