"""The few file operations that outputs are made of: relative to a held folder, links not followed, synced to the disk.

One class, so that a test can let the disk be full, or the process die, at any step.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobs.errors import OutputError, StorageUnavailable
from jobs.failpoints import reach

#: macOS: `fsync` reaches the drive, only this reaches the disk. Not there on other systems.
_FULLFSYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)

#: How a file system says that it knows no hard links (exFAT, some network shares).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_ADVICE: Final = {
    errno.ENOSPC: "the disk is full. Free some space and try again",
    errno.EDQUOT: "your quota on this disk is used up. Free some space and try again",
    errno.EROFS: "the disk is read-only. Choose another output folder",
    errno.EACCES: "mlxd may not write there. Change the folder's permissions or choose another output folder",
    errno.EPERM: "the system does not let mlxd write there. Allow it in the privacy settings or choose another folder",
    errno.ENAMETOOLONG: "the path is too long. Choose a shorter output folder",
    errno.ENOTDIR: "a part of the path is a file or a link, not a folder. Move it away or choose another folder",
    errno.ELOOP: "a part of the path is a link. Move it away or choose another folder",
    errno.EIO: "the disk reported an error. Check the disk",
}


#: What somebody can mend while the job waits. All else is wrong with the request, or with the disk.
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def explain(error: OSError, path: Path, *, folder: Path | None = None, needs: int = 0) -> OutputError:
    """Return *error* as something a person can act on: *needs* bytes had no place in *folder* (default: *path*'s)."""
    advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}")
    code = errno.errorcode.get(error.errno or 0, "")
    kind = StorageUnavailable if error.errno in _PASSING else OutputError
    facts = {"path": str(path), "errno": code, "folder": str(folder or path.parent), "needs": needs}
    return kind(f"{path} could not be written: {advice}.", **facts)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make the folder *path* (with *mode*) and those above it that are missing, each synced into the one it is in.

    Without that a power cut may take a new folder with every synced file in it.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode if folder is missing[0] else 0o777, exist_ok=True)
        # One that we may not read we may not sync either.
        with contextlib.suppress(PermissionError):
            above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                Files().sync(above)
            finally:
                os.close(above)


def open_parent(path: Path, root: Path | None = None) -> int:
    """Open the folder that *path* lies in and return its descriptor.

    Below *root*, which may be a link itself, no link is followed; if *path* does not lie there, or there is no *root*,
    links are followed as usual.
    """
    if root is None or root not in path.parents:
        return os.open(path.parent, _FOLDER)
    folder = os.open(root, _FOLDER)
    for part in path.relative_to(root).parts[:-1]:
        try:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def open_target(path: Path, root: Path | None = None) -> int:
    """Open the folder that *path* is to lie in, made if missing; below *root* no link is followed."""
    if root is None or root not in path.parents:
        return Files().open_folder(path.parent, [])
    return Files().open_folder(root, path.relative_to(root).parts[:-1])


def open_below(path: Path, flags: int, *, root: Path | None) -> int:
    """Open the file *path* and return its descriptor; links are followed as `open_parent` says, *path* is none."""
    folder = open_parent(path, root)
    try:
        return os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


class Files:
    """The real ones. *folder* is an open folder's descriptor, names are single components."""

    def open_folder(self, root: Path, parts: Sequence[str]) -> int:
        """Open *root* (made if missing, may be a link) and in it the folders *parts* (made if missing, never links)."""
        make_folder(root)
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            try:
                inner = self._open_inner(part, folder)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _open_inner(self, name: str, folder: int) -> int:
        try:
            os.mkdir(name, dir_fd=folder)
            self.sync(folder)
        except FileExistsError:
            pass
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def create(self, name: str, *, folder: int) -> int:
        """Create the file *name* for writing, for us only, in place of one that a dead attempt left."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            os.unlink(name, dir_fd=folder)
            return os.open(name, flags, 0o600, dir_fd=folder)

    def write(self, file: int, data: bytes) -> None:
        """Write all of *data*."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def sync(self, file: int) -> None:
        """Return when the file's or folder's content is on the disk, as far as the disk tells the truth."""
        if _FULLFSYNC is not None:
            try:
                fcntl.fcntl(file, _FULLFSYNC)
            except OSError:
                pass  # network and foreign file systems do not know it; fsync is what they have
            else:
                return
        os.fsync(file)

    def publish(self, file: int, *, folder: int) -> None:
        """Let those read the file who may read its folder; a private folder keeps it private."""
        os.fchmod(file, 0o600 | (os.fstat(folder).st_mode & 0o044))

    def digest(self, name: str, *, folder: int) -> str | None:
        """Return the SHA-256 of the file *name*, "" if it is no regular file, None if nothing has this name."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError:
            return ""  # a link, or a file that is not ours to read: in any case not one that we wrote
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            return ""
        with os.fdopen(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def taken(self, name: str, *, folder: int) -> bool:
        """Return whether anything has this name."""
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def link(self, source: str, target: str, *, folder: int) -> bool:
        """Give the file *source* the name *target* instead; return False if the name is taken."""
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._reserve_and_replace(source, target, folder)
        reach("output.linked")
        self.remove(source, folder=folder)
        return True

    def _reserve_and_replace(self, source: str, target: str, folder: int) -> bool:
        """Do without hard links: an empty file of ours reserves the name for the moment until the rename."""
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        except FileExistsError:
            return False
        self.replace(source, target, folder=folder)
        return True

    def replace(self, source: str, target: str, *, folder: int) -> None:
        """Give the file *source* the name *target* instead, over the file that has it."""
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, name: str, *, folder: int) -> None:
        """Remove the file *name* if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
