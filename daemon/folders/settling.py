"""When has a file held still for long enough? Facts and times in, decisions out; nothing is read here."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from daemon.folders.identity import Facts

#: An empty file is most often a copy that has just begun: it waits this many times longer.
EMPTY_FACTOR: Final = 10
#: Seconds by which the same moment may come out differently when it is worked out again.
_CLOCKS_DIFFER: Final = 0.5


class _Still(NamedTuple):
    facts: Facts
    #: When it will have held still for long enough.
    deadline: float


class Settling:
    """Files that were seen and not taken yet.

    A file is due when nothing that `track` was told of it changed for *hold* seconds; any change (grown, shortened,
    replaced by another file, touched) starts the wait again. Its own times are never compared with a clock, so that a
    file from the future, a wrong clock and the end of daylight saving do no harm.
    """

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._files: dict[str, _Still] = {}
        # (deadline, path), with entries that no longer hold: cheaper than searching the heap at every change.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._files)

    def track(self, path: str, facts: Facts, now: float) -> bool:
        """Note that *path* looks like this *now*; return whether it is as it was and has held still long enough."""
        known = self._files.get(path)
        if known is not None and known.facts == facts:
            return now >= known.deadline
        hold = self._hold if facts.size else self._hold * EMPTY_FACTOR
        self._set(path, _Still(facts, now + hold))
        return hold <= 0

    def postpone(self, path: str, until: float) -> None:
        """Let *path* wait until then, if that is later; the same time again, roughly, changes nothing."""
        known = self._files.get(path)
        if known and until > known.deadline + _CLOCKS_DIFFER:
            self._set(path, known._replace(deadline=until))

    def forget(self, path: str) -> None:
        """Drop *path*: it was taken, or is gone."""
        self._files.pop(path, None)

    def due(self, now: float, limit: int) -> list[str]:
        """Return up to *limit* files whose time has come, the longest waiting first; look again before taking one."""
        found: list[tuple[float, str]] = []
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            entry = heapq.heappop(self._heap)
            if self._holds(entry) and entry not in found[-1:]:
                found.append(entry)
        # They stay until they are forgotten: whoever asks may fail to take them.
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [path for _, path in found]

    def next_deadline(self) -> float | None:
        """Return when the next file will be due, None if there is none."""
        while self._heap and not self._holds(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _set(self, path: str, still: _Still) -> None:
        self._files[path] = still
        heapq.heappush(self._heap, (still.deadline, path))

    def _holds(self, entry: tuple[float, str]) -> bool:
        known = self._files.get(entry[1])
        return known is not None and known.deadline == entry[0]
