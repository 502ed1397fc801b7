"""What becomes of a watched input when its job has ended: left, moved to ``done/``, deleted, or explained beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobs.errors import OutputError
from jobs.failpoints import reach
from jobs.files import Files, explain, make_folder
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
    plan: Callable[[Path], object] = lambda _target: None,
    discard: Callable[[Path], object] = lambda path: path.unlink(missing_ok=True),
) -> Path | None:
    """Do with the input *path* what *after* says, and return where it is now: None if it is gone.

    Doing it again, also after a death half-way, does no harm. *plan* hears of a new place before the file moves there;
    *discard* is what deleting means.

    Raises:
        OutputError: it could not be moved or deleted; it is still there.

    """
    try:
        if not os.path.lexists(path):
            return None
        if after is After.DELETE:
            discard(path)
            return None
        return _into_done(path, plan) if after is After.DONE else path
    except OSError as error:
        raise explain(error, path) from error


def _into_done(path: Path, plan: Callable[[Path], object]) -> Path:
    done = path.parent / _DONE
    make_folder(done)
    for number in range(1, _MOST):
        target = done / numbered(path.name, number)
        if os.path.lexists(target) and not os.path.samestat(path.lstat(), target.lstat()):
            continue
        plan(target)
        if move_file(path, target):
            return target
    raise OutputError(f"There are too many files named like {path.name} in {done}. Move some away.", path=str(path))


def move_file(path: Path, target: Path) -> bool:
    """Move without ever replacing a file: the new name first, durably, then the old one goes; False: name taken.

    Raises:
        OSError: it cannot be moved there, ``EXDEV`` if the two places are on different disks.

    """
    if os.path.lexists(target) and not os.path.samestat(path.lstat(), target.lstat()):
        return False
    files = Files()
    folder = files.open_folder(target.parent, [])
    try:
        if not os.path.lexists(target):
            try:
                os.link(path, target, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError:
                # No hard links on this file system: a rename, with a moment in which somebody might take the name.
                path.rename(target)
        files.sync(folder)
    finally:
        os.close(folder)
    reach("input.linked")
    path.unlink(missing_ok=True)
    reach("input.moved")
    return True


def write_error_sidecar(path: Path, text: str) -> Path:
    """Write *text* beside the input *path* as ``<name>.error.txt``, in place of an earlier one, and return where.

    Raises:
        OutputError: it could not be written.

    """
    content = f"{text.rstrip()}\n\n{_SIGNATURE}\n".encode(errors="replace")
    for number in range(1, _MOST):
        sidecar = _sidecar(path, number)
        try:
            if not os.path.lexists(sidecar) or _is_ours(sidecar):
                _replace(sidecar, content)
                reach("input.explained")
                return sidecar
        except OSError as error:
            raise explain(error, sidecar) from error
    raise OutputError(f"There are too many files named like {_sidecar(path, 1)}. Move some away.", path=str(path))


def clear_error_sidecar(path: Path) -> None:
    """Remove what `write_error_sidecar` wrote for *path*; a stranger's file of that name stays."""
    for number in range(1, _MOST):
        sidecar = _sidecar(path, number)
        if not os.path.lexists(sidecar):
            return
        if _is_ours(sidecar):
            try:
                sidecar.unlink(missing_ok=True)
            except OSError as error:
                raise explain(error, sidecar) from error


def _sidecar(path: Path, number: int) -> Path:
    ending = _SIDECAR if number == 1 else f" ({number}){_SIDECAR}"
    name = path.name
    if len(os.fsencode(name)) + len(ending) > LONGEST:
        name = shortened(name.encode(errors="replace").decode(), LONGEST - len(ending))
    return path.parent / f"{name}{ending}"


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL, 0))
        return file.read().rstrip().endswith(_SIGNATURE.encode())


def _replace(path: Path, content: bytes) -> None:
    """Write whole or not at all."""
    files = Files()
    folder = files.open_folder(path.parent, [])
    # The same name each time, so that the next attempt replaces what a death has left.
    temporary = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.mlxd-tmp"
    try:
        file = files.create(temporary, folder=folder)
        try:
            files.write(file, content)
            files.publish(file, folder=folder)
            files.sync(file)
        finally:
            os.close(file)
        files.replace(temporary, path.name, folder=folder)
        files.sync(folder)
    except BaseException:
        files.remove(temporary, folder=folder)
        raise
    finally:
        os.close(folder)
