"""A disk whose power is cut: it holds everything that was synced, and any part of what was not.

`Disk` writes down what programs did to files and folders, in order. `Replay` walks along and, at any moment, makes
images of what the disk may hold if the power goes now. Nothing unsynced is sure, and nothing of it is sure to be
missing: of data any 512-byte sector in any of its versions, torn or garbled ones too; a file's size with or without
its data; names with or without their files, each entry by itself, a rename as a whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

#: Bytes that a drive writes whole or not at all, mostly.
SECTOR = 512
ROOT = 0

#: A disk's content: path below the root -> bytes, or None for a folder.
Image = dict[str, bytes | None]


class Op(StrEnum):
    """What happens to a file or folder."""

    WRITE = "write"
    TRUNCATE = "truncate"
    #: Names in a folder change, all of *changes* or none.
    NAMES = "names"
    #: Returns when the file's data, or the folder's names, have left the computer.
    SYNC = "sync"
    #: As `SYNC`, and whatever had left the computer is out of the drive's cache too (macOS: ``F_FULLFSYNC``).
    FULL_SYNC = "full sync"
    #: Says that *inode* is a folder.
    FOLDER = "folder"
    #: Not on the disk at all: somebody was told something.
    MARK = "mark"


class Event(NamedTuple):
    """One operation on the file or folder *inode*."""

    op: Op
    inode: int = -1
    offset: int = 0
    data: bytes = b""
    #: (name, inode or None for gone).
    changes: tuple[tuple[str, int | None], ...] = ()
    #: What a mark says.
    note: Any = None


class Disk:
    """What was done, and the names as running programs see them. Paths are relative to the root, with ``/``."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[int, dict[str, int]] = {ROOT: {}}
        self._last = ROOT

    def mark(self, note: Any) -> None:
        """Note a moment."""
        self.events.append(Event(Op.MARK, note=note))

    def find(self, path: str) -> int | None:
        """Return the inode that *path* names now."""
        inode: int | None = ROOT
        for part in PurePosixPath(path).parts:
            inode = self._names.get(inode, {}).get(part) if inode is not None else None
        return inode

    def make(self, path: str, *, folder: bool = False) -> int:
        """Create an empty file or folder, in place of whatever had the name."""
        self._last += 1
        if folder:
            self._names[self._last] = {}
            self.events.append(Event(Op.FOLDER, self._last))
        self._rename((path, self._last))
        return self._last

    def link(self, source: str, target: str) -> None:
        """Give *source* a second name."""
        self._rename((target, self.find(source)))

    def unlink(self, path: str) -> None:
        """Take a name away."""
        self._rename((path, None))

    def replace(self, source: str, target: str) -> None:
        """Rename *source*."""
        self._rename((target, self.find(source)), (source, None))

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Write into a file."""
        self.events.append(Event(Op.WRITE, inode, offset, bytes(data)))

    def truncate(self, inode: int, size: int) -> None:
        """Make a file *size* bytes long."""
        self.events.append(Event(Op.TRUNCATE, inode, size))

    def sync(self, inode: int, *, full: bool) -> None:
        """Sync a file or a folder."""
        self.events.append(Event(Op.FULL_SYNC if full else Op.SYNC, inode))

    def load(self, image: Image) -> None:
        """Begin with *image*, all of it synced."""
        for path, content in sorted(image.items()):
            inode = self.make(path, folder=content is None)
            self.write(inode, 0, content or b"")
            self.sync(inode, full=True)
            self.sync(self.parent(path), full=True)

    def parent(self, path: str) -> int:
        """Return the folder that *path* is in."""
        folder = self.find(str(PurePosixPath(path).parent))
        if folder is None:
            raise FileNotFoundError(path)
        return folder

    def _rename(self, *changes: tuple[str, int | None]) -> None:
        # Between two folders a rename is still one step of the journal; each folder's part is noted where it belongs.
        by_folder: dict[int, list[tuple[str, int | None]]] = {}
        for path, inode in changes:
            folder, name = self.parent(path), PurePosixPath(path).name
            by_folder.setdefault(folder, []).append((name, inode))
            if inode is None:
                self._names[folder].pop(name, None)
            else:
                self._names[folder][name] = inode
        self.events += [Event(Op.NAMES, folder, changes=tuple(part)) for folder, part in by_folder.items()]


@dataclass
class Store:
    """One file or folder: what is safe, and what has been done to it since."""

    data: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    folder: bool = False
    #: Events with their place in the log.
    pending: list[tuple[int, Event]] = field(default_factory=list)
    #: How many of *pending* lie in the drive's cache.
    handed: int = 0

    def settle(self, count: int) -> None:
        """Make the first *count* pending events safe."""
        for _, event in self.pending[:count]:
            apply(self, event)
        del self.pending[:count]
        self.handed = max(self.handed - count, 0)


def apply(store: Store, event: Event) -> None:
    """Do *event* to *store* whole."""
    if event.op is Op.WRITE:
        put(store.data, event.offset, event.data)
    elif event.op is Op.TRUNCATE:
        resize(store.data, event.offset)
    for name, inode in event.changes:
        if inode is None:
            store.names.pop(name, None)
        else:
            store.names[name] = inode


def put(data: bytearray, offset: int, piece: bytes, hole: bytes = b"\0") -> None:
    """Write *piece*, over a hole if it begins behind the end."""
    resize(data, max(len(data), offset), hole)
    data[offset : offset + len(piece)] = piece


def resize(data: bytearray, size: int, hole: bytes = b"\0") -> None:
    """Cut off, or fill up with repeated *hole*."""
    missing = size - len(data)
    if missing > 0:
        data += (hole * (missing // len(hole) + 1))[:missing]
    else:
        del data[size:]


class Replay:
    """The disk after the first `at` events. *cached*: a plain sync leaves things in the drive's cache (macOS)."""

    def __init__(self, events: Sequence[Event], *, cached: bool = False) -> None:
        self._events = events
        self._cached = cached
        self.at = 0
        self.stores: dict[int, Store] = {ROOT: Store(folder=True)}

    def forward(self, at: int) -> None:
        """Go on to the moment before the event number *at*."""
        for number in range(self.at, at):
            self._take(number, self._events[number])
        self.at = max(at, self.at)

    def _take(self, number: int, event: Event) -> None:
        if event.op is Op.MARK:
            return
        store = self.stores.setdefault(event.inode, Store())
        if event.op is Op.FOLDER:
            store.folder = True
        elif event.op is Op.SYNC and self._cached:
            store.handed = len(store.pending)
        elif event.op in {Op.SYNC, Op.FULL_SYNC}:
            store.settle(len(store.pending))
            if self._cached:
                for other in self.stores.values():
                    other.settle(other.handed)
        else:
            store.pending.append((number, event))

    @property
    def unsafe(self) -> int:
        """Return how many operations are not on the disk for sure."""
        return sum(len(store.pending) for store in self.stores.values())


def materialise(image: Image, folder: Path, *, mode: int = 0o600) -> None:
    """Write *image* into *folder*."""
    for path, content in sorted(image.items()):
        place = folder / path
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
            place.chmod(mode)


def of_folder(folder: Path, *, leave_out: Iterable[str] = ()) -> Image:
    """Return what is in *folder* now; files whose names end with one of *leave_out* are not looked at."""
    found = [path for path in folder.rglob("*") if not path.name.endswith(tuple(leave_out) or "\0")]
    return {path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in found}


def sectors(offset: int, data: bytes) -> Iterable[tuple[int, bytes]]:
    """Return what *data* at *offset* writes into each sector."""
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + SECTOR - (offset + begin) % SECTOR)
        yield offset + begin, data[begin:end]
        begin = end


def rng(*parts: object) -> random.Random:
    """Return randomness that *parts* decide."""
    return random.Random("-".join(map(str, parts)))
