"""What the stub's log of executions says about each key."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True)
class Line:
    """One line: ``begin``, ``step``, ``end`` or ``load``."""

    what: str
    key: str
    fence: int
    pid: int
    #: Seconds on the monotonic clock, which all processes share.
    at: float


def read(path: Path) -> dict[str, list[Line]]:
    """Return the lines of the log in *path* by key, in order."""
    found: dict[str, list[Line]] = defaultdict(list)
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            what, key, fence, pid, at, *_ = text.split()
            found[unquote(key)].append(Line(what, unquote(key), int(fence), int(pid), float(at)))
    return found


def first(lines: list[Line], what: str, *, after: int = 0) -> float | None:
    """Return when the first line *what* of a fence beyond *after* was written, None if there is none."""
    return next((line.at for line in lines if line.what == what and line.fence > after), None)
