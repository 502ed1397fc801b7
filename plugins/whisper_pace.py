"""How many windows are encoded at once, and how many are decoded together, by what was measured on this machine.

On a GPU more at once is faster for each; on a CPU the encoder gains nothing from company, and the decoder only with a
fast BLAS (mlx 0.32: with OpenBLAS 1.4 to 2 times, with the wheel's reference BLAS nothing). So both begin with one and
are doubled as long as that pays.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

#: Seconds that one group may take to be encoded: so long a cancellation or a more urgent window waits at most, or as
#: long as a single window takes.
_GROUP_S: Final = 0.25
#: What one more doubling must bring to be kept: this much less time for each window, or for each token.
_WORTH: Final = 0.97
#: Measurements kept of each size. The least counts: a first one may have built kernels, another been disturbed.
_KEPT: Final = 5
#: Measurements of a size before a larger one is tried.
_ENOUGH: Final = 3
#: Measurements at least before a size is given up: the first one may have built kernels for seconds.
_FAIR: Final = 2


class Ladder:
    """Sizes that are powers of two, each twice the one before as long as that is worth it."""

    def __init__(self, most: int, *, enough: int = _ENOUGH) -> None:
        self._most = most
        self._enough = enough
        #: Size -> seconds for each.
        self._took: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def took(self, size: int, seconds: float) -> None:
        """Note that *size* at once took so many *seconds*."""
        step = 1 << (size.bit_length() - 1)
        # A size between two steps tells of the lower one, by proportion.
        self._took[step].append(seconds / size)

    def each(self, size: int) -> float | None:
        """Return the seconds for one of *size* at once; None if nothing is known of that for certain."""
        found = self._took.get(1 << (size.bit_length() - 1), ())
        return min(found) if len(found) >= (_FAIR if size > 1 else 1) else None

    def halve(self) -> None:
        """Stay below what was too much."""
        self._most = max(1, self._most // 2)

    def size(self) -> int:
        """Return how many at once are worth it, or worth a try."""
        size = 1
        while size * 2 <= self._most:
            here, twice = self._took.get(size), self._took.get(size * 2)
            if not here or len(here) < self._enough:
                return size
            if twice and len(twice) >= max(self._enough, _FAIR) and min(twice) > min(here) * _WORTH:
                return size
            size *= 2
        return size


class Pace:
    """Measures groups and steps; *most* windows may be in one batch."""

    def __init__(self, most: int, *, on_cpu: bool) -> None:
        # Nothing is lost on a GPU by starting large; there a step's time hardly depends on its rows.
        self._groups = Ladder(most, enough=1)
        self._rows = Ladder(most)
        self._most = most
        self._on_cpu = on_cpu

    @property
    def gathers(self) -> bool:
        """Whether windows that begin together are worth a wait for each other."""
        return not self._on_cpu

    def encoded(self, windows: int, seconds: float) -> None:
        """Note how long a group of *windows* took to be encoded."""
        self._groups.took(windows, seconds)

    def stepped(self, rows: int, seconds: float) -> None:
        """Note how long a step of so many *rows* took."""
        if self._on_cpu:
            self._rows.took(rows, seconds)

    def fewer(self) -> None:
        """Halve what may be at once: memory ran out."""
        self._most = max(1, self._most // 2)
        self._groups.halve()
        self._rows.halve()

    def group(self) -> int:
        """Return how many windows to encode next."""
        size = self._groups.size()
        while size > 1 and (self._groups.each(size) or self._groups.each(size // 2) or 0.0) * size > _GROUP_S:
            size //= 2
        return size

    def places(self) -> int:
        """Return how many windows to decode together."""
        return self._rows.size() if self._on_cpu else self._most
