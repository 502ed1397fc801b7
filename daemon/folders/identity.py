"""Which file is this: what a stat says of it, and what its content is."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from jobs.errors import MlxdError
from jobs.files import open_below

#: ``SF_DATALESS``: the name is here, the content still in a cloud. Opening it would download it and block until then.
_DATALESS: Final = 0x40000000
_CHUNK: Final = 1 << 20


class FileChanged(MlxdError):
    """The file is not the one that was looked at: wait until it holds still again."""

    slug = "file-changed"


class HashingStopped(MlxdError):
    """The daemon is stopping; the file is taken after the next start."""

    slug = "hashing-stopped"


class Facts(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    #: Bytes.
    size: int
    #: Last change of the content, nanoseconds; may lie in the future, is only ever compared for equality.
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Facts:
        """Return the facts in *status*."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def is_dataless(status: os.stat_result) -> bool:
    """Tell whether the content is still in a cloud (macOS; elsewhere stat has no flags)."""
    return bool(getattr(status, "st_flags", 0) & _DATALESS)


def is_regular(status: os.stat_result) -> bool:
    """Tell whether *status* is of an ordinary file: no link, pipe, socket or device."""
    return stat.S_ISREG(status.st_mode)


def open_still(path: Path, facts: Facts, root: Path | None = None) -> int:
    """Open the ordinary file *path* for reading and return its descriptor if it is still what *facts* say.

    Never follows a link, not even for a folder below *root*, and never waits for the writer of a pipe.

    Raises:
        FileChanged: another file, or the same with another content, is there now.
        OSError: it cannot be opened.

    """
    descriptor = open_below(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, root=root)
    try:
        require_unchanged(descriptor, facts)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_unchanged(descriptor: int, facts: Facts) -> None:
    """Raise `FileChanged` unless the open file is an ordinary one and as *facts* say."""
    status = os.fstat(descriptor)
    if not is_regular(status) or Facts.of(status) != facts:
        raise FileChanged


def content_digest(
    path: Path, facts: Facts, *, root: Path | None = None, stopping: Callable[[], bool] = lambda: False
) -> str:
    """Return the hexadecimal SHA-256 of the file *path*, which is as *facts* say before and after reading.

    Raises:
        FileChanged: it is not, or was written to meanwhile.
        HashingStopped: *stopping* said so.
        OSError: it cannot be read.

    """
    descriptor = open_still(path, facts, root)
    try:
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, _CHUNK):
            digest.update(chunk)
            if stopping():
                raise HashingStopped
        require_unchanged(descriptor, facts)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def read_head(path: Path, facts: Facts, most: int, root: Path | None = None) -> bytes:
    """Return the first *most* bytes of the file *path*. Raises as `open_still` does."""
    descriptor = open_still(path, facts, root)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def place_key(path: Path, facts: Facts) -> str:
    """Return the key of this file in this state at this place: cheap, needs no reading.

    Without the device's number: a volume may have another one each time it is mounted.
    """
    name = os.fsencode(path) + b"\0" + ",".join(map(str, facts[1:])).encode()
    return "place:" + hashlib.sha256(name).hexdigest()[:40]


def name_key(path: Path) -> str:
    """Return the key of a place, whatever lies there: composed, as names are compared."""
    return hashlib.sha256(unicodedata.normalize("NFC", str(path)).encode(errors="surrogateescape")).hexdigest()[:16]


def content_key(digest: str, fingerprint: str) -> str:
    """Return the key of a content done in one way, wherever it lies and whatever it is called."""
    return f"content:{digest}:{fingerprint}"


def digest_of(key: str) -> str | None:
    """Return the SHA-256 in a key that `content_key` made, None if it is another one."""
    kind, _, rest = key.partition(":")
    return rest.partition(":")[0] if kind == "content" else None
