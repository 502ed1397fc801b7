"""Time that this machine did not have: what the host of a virtual machine kept from its processors.

While the host lets others run, everything here stands still. That explains a time and excuses none: rows judge whole
times, and tell this beside them. Linux counts it as "steal" (proc_stat(5)); elsewhere, as on a Mac, nobody does.
"""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

#: Two instants by `time.monotonic`, e.g. a death and the next claim of a job.
Span = tuple[float, float]

#: Seconds between two looks: a time is right to about that.
_EVERY_S = 0.1
_STAT = Path("/proc/stat")
#: Place of "steal" in the line of all processors together, its name counted.
_STEAL = 8


def stolen_s(stat: Path = _STAT) -> float:
    """Return the seconds withheld since the boot, as a mean of the processors; 0 where it is not counted."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    words = lines[0].split()
    processors = sum(line.startswith("cpu") for line in lines) - 1
    if len(words) <= _STEAL or processors < 1:
        return 0.0
    return int(words[_STEAL]) / os.sysconf("SC_CLK_TCK") / processors


class Withheld:
    """A context manager that notes meanwhile how much was withheld when, on a thread of its own."""

    def __init__(self, read: Callable[[], float] = stolen_s, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._at: list[float] = []
        self._seconds: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="withheld", daemon=True)

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Note how much was withheld until now."""
        seconds = self._read()  # first: what is withheld between the two lines counts for later, not for earlier
        self._at.append(self._clock())
        self._seconds.append(seconds)

    def between(self, since: float, until: float) -> float:
        """Return the seconds withheld from *since* to *until* (`time.monotonic`), 0 to the whole of it.

        Looks that lie within count alone: what was withheld at the edges is not taken off.
        """
        first, last = bisect.bisect_left(self._at, since), bisect.bisect_right(self._at, until) - 1
        if last <= first:
            return 0.0
        return min(until - since, self._seconds[last] - self._seconds[first])

    def own(self, spans: Sequence[Span]) -> list[float]:
        """Return the seconds that each of *spans* took of the machine's own time."""
        return [until - since - self.between(since, until) for since, until in spans]

    @property
    def share(self) -> float:
        """Return the share of all the time that was withheld, 0 to 1."""
        since, until = self._at[0], self._at[-1]
        return self.between(since, until) / (until - since) if until > since else 0.0

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.look()


def lengths(spans: Sequence[Span]) -> list[float]:
    """Return how many seconds each of *spans* took."""
    return [until - since for since, until in spans]
