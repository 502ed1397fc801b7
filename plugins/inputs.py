"""Opens input files: regular ones only, with an error that says what to do about it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

from pydantic import AfterValidator

from jobs.errors import InvalidInput
from jobs.files import open_below
from jobs.model import Placement

_WHY: Final = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
    errno.EACCES: "may not be read by you; on a Mac, folders like Desktop also need a permission in System Settings",
    errno.EPERM: "may not be read by you; on a Mac, folders like Desktop also need a permission in System Settings",
    errno.ELOOP: "is a link; in a watched folder mlxd takes only the files themselves",
    errno.EISDIR: "is a folder, not a file",
}


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot contain a NUL character")
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, got {str(path)!r}")
    return path


#: A path parameter. The daemon has a working folder of its own, so a relative one would mean something else there.
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def opening(placement: Placement) -> dict[str, Any]:
    """Return how the input of a job with this *placement* is opened, as arguments for what follows.

    A watched folder is where strangers' files land: there, links are not followed.
    """
    return {"follow": placement.input is None, "below": placement.root}


def check_file(path: Path, *, follow: bool = True, below: Path | None = None) -> int:
    """Return the size in bytes of *path*, a readable, regular, non-empty file. With *follow* false a link is refused.

    So are then, below the folder *below*, links to the folders on the way.

    Raises:
        InvalidInput: it is anything else.

    """
    with _opened(path, follow=follow, below=below) as (_, size):
        return size


def read_bytes(path: Path, *, limit: int, follow: bool = True, below: Path | None = None) -> bytes:
    """Return the content of *path*, at most *limit* bytes. Raises as `check_file` does."""
    with _opened(path, follow=follow, below=below) as (file, size):
        if size > limit:
            raise InvalidInput(f"{path} has {size:,} bytes, more than the {limit:,} allowed here.", file=str(path))
        with os.fdopen(os.dup(file), "rb") as stream:
            return stream.read(limit)


def read_text(path: Path, *, limit: int, follow: bool = True, below: Path | None = None) -> str:
    """Return the text of *path*, UTF-8 with or without a byte order mark, at most *limit* bytes.

    Raises:
        InvalidInput: it cannot be read, is too large, empty or not UTF-8 text; names the offending byte's offset.

    """
    data = read_bytes(path, limit=limit, follow=follow, below=below)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hint = "it looks like UTF-16; " if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        wrong = (
            f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}; {hint}save it as UTF-8."
        )
        raise InvalidInput(wrong, file=str(path), offset=error.start) from error
    if "\0" in text:
        offset = data.index(0)
        raise InvalidInput(f"{path} is not a text file: NUL byte at offset {offset}.", file=str(path), offset=offset)
    if not text.strip():
        raise InvalidInput(f"{path} has no text in it.", file=str(path))
    return text


@contextmanager
def _opened(path: Path, *, follow: bool, below: Path | None) -> Iterator[tuple[int, int]]:
    # O_NONBLOCK: opening a pipe that nobody writes to must not hang a worker.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(path, flags) if follow else open_below(path, flags, root=below)
    except OSError as error:
        _refuse(path, error)
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise InvalidInput(f"{path} is a folder, not a file.", file=str(path))
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(f"{path} is not a regular file.", file=str(path))
        if found.st_size == 0:
            raise InvalidInput(f"{path} is empty.", file=str(path))
        yield file, found.st_size
    finally:
        os.close(file)


def _refuse(path: Path, error: OSError) -> NoReturn:
    why = _WHY.get(error.errno or 0, f"cannot be opened: {error.strerror}")
    raise InvalidInput(f"{path} {why}.", file=str(path)) from error
