"""The folder of kept beginnings: one cap for all models and all runners, the least recently used out first.

Each model has a folder named by its key, each beginning a file with a random name: neither says anything of a prompt.
The time of a file's last change is the time of its last use. Whoever writes takes the lock of the whole folder, makes
room, and leaves a file of the full length under a name of its own before it lets go; so what is being written counts,
and the cap holds at any moment. Such a file is locked by its writer: one that nobody holds was left by a process that
died, and is swept away by the next writer. Imports neither MLX nor numpy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

#: Environment variables of a runner: the folder, and the most bytes in it.
FOLDER: Final = "MLXD_PREFIX_FOLDER"
BYTES: Final = "MLXD_PREFIX_BYTES"
#: Most files in all: looking through them must stay quick.
MOST_FILES: Final = 1024
#: Bytes of the disk that are left to others.
LEFT_FREE: Final = 1 << 30
WHOLE: Final = ".safetensors"
PART: Final = ".part"
_LOCK: Final = "lock"


class Held(NamedTuple):
    """What the folder holds."""

    bytes: int
    files: int


class _File(NamedTuple):
    used: float
    size: int
    path: Path


class PrefixFolder:
    """At most *limit* bytes of files below *root*."""

    def __init__(self, root: Path, limit: int, *, left_free: int = LEFT_FREE) -> None:
        self.root = root
        self.limit = limit
        self._left_free = left_free

    def held(self) -> Held:
        """Return how much there is; nothing if there is no such folder."""
        files = self._files()
        return Held(sum(one.size for one in files), len(files))

    def names(self, key: str) -> list[Path]:
        """Return the whole files of the model *key*, the last used first."""
        files = [one for one in self._files(self.root / key) if one.path.suffix == WHOLE]
        return [one.path for one in sorted(files, reverse=True)]

    def changed(self, key: str) -> int:
        """Return a number that is another one after files of *key* came or went; 0 while there are none."""
        try:
            return (self.root / key).stat().st_mtime_ns
        except OSError:
            return 0

    def reserve(self, key: str, size: int) -> tuple[BinaryIO, Path] | None:
        """Make room for *size* bytes and return an open file that long, and its path; None if there is no room.

        Closing it gives it up to the next sweep, unless `publish` was called before.

        Raises:
            OSError: the folder cannot be used: a full disk, or it is not ours alone.

        """
        if size > self.limit:
            return None
        with self._locked():
            if not self._make_room(size):
                return None
            folder = self.root / key
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / (secrets.token_hex(16) + PART)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, size)
            return os.fdopen(descriptor, "r+b"), path

    def publish(self, part: Path) -> Path:
        """Give a written file its name, under which others find it; return that.

        Raises:
            OSError: it is gone.

        """
        whole = part.with_suffix(WHOLE)
        part.rename(whole)
        return whole

    def used(self, path: Path) -> bool:
        """Note that *path* was used; False if it is gone."""
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def drop(self, path: Path) -> None:
        """Delete *path*, if it is still there."""
        with contextlib.suppress(OSError):
            path.unlink()

    def trim(self) -> None:
        """Delete what is too much: the limit may have been lowered."""
        if self.root.is_dir():
            with self._locked():
                self._make_room(0)

    def clear(self) -> Held:
        """Delete everything, also what is being written; return how much that was."""
        held = self.held()
        for file in self._files():
            self.drop(file.path)
        for folder in self._folders():
            with contextlib.suppress(OSError):
                folder.rmdir()
        return held

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self.root.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise PermissionError(f"{self.root} is not a folder of one's own.")
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_room(self, size: int) -> bool:
        """Delete until *size* bytes fit; False if they do not even then. The lock is held."""
        files = []
        for one in self._files():
            if one.path.suffix == PART and _abandoned(one.path):
                self.drop(one.path)
            else:
                files.append(one)
        total, count = sum(one.size for one in files), len(files)
        facts = os.statvfs(self.root)
        lacking = size + self._left_free - facts.f_bavail * facts.f_frsize
        for one in sorted(one for one in files if one.path.suffix == WHOLE):
            if total + size <= self.limit and count < MOST_FILES and lacking <= 0:
                break
            self.drop(one.path)
            total, count, lacking = total - one.size, count - 1, lacking - one.size
        self._sweep_folders()
        return total + size <= self.limit and count < MOST_FILES and lacking <= 0

    def _sweep_folders(self) -> None:
        for folder in self._folders():
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self.root) as found:
                return [Path(one.path) for one in found if one.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def _files(self, *folders: Path) -> list[_File]:
        """Return the files in *folders*, or in all, that are ours by their names."""
        files = []
        for folder in folders or self._folders():
            with contextlib.suppress(OSError), os.scandir(folder) as found:
                for one in found:
                    if one.name.endswith((WHOLE, PART)):
                        with contextlib.suppress(OSError):
                            facts = one.stat(follow_symlinks=False)
                            files.append(_File(facts.st_mtime, facts.st_size, Path(one.path)))
        return files


def _abandoned(path: Path) -> bool:
    """Whether nobody writes into *path*."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
