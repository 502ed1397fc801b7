"""What becomes of a watched input when its job has ended: left, moved to ``done/``, deleted, or explained beside it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from jobs.errors import OutputError
from jobs.failpoints import reach
from jobs.files import Files, explain, open_parent, open_target
from jobs.model import After
from jobs.names import LONGEST, numbered, shortened

#: Ends every sidecar: by it we know our own from a file that happens to have the name.
_SIGNATURE: Final = "(Written by mlxd. It goes away when the file has been done.)"
_SIDECAR: Final = ".error.txt"
_DONE: Final = "done"
#: Bytes of a file's end that are looked at for the signature.
_TAIL: Final = 200
_MOST: Final = 1000


def settle_input(
    path: Path,
    after: After,
    *,
    root: Path | None = None,
    plan: Callable[[Path], object] = lambda _target: None,
    discard: Callable[[Path], object] = lambda path: path.unlink(missing_ok=True),
) -> Path | None:
    """Do with the input *path* what *after* says, and return where it is now: None if it is gone.

    Doing it again, also after a death half-way, does no harm. Below *root* no link is followed. *plan* hears of a new
    place before the file moves there; *discard* is what deleting means.

    Raises:
        OutputError: it could not be moved or deleted; it is still there.

    """
    try:
        if not os.path.lexists(path):
            return None
        if after is After.DELETE:
            discard(path)
            return None
        return _into_done(path, root, plan) if after is After.DONE else path
    except OSError as error:
        raise explain(error, path) from error


def _into_done(path: Path, root: Path | None, plan: Callable[[Path], object]) -> Path:
    folder = open_parent(path, root)
    try:
        done = _open_done(folder, follow=root is None)
        try:
            return _move_into(path, folder, done, plan)
        finally:
            os.close(done)
    finally:
        os.close(folder)


def _open_done(folder: int, *, follow: bool) -> int:
    """Open ``done`` in *folder*, made if need be; without *follow* a link there is refused: it may lead anywhere."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(_DONE, dir_fd=folder)
        Files().sync(folder)
    return os.open(_DONE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)


def _move_into(path: Path, folder: int, done: int, plan: Callable[[Path], object]) -> Path:
    for number in range(1, _MOST):
        name = numbered(path.name, number)
        if _stands_in_the_way(path.name, folder, name, done):
            continue
        plan(path.parent / _DONE / name)
        if _move(path.name, folder, name, done):
            return path.parent / _DONE / name
    done_folder = path.parent / _DONE
    message = f"There are too many files named like {path.name} in {done_folder}. Move some away."
    raise OutputError(message, path=str(path))


def move_file(path: Path, target: Path, *, root: Path | None = None) -> bool:
    """Move without ever replacing a file: the new name first, durably, then the old one goes; False: name taken.

    Below *root* no link is followed, neither on the way to *path* nor to *target*.

    Raises:
        OSError: it cannot be moved there, ``EXDEV`` if the two places are on different disks.

    """
    source = open_parent(path, root)
    try:
        folder = open_target(target, root)
        try:
            return _move(path.name, source, target.name, folder)
        finally:
            os.close(folder)
    finally:
        os.close(source)


def _stands_in_the_way(name: str, source: int, new: str, folder: int) -> bool:
    """Tell whether another file than *name* in *source* is called *new* in *folder*."""
    there = _look(new, folder)
    return there is not None and not os.path.samestat(os.stat(name, dir_fd=source, follow_symlinks=False), there)


def _move(name: str, source: int, new: str, folder: int) -> bool:
    if _stands_in_the_way(name, source, new, folder):
        return False
    if _look(new, folder) is None:
        try:
            os.link(name, new, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError:
            # No hard links on this file system: a rename, with a moment in which somebody might take the name.
            os.rename(name, new, src_dir_fd=source, dst_dir_fd=folder)
    files = Files()
    files.sync(folder)
    reach("input.linked")
    files.remove(name, folder=source)
    reach("input.moved")
    return True


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def write_error_sidecar(path: Path, text: str, *, root: Path | None = None) -> Path:
    """Write *text* beside the input *path* as ``<name>.error.txt``, in place of an earlier one, and return where.

    Below *root* no link is followed.

    Raises:
        OutputError: it could not be written.

    """
    content = f"{text.rstrip()}\n\n{_SIGNATURE}\n".encode(errors="replace")
    with _beside(path, root) as folder:
        for number in range(1, _MOST):
            sidecar = _sidecar(path, number)
            if _look(sidecar.name, folder) is None or _is_ours(sidecar.name, folder):
                _replace(sidecar.name, content, folder)
                reach("input.explained")
                return sidecar
    raise OutputError(f"There are too many files named like {_sidecar(path, 1)}. Move some away.", path=str(path))


def clear_error_sidecar(path: Path, *, root: Path | None = None) -> None:
    """Remove what `write_error_sidecar` wrote for *path*; a stranger's file of that name stays."""
    if not os.path.lexists(path.parent):
        return
    with _beside(path, root) as folder:
        for number in range(1, _MOST):
            name = _sidecar(path, number).name
            if _look(name, folder) is None:
                return
            if _is_ours(name, folder):
                Files().remove(name, folder=folder)


@contextlib.contextmanager
def _beside(path: Path, root: Path | None) -> Iterator[int]:
    """Hold the folder of *path* open; what fails in it is an `OutputError`."""
    try:
        folder = open_parent(path, root)
        try:
            yield folder
        finally:
            os.close(folder)
    except OSError as error:
        raise explain(error, _sidecar(path, 1)) from error


def _sidecar(path: Path, number: int) -> Path:
    ending = _SIDECAR if number == 1 else f" ({number}){_SIDECAR}"
    name = path.name
    if len(os.fsencode(name)) + len(ending) > LONGEST:
        name = shortened(name.encode(errors="replace").decode(), LONGEST - len(ending))
    return path.parent / f"{name}{ending}"


def _is_ours(name: str, folder: int) -> bool:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOENT):  # a link, a socket, or gone
            return False
        raise
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return False
        stream.seek(max(status.st_size - _TAIL, 0))
        return stream.read().rstrip().endswith(_SIGNATURE.encode())


def _replace(name: str, content: bytes, folder: int) -> None:
    """Write whole or not at all."""
    files = Files()
    # The same name each time, so that the next attempt replaces what a death has left.
    temporary = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.mlxd-tmp"
    try:
        file = files.create(temporary, folder=folder)
        try:
            files.write(file, content)
            files.publish(file, folder=folder)
            files.sync(file)
        finally:
            os.close(file)
        files.replace(temporary, name, folder=folder)
        files.sync(folder)
    except BaseException:
        files.remove(temporary, folder=folder)
        raise
