"""Whether there is room for results: asked before work that would be in vain, and before a blocked job goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import Final

from jobs.files import explain

#: Bytes; a disk with less counts as full. Names, folders and the ledger want some as well.
LEAST: Final = 1 << 20

_CHUNK: Final = 1 << 16


def require(directory: Path) -> None:
    """Raise `StorageUnavailable` if nothing can be written into *directory* (there or not yet); one system call.

    What cannot be told is left to the writing: a quota, permissions, a file system that gives no answer.
    """
    with contextlib.suppress(OSError):
        facts = os.statvfs(_existing(directory))
        if facts.f_flag & os.ST_RDONLY:
            raise explain(OSError(errno.EROFS, os.strerror(errno.EROFS)), directory, folder=directory)
        if _free(facts) < LEAST:
            raise explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), directory, folder=directory)


class Room:
    """What there is room for at one moment. Whoever takes a part of it leaves less to the others on the same disk."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def take(self, folder: Path, needs: int) -> bool:
        """Tell whether *needs* bytes can be written into *folder* (there or not yet), and take them if so."""
        try:
            place = _existing(folder)
            disk = place.stat().st_dev
            if disk not in self._left:
                self._left[disk] = _free(os.statvfs(place))
            if self._left[disk] < needs + LEAST:
                return False
            _try(place, needs)
        except OSError:
            return False
        self._left[disk] -= needs
        return True


def _free(facts: os.statvfs_result) -> int:
    """Return the bytes that ordinary users may write; none if no further file can be made."""
    if facts.f_files and not facts.f_favail:
        return 0
    return facts.f_bavail * facts.f_frsize


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _try(place: Path, size: int) -> None:
    """Write *size* bytes, synced, and remove them: only that finds quotas, permissions and broken disks."""
    path = place / f".room-{secrets.token_hex(4)}.mlxd-tmp"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for begin in range(0, size, _CHUNK):
            os.write(file, bytes(min(_CHUNK, size - begin)))
        os.fsync(file)
    finally:
        os.close(file)
        path.unlink()
