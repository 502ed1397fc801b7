"""The end of a log file, and what is added to it, through its rotation."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

#: Seconds between two looks at a file that is followed: a person is watching, so this may poll.
_PAUSE: Final = 0.25


def tail(path: Path, number: int, *, about: str = "") -> list[str]:
    """Return the last *number* lines that mention *about* (empty: any); none if there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(deque((line.rstrip("\n") for line in file if about in line), maxlen=number))
    except FileNotFoundError:
        return []


def follow(path: Path, *, about: str = "", pause: Callable[[], None] = lambda: time.sleep(_PAUSE)) -> Iterator[str]:
    """Yield the lines that are written to *path* from now on, for ever."""
    file = _open(path, at_end=True)
    try:
        while True:
            for line in _whole_lines(file):
                if about in line:
                    yield line.rstrip("\n")
            pause()
            if file is None or _replaced(path, file):
                fresh = _open(path, at_end=False)
                if fresh is not None:
                    # What was written to the old file before it was put aside.
                    yield from (line.rstrip("\n") for line in _whole_lines(file) if about in line)
                    _close(file)
                    file = fresh
    finally:
        _close(file)


def _whole_lines(file: IO[str] | None) -> Iterator[str]:
    """Yield what is complete; half a line waits until the rest of it is there."""
    while file is not None:
        before = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(before)
            return
        yield line


def _open(path: Path, *, at_end: bool) -> IO[str] | None:
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    if at_end:
        file.seek(0, os.SEEK_END)
    return file


def _replaced(path: Path, file: IO[str]) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _close(file: IO[str] | None) -> None:
    if file is not None:
        file.close()
