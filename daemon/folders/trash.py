"""The trash: where files go that a person may want back. The system's own if it can be used, otherwise ours.

On Linux and the BSDs by the FreeDesktop specification (version 1.0): the home trash for files on its own disk, else
``.Trash/<uid>`` (a sticky folder that the administrator made) or ``.Trash-<uid>`` at the top of the file's disk. On
macOS ``~/.Trash``, or ``.Trashes/<uid>`` of the file's volume. Where neither can be written, a folder in the home's
cache, emptied of what is older than `KEPT_DAYS`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from daemon.folders.carrying import carry, finished
from jobs.errors import OutputError
from jobs.failpoints import reach
from jobs.files import make_folder
from jobs.inputs import move_file
from jobs.names import numbered

#: Days that our own trash keeps what it got.
KEPT_DAYS: Final = 30
_MOST: Final = 1000
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")

#: Hears where the file is about to go.
Plan = Callable[[Path], object]


class _Parcel(NamedTuple):
    path: Path
    plan: Plan
    #: Below it no link is followed on the way to the file.
    root: Path | None


class Trash:
    """Puts files away without ever replacing one. Any thread may call any method."""

    def __init__(
        self,
        own: Path,
        *,
        system: bool = True,
        environ: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """*own* is our folder; *system*: whether the system's trash may be used at all; *clock* tells local time."""
        self._own = own
        self._system = system
        self._environ = environ
        self._platform = platform
        self._clock = clock

    def put(self, path: Path, plan: Plan = lambda _target: None, *, root: Path | None = None) -> Path:
        """Move the file *path* into the trash and return where it is now; below *root* no link is followed to it.

        Raises:
            OutputError: it could be moved nowhere; it is still there.

        """
        for place in self._places(path):
            with contextlib.suppress(OSError):  # no trash on this disk, not ours to write: the next one
                return place(_Parcel(path, plan, root))
        try:
            return self._put_own(_Parcel(path, plan, root))
        except OSError as error:
            raise OutputError(f"{path} cannot be moved to the trash: {error.strerror}.", path=str(path)) from error

    def restore(self, target: Path, path: Path, *, root: Path | None = None) -> bool:
        """Move the file *target*, from the trash or elsewhere, back to *path*; False if that name is taken.

        Below *root* no link is followed.

        Raises:
            OSError: it cannot be moved.

        """
        if root is None:
            make_folder(path.parent)
        if not carry(target, path, root=root):
            return False
        if target.parent.name == "files":
            (target.parent.parent / "info" / f"{target.name}.trashinfo").unlink(missing_ok=True)
        return True

    def expire(self) -> int:
        """Empty our own trash of what is older than `KEPT_DAYS` days; return how many days' folders went."""
        oldest = (self._clock() - timedelta(days=KEPT_DAYS)).strftime("%Y-%m-%d")
        gone = 0
        with contextlib.suppress(OSError):
            for folder in sorted(self._own.iterdir()):
                if _DAY.fullmatch(folder.name) and folder.name < oldest and not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)
                    gone += 1
        return gone

    def _places(self, path: Path) -> Iterator[Callable[[_Parcel], Path]]:
        if not self._system:
            return
        user = Path(self._environ.get("HOME") or Path.home())
        disk = os.lstat(path).st_dev
        if self._platform == "darwin":
            yield from self._mac_places(user, disk, path)
            return
        home = Path(self._environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "Trash"
        if _device(home) == disk:
            yield lambda parcel: self._put_xdg(parcel, home, None)
            return
        top = _top(path)
        shared = top / ".Trash"
        if _is_sticky_folder(shared):
            yield lambda parcel: self._put_xdg(parcel, shared / str(os.getuid()), top)
        yield lambda parcel: self._put_xdg(parcel, top / f".Trash-{os.getuid()}", top)

    def _mac_places(self, user: Path, disk: int, path: Path) -> Iterator[Callable[[_Parcel], Path]]:
        place = user / ".Trash" if _device(user / ".Trash") == disk else _top(path) / ".Trashes" / str(os.getuid())
        if place.is_dir():  # the Finder makes it; one that we made it would not know
            yield lambda parcel: _into(parcel, place)

    def _put_xdg(self, parcel: _Parcel, trash: Path, top: Path | None) -> Path:
        """Write the information first, which reserves the name, then move the file."""
        path, plan, root = parcel
        files, info = trash / "files", trash / "info"
        for folder in (trash, files, info):
            make_folder(folder, mode=0o700)
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "not our trash", str(folder))
        original = os.fspath(path if top is None else path.relative_to(top))
        deleted = self._clock().strftime("%Y-%m-%dT%H:%M:%S")
        text = f"[Trash Info]\nPath={urllib.parse.quote(os.fsencode(original))}\nDeletionDate={deleted}\n"
        for number in range(1, _MOST):
            name = numbered(path.name, number, longest=255 - len(".trashinfo"))
            note = info / f"{name}.trashinfo"
            if finished(path, files / name, root):
                return files / name
            try:
                with note.open("x") as file:
                    file.write(text)
            except FileExistsError:
                continue
            moved = False
            try:
                reach("trash.noted")
                if not os.path.lexists(files / name):
                    plan(files / name)
                    moved = move_file(path, files / name, root=root)
            finally:
                if not moved:
                    note.unlink(missing_ok=True)
            if moved:
                return files / name
        raise FileExistsError(errno.EEXIST, "too many files of this name in the trash", str(files / path.name))

    def _put_own(self, parcel: _Parcel) -> Path:
        folder = self._own / self._clock().strftime("%Y-%m-%d")
        make_folder(folder, mode=0o700)
        return _into(parcel, folder)


def _into(parcel: _Parcel, folder: Path) -> Path:
    path, plan, root = parcel
    for number in range(1, _MOST):
        target = folder / numbered(path.name, number)
        if finished(path, target, root):
            return target
        if not os.path.lexists(target):
            plan(target)
            if carry(path, target, root=root):
                return target
    raise FileExistsError(errno.EEXIST, "too many files of this name in the trash", str(folder / path.name))


def _device(path: Path) -> int | None:
    """Return the disk that *path* lies on, or would: that of the nearest folder there is."""
    for place in (path, *path.parents):
        try:
            return place.stat().st_dev
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _top(path: Path) -> Path:
    """Return the folder that the disk of *path* is mounted on."""
    place = path.parent.resolve()
    while place != place.parent and not os.path.ismount(place):
        place = place.parent
    return place


def _is_sticky_folder(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and bool(mode & stat.S_ISVTX)
