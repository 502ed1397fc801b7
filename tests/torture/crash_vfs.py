"""SQLite on a `Disk`: a VFS that does everything for real and writes down what it did."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any, Final

import apsw

from torture.crash_disk import Disk
from torture.crash_sqlite import Connection

#: SQLite says with this that the drive's cache must be emptied (``PRAGMA fullfsync``).
_FULL: Final = apsw.SQLITE_SYNC_FULL
#: Kinds of files that come and go: SQLite's Unix VFS syncs their folder at the first sync after creating them
#: (``UNIXFILE_DIRSYNC`` in os_unix.c), always plainly, without emptying the drive's cache.
_PASSING: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL

_numbers = itertools.count(1)


class CrashVfs(apsw.VFS):
    """Files under *root* are written down on *disk*, paths relative to *root*."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.name = f"crash-{next(_numbers)}"
        self.root = root
        self.disk = disk
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """Open for real; note a file that this creates. Files without a name, for sorting, are nobody's to keep."""
        return apsw.VFSFile("", name, flags) if name is None else CrashFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's
        """Delete, and sync the folder if SQLite asks for it."""
        super().xDelete(filename, syncdir)
        path = self.relative(filename)
        self.disk.unlink(path)
        if syncdir:
            self.disk.sync(self.disk.parent(path), full=False)

    def relative(self, filename: str) -> str:
        """Return the path as the disk knows it."""
        return Path(filename).relative_to(self.root).as_posix()

    def connect(self, path: Path, **pragmas: str) -> sqlite3.Connection:
        """Open the database *path* as `jobs.database.connect` does; *pragmas* are what breaks a build for a control."""
        connection = apsw.Connection(str(path), vfs=self.name)
        connection.set_busy_timeout(5000)
        return Connection(connection, pragmas)  # type: ignore[return-value]  # as much of one as is needed


class CrashFile(apsw.VFSFile):
    """A real file whose writes, truncations and syncs are written down."""

    def __init__(self, vfs: CrashVfs, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = vfs.disk
        path = vfs.relative(name.filename() if isinstance(name, apsw.URIFilename) else name)
        found = vfs.disk.find(path)
        self._inode = vfs.disk.make(path) if found is None else found
        self._folder = vfs.disk.parent(path)
        self._new = bool(flags[0] & _PASSING and flags[0] & apsw.SQLITE_OPEN_CREATE)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write."""
        super().xWrite(data, offset)
        self._disk.write(self._inode, offset, data)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut off."""
        super().xTruncate(newsize)
        self._disk.truncate(self._inode, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync; nothing is really synced, which only costs time here."""
        self._disk.sync(self._inode, full=flags & 0xF == _FULL)
        if self._new:
            self._disk.sync(self._folder, full=False)
            self._new = False
