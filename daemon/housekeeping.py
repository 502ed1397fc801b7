"""Once a day, while nothing runs: what was kept long enough is forgotten."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from daemon.config.model import QueueConfig
from jobs.errors import LedgerUnavailable
from jobs.pruning import AT_ONCE, Pruning

log = logging.getLogger(__name__)

#: Seconds between two clearings, and from the start to the first.
EVERY: Final = 86_400.0
AFTER_START: Final = 60.0
#: Transactions in one look; the next look goes on.
_STEPS: Final = 20


class Housekeeping:
    """Clears up when it is time. `look` is called now and then, by whoever is awake anyway, and never waits long."""

    def __init__(
        self,
        pruning: Pruning,
        *,
        settings: Callable[[], QueueConfig],
        idle: Callable[[], bool],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pruning = pruning
        self._settings = settings
        self._idle = idle
        self._clock = clock
        self._monotonic = monotonic
        self._due = monotonic() + AFTER_START
        self._forgotten = 0

    def look(self) -> None:
        """Forget some old jobs if it is time, nothing runs, and there are any."""
        if self._monotonic() < self._due or not self._idle():
            return
        settings = self._settings()
        try:
            before = self._clock() - timedelta(seconds=settings.keep)
        except OverflowError:  # for ever
            before = datetime.min.replace(tzinfo=UTC)
        for _ in range(_STEPS):
            try:
                forgotten = self._pruning.forget(before=before, keep=settings.keep_jobs)
            except LedgerUnavailable as error:
                log.warning("Old jobs were not forgotten: %s", error.message, extra={"action": "prune_failed"})
                forgotten = 0
            self._forgotten += forgotten
            if forgotten < AT_ONCE:
                self._done()
                return
            if not self._idle():
                return

    def _done(self) -> None:
        if self._forgotten:
            log.info("Forgot %d old jobs.", self._forgotten, extra={"action": "pruned", "jobs": self._forgotten})
        self._forgotten = 0
        self._due = self._monotonic() + EVERY
