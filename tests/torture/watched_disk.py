"""The hand that changes a watched folder, and its memory: which content lay where, from when until when."""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Change(NamedTuple):
    """What a kernel would tell of one change; *kind* is created, modified, moved or deleted."""

    kind: str
    path: str
    #: Where a moved one went.
    target: str = ""
    folder: bool = False


@dataclass
class Rest:
    """A content that lay unchanged at a place, by the clock: seconds."""

    path: str
    digest: str
    #: Bytes.
    size: int
    #: Whether it is for mlxd to take: not one of the names and kinds that are left alone.
    counts: bool
    #: The change that put it there began and ended; the change that ended it, the same. For ever: infinity.
    began: float
    settled: float
    until: float = math.inf
    gone: float = math.inf

    @property
    def surely(self) -> float:
        """Return for how many seconds it certainly lay there."""
        return self.until - self.settled

    @property
    def at_most(self) -> float:
        """Return for how many seconds it may have lain there."""
        return self.gone - self.began


class WatchedDisk:
    """Changes what is in *root*. Times are *clock*'s; *stamp* gives modification times in nanoseconds (default: real).

    Written files get their modification time set where *stamp* is given: under a clock turned by hand two changes are
    seconds apart by that clock and microseconds by the disk's.
    """

    def __init__(
        self,
        root: Path,
        outside: Path,
        *,
        clock: Callable[[], float],
        chance: random.Random,
        stamp: Callable[[], int] | None = None,
    ) -> None:
        self.root = root
        self.outside = outside
        self.chance = chance
        self.rests: list[Rest] = []
        self.changes: list[Change] = []
        #: Inodes whose content is in a cloud.
        self.dataless: set[int] = set()
        #: Files and other things whose content must never be opened while they are in here.
        self.closed: set[str] = set()
        self._clock = clock
        self._stamp = stamp
        self._now: dict[str, Rest] = {}
        self._number = 0

    def fresh(self) -> bytes:
        """Return a content that no other file has."""
        self._number += 1
        return f"{self._number}:".encode() + self.chance.randbytes(self.chance.randrange(1, 9000))

    def name(self, suffix: str = ".txt") -> str:
        """Return a name that no other file has."""
        self._number += 1
        return f"f{self._number}{suffix}"

    # What is done to files. All paths are absolute.

    def write(self, path: Path, data: bytes, *, counts: bool = True) -> None:
        """Write the file in place of what it held."""
        with self._doing(path, counts=counts):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def append(self, path: Path, data: bytes, *, counts: bool = True) -> None:
        """Add *data*."""
        with self._doing(path, counts=counts), path.open("ab") as file:
            file.write(data)

    def overwrite(self, path: Path, at: int, data: bytes) -> None:
        """Write in the middle, as what allocates a file's whole length first does."""
        with self._doing(path), path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def cut(self, path: Path, size: int) -> None:
        """Make it shorter."""
        with self._doing(path):
            os.truncate(path, size)

    def touch(self, path: Path) -> None:
        """Change its times and nothing else."""
        with self._doing(path):
            os.utime(path)

    def date(self, path: Path, seconds: float) -> None:
        """Give it a modification time of its own, as copying programs do."""
        with self._doing(path, dated=True):
            os.utime(path, (seconds, seconds))

    def permit(self, path: Path, mode: int, *, counts: bool) -> None:
        """Change who may read it."""
        with self._doing(path, counts=counts, dated=True):
            path.chmod(mode)

    def delete(self, path: Path) -> None:
        """Remove it."""
        with self._doing(path):
            path.unlink()

    def link(self, path: Path, other: Path) -> None:
        """Give a file a second name."""
        with self._doing(other, dated=True):
            os.link(path, other)

    def make(self, path: Path, how: Callable[[Path], object]) -> None:
        """Make something that is no ordinary file."""
        with self._doing(path, counts=False, dated=True):
            how(path)
        self.closed.add(str(path))

    def move(self, path: Path, target: Path, *, counts: bool = True) -> None:
        """Rename a file or a whole folder, also into *root* or out of it, and over a file that is there."""
        before = self._clock()
        folder = path.is_dir() and not path.is_symlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._told(_moved(self.root, path, target, folder=folder))
        for one in [one for one in self._now if one == str(path) or one.startswith(f"{path}/")]:
            self._end(one, before)
        for file in [target] if not folder else sorted(target.rglob("*")):
            if file.is_file() and not file.is_symlink():
                self._begin(file, before, counts=counts)

    def in_cloud(self, path: Path, data: bytes) -> None:
        """Make a file whose content is in a cloud: looking is fine, opening would download it."""
        hidden = self.outside / self.name()
        hidden.write_bytes(data)
        self.dataless.add(hidden.stat().st_ino)
        self.move(hidden, path, counts=False)
        self.closed.add(str(path))

    def download(self, path: Path) -> None:
        """Bring its content."""
        with self._doing(path):
            self.dataless.discard(path.stat().st_ino)
            self.closed.discard(str(path))

    def told(self) -> list[Change]:
        """Return the changes since this was last asked."""
        told, self.changes = self.changes, []
        return told

    @contextmanager
    def _doing(self, path: Path, *, counts: bool = True, dated: bool = False) -> Iterator[None]:
        before, there = self._clock(), os.path.lexists(path)
        ended = self._end(str(path), before)
        yield
        if self._stamp is not None and not dated and os.path.lexists(path):
            os.utime(path, ns=(self._stamp(), self._stamp()))
        still = os.path.lexists(path)
        self._told(Change("deleted" if not still else "modified" if there else "created", str(path)))
        if ended is not None:
            ended.gone = self._clock()
        if still and path.is_file() and not path.is_symlink():
            self._begin(path, before, counts=counts)

    def _begin(self, path: Path, before: float, *, counts: bool) -> None:
        if not path.is_relative_to(self.root):
            return
        self._end(str(path), before)
        data = _content(path)
        rest = Rest(str(path), hashlib.sha256(data).hexdigest(), len(data), counts, before, self._clock())
        self._now[str(path)] = rest
        self.rests.append(rest)

    def _end(self, path: str, before: float) -> Rest | None:
        if rest := self._now.pop(path, None):
            rest.until, rest.gone = before, self._clock()
        return rest

    def _told(self, change: Change) -> None:
        if change.path.startswith(str(self.root)):
            self.changes.append(change)


def _moved(root: Path, path: Path, target: Path, *, folder: bool) -> Change:
    """Return what is told of a rename inside, into or out of *root*."""
    if not path.is_relative_to(root):
        return Change("created", str(target), folder=folder)
    if not target.is_relative_to(root):
        return Change("deleted", str(path), folder=folder)
    return Change("moved", str(path), str(target), folder=folder)


def _content(path: Path) -> bytes:
    """Read also what was made unreadable: the owner may say so for a moment."""
    try:
        return path.read_bytes()
    except PermissionError:
        mode = path.stat().st_mode
        path.chmod(0o600)
        try:
            return path.read_bytes()
        finally:
            path.chmod(mode)


def wall_stamp(clock: Callable[[], float]) -> Callable[[], int]:
    """Return modification times that go with *clock* and never repeat."""
    began, first, count = time.time_ns() - 10**13, clock(), [0]

    def stamp() -> int:
        count[0] += 1
        return began + round((clock() - first) * 1e9) + count[0]

    return stamp
