"""The file operations of this process, written down on a `Disk`: whatever calls `os` below a folder is seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from jobs import files
from torture.crash_disk import Disk

#: What `fcntl` is asked for where only that empties the drive's cache; any number that nothing else uses.
_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", 0x7F51)
_real = {name: getattr(os, name) for name in ("open", "write", "mkdir", "link", "replace", "rename", "unlink", "rmdir")}
_fcntl = fcntl.fcntl


class FileRecorder:
    """What `recording` puts in the place of `os`'s functions; they do what they are asked for, but sync nothing.

    *deaf* names what a broken build does not sync: "files", "folders".
    """

    def __init__(self, root: Path, disk: Disk, *, deaf: str = "") -> None:
        self._root = os.fspath(root)
        self._disk = disk
        self._deaf = deaf
        #: Open files and folders: descriptor -> path below the root.
        self._open: dict[int, str] = {}

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open, and note a file that this creates or empties."""
        known = self._path(path, dir_fd)
        there = known is not None and self._disk.find(known) is not None
        file: int = _real["open"](path, flags, mode, dir_fd=dir_fd)
        self._open.pop(file, None)
        if known is not None:
            self._open[file] = known
            if not there and flags & os.O_CREAT:
                self._disk.make(known)
            elif flags & os.O_TRUNC:
                self._disk.truncate(self._inode(file), 0)
        return file

    def write(self, file: int, data: Any) -> int:
        """Write, and note what was taken."""
        if file not in self._open:
            return int(_real["write"](file, data))
        written = int(_real["write"](file, data))
        self._disk.write(self._inode(file), os.lseek(file, 0, os.SEEK_CUR) - written, bytes(data)[:written])
        return written

    def fsync(self, file: int) -> None:
        """Note the sync."""
        self._sync(file, full=False)

    def fcntl(self, file: int, command: int, argument: Any = 0) -> Any:
        """Note the sync that empties the drive's cache; do everything else."""
        if command != _FULLFSYNC:
            return _fcntl(file, command, argument)
        self._sync(file, full=True)
        return 0

    def _sync(self, file: int, *, full: bool) -> None:
        kind = "folders" if stat.S_ISDIR(os.fstat(file).st_mode) else "files"
        if file in self._open and kind != self._deaf:
            self._disk.sync(self._inode(file), full=full)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """Make a folder."""
        _real["mkdir"](path, mode, dir_fd=dir_fd)
        if (known := self._path(path, dir_fd)) is not None:
            self._disk.make(known, folder=True)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        """Take a name away."""
        _real["unlink"](path, dir_fd=dir_fd)
        if (known := self._path(path, dir_fd)) is not None:
            self._disk.unlink(known)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        """Take a folder away."""
        _real["rmdir"](path, dir_fd=dir_fd)
        if (known := self._path(path, dir_fd)) is not None:
            self._disk.unlink(known)

    def link(self, source: Any, target: Any, **how: Any) -> None:
        """Give a second name."""
        _real["link"](source, target, **how)
        self._both(self._disk.link, source, target, how)

    def replace(self, source: Any, target: Any, **how: Any) -> None:
        """Rename."""
        _real["replace"](source, target, **how)
        self._both(self._disk.replace, source, target, how)

    def _both(self, note: Callable[[str, str], None], source: Any, target: Any, how: dict[str, Any]) -> None:
        one, other = self._path(source, how.get("src_dir_fd")), self._path(target, how.get("dst_dir_fd"))
        if one is not None and other is not None:
            note(one, other)
        elif one != other:
            raise AssertionError(f"{source} -> {target} crosses the border of what is recorded")

    def _inode(self, file: int) -> int:
        inode = self._disk.find(self._open[file])
        if inode is None:
            raise AssertionError(f"{self._open[file]} was renamed while it was open")
        return inode

    def _path(self, path: Any, folder: int | None) -> str | None:
        """Return where *path* is below the root; None: elsewhere, and nobody's business."""
        name = os.fsdecode(path)
        if folder is not None:
            base = self._open.get(folder)
            return None if base is None else os.path.normpath(f"{base}/{name}")
        if name != self._root and not name.startswith(f"{self._root}/"):
            return None
        return os.path.relpath(name, self._root)


@contextlib.contextmanager
def recording(root: Path, disk: Disk, *, cached: bool = False, deaf: str = "") -> Iterator[None]:
    """Write down on *disk* what this process does below *root*, as on a Mac if the drive is *cached*."""
    recorder = FileRecorder(root, disk, deaf=deaf)
    functions = ("open", "write", "fsync", "mkdir", "unlink", "rmdir", "link", "replace")
    with contextlib.ExitStack() as stack:
        for name in functions:
            stack.enter_context(mock.patch.object(os, name, getattr(recorder, name)))
        stack.enter_context(mock.patch.object(os, "remove", recorder.unlink))
        stack.enter_context(mock.patch.object(os, "rename", recorder.replace))
        stack.enter_context(mock.patch.object(fcntl, "fcntl", recorder.fcntl))
        stack.enter_context(mock.patch.object(files, "_FULLFSYNC", _FULLFSYNC if cached else None))
        yield
