"""Picks the reader of the platform, and keeps what was read for a few seconds: a thousand short jobs ask once."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from daemon.conditions import linux, macos
from daemon.conditions.commands import ask
from daemon.conditions.policy import Fact, Facts

Read = Callable[[frozenset[Fact]], Facts]

#: Seconds for which a reading counts.
FRESH_S: Final = 5.0


def platform_reader(system: str = sys.platform) -> Read:
    """Return what reads the facts on *system*; elsewhere nothing is known, so nothing stands in the way."""
    match system:
        case "darwin":
            return lambda wanted: macos.read(wanted, ask)
        case "linux":
            return lambda wanted: linux.read(wanted, ask)
    return lambda _wanted: Facts()


class Readings:
    """Readings that are at most *fresh* seconds old. Any thread may ask; one at a time reads."""

    def __init__(self, read: Read, *, monotonic: Callable[[], float] = time.monotonic, fresh: float = FRESH_S) -> None:
        self._read = read
        self._monotonic = monotonic
        self._fresh = fresh
        self._lock = threading.Lock()
        self._known: dict[frozenset[Fact], tuple[float, Facts]] = {}

    def __call__(self, wanted: frozenset[Fact], *, anew: bool = False) -> Facts:
        """Return the *wanted* facts; *anew* reads them whatever is known."""
        if not wanted:
            return Facts()
        with self._lock:
            at, facts = self._known.get(wanted, (float("-inf"), Facts()))
            if anew or self._monotonic() - at >= self._fresh:
                facts = self._read(wanted)
                self._known[wanted] = self._monotonic(), facts
            return facts
