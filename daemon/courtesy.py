"""Whoever waits for an acknowledgement goes before work that has not begun.

Taking in and running share one process, and one thread of Python's runs at a time: while a crowd submits, every job
that begins makes all of it wait. So before a worker begins a job it lets a crowd go first, never for long. Who submits
alone is no crowd, and an interactive job waits for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from jobs.model import Lane

#: Submissions that are written down together (`daemon.api.gathering`) and so are a crowd.
CROWD: Final = 8
#: Seconds after such a batch in which the next one is expected: clients that were answered ask again.
EXPECTED: Final = 0.05
#: Seconds that a worker waits at most before it begins its job all the same.
MOST: Final = 0.25

Execute = Callable[[str, Lane], None]


class Courtesy:
    """Knows whether a crowd is submitting."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._clock = clock
        self._pause = pause
        #: Until when a crowd is expected. A float is read and written at once: no lock is needed.
        self._until = 0.0

    def taking(self, count: int) -> None:
        """Note that *count* submissions are being written down together."""
        if count >= CROWD:
            self._until = self._clock() + EXPECTED

    def first(self, execute: Execute) -> Execute:
        """Return *execute* as what lets a crowd go first."""

        def after_them(job_id: str, lane: Lane) -> None:
            if lane is not Lane.INTERACTIVE:
                self._let_go_first()
            execute(job_id, lane)

        return after_them

    def _let_go_first(self) -> None:
        deadline = self._clock() + MOST
        while (left := min(self._until, deadline) - self._clock()) > 0:
            self._pause(left)
