"""Moves files from one place to another, also from disk to disk, and ends a move that a death cut short."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

from jobs.files import Files, open_parent, open_target
from jobs.inputs import move_file


def carry(path: Path, target: Path, *, root: Path | None = None) -> bool:
    """Move as `jobs.inputs.move_file` does, also from one disk to another."""
    try:
        return move_file(path, target, root=root)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    if os.path.lexists(target):
        return False
    temporary = target.with_name(f".{os.urandom(8).hex()}.mlxd-tmp")
    folder, there = open_parent(path, root), open_target(target, root)
    try:
        _copy(path.name, folder, temporary.name, there)
        if not move_file(temporary, target, root=root):
            return False
        os.unlink(path.name, dir_fd=folder)
    finally:
        Files().remove(temporary.name, folder=there)
        os.close(there)
        os.close(folder)
    return True


def _copy(name: str, folder: int, temporary: str, there: int) -> None:
    """Copy the file *name* of *folder* to *there* with its times and mode, durably; a link as a link."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=folder), temporary, dir_fd=there)
        return
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(file, "rb") as source, os.fdopen(Files().create(temporary, folder=there), "wb") as copied:
        shutil.copyfileobj(source, copied)
        copied.flush()
        os.fchmod(copied.fileno(), stat.S_IMODE(status.st_mode))
        os.utime(copied.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        Files().sync(copied.fileno())


def finished(path: Path, target: Path, root: Path | None) -> bool:
    """Tell whether *path* has arrived as *target*, and take the old name away: mlxd died in between.

    Below *root* no link is followed to it.
    """
    if not os.path.lexists(target):
        return False
    folder = open_parent(path, root)
    try:
        if not _arrived(path.name, folder, target):
            return False
        Files().remove(path.name, folder=folder)
        return True
    finally:
        os.close(folder)


def _arrived(name: str, folder: int, target: Path) -> bool:
    """Tell whether *target* is the file *name* of *folder*, or on another disk a whole copy of it."""
    here, there = os.stat(name, dir_fd=folder, follow_symlinks=False), os.lstat(target)
    if os.path.samestat(here, there):
        return True
    alike = (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    plain = stat.S_ISREG(here.st_mode) and stat.S_ISREG(there.st_mode)
    return here.st_dev != there.st_dev and plain and alike and _digest(name, folder) == _digest(os.fspath(target))


def _digest(name: str, folder: int | None = None) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(file, "rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()
