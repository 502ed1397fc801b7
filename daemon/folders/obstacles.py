"""Why a watched folder cannot be used, told apart: missing, not mounted, forbidden, or not answering at all.

macOS keeps some folders from background programs until a person allows it: `open` then fails with EPERM (ordinary
permissions say EACCES), or blocks for as long as the question stands on the screen (see `daemon.folders.access`).
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

from daemon.views import FolderState

#: Folders below the person's home that macOS guards, and the pane of the settings that opens them.
_GUARDED: Final = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")
_SETTINGS: Final = "System Settings > Privacy & Security > Files and Folders, or Full Disk Access"
#: How a Mac opens that pane from a terminal.
_OPEN: Final = 'open "x-apple.systempreferences:com.apple.preference.security?Privacy_FilesAndFolders"'
_MOUNT_POINTS: Final = (Path("/Volumes"), Path("/media"), Path("/run/media"))


class Obstacle(NamedTuple):
    """What stands in the way, and a sentence that says what to do."""

    state: FolderState
    sentence: str


def hanging(path: Path, platform: str = sys.platform) -> Obstacle:
    """Return what it means that the first look at *path* has not returned within its deadline."""
    if platform == "darwin" and is_guarded(path):
        return Obstacle(
            FolderState.NEEDS_PERMISSION,
            f"macOS waits for your permission: answer its question, or allow mlxd in {_SETTINGS} ({_OPEN})",
        )
    return Obstacle(
        FolderState.UNREACHABLE, "the folder does not answer: grant access if the system asks, or check the server"
    )


def denied(path: Path, error: OSError, platform: str = sys.platform, *, what: str = "reached") -> Obstacle:
    """Return what it means that *path* could not be reached (or *what* else) because of *error*."""
    if error.errno == errno.EPERM and platform == "darwin":
        return Obstacle(FolderState.NEEDS_PERMISSION, f"macOS does not let mlxd in: allow it in {_SETTINGS} ({_OPEN})")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Obstacle(
            FolderState.NEEDS_PERMISSION,
            f"the folder cannot be {what}: {error.strerror}. Let your user read it: chmod u+rx '{path}'",
        )
    if error.errno in (errno.ENOTCONN, errno.EHOSTDOWN, errno.ESTALE, errno.ETIMEDOUT, errno.EIO):
        return Obstacle(
            FolderState.UNREACHABLE, f"the folder cannot be {what}: {error.strerror}; it is tried again by itself"
        )
    return Obstacle(FolderState.UNREACHABLE, f"the folder cannot be {what}: {error.strerror or error}")


def missing(path: Path) -> Obstacle:
    """Return what it means that *path* is not there."""
    if (volume := unmounted(path)) is not None:
        return Obstacle(FolderState.MISSING, f"the volume {volume} is not there; the folder is watched when it returns")
    return Obstacle(FolderState.MISSING, "the folder does not exist; it is watched as soon as it appears")


def unmounted(path: Path) -> str | None:
    """Return the name of the volume that *path* lies on and that is not mounted; None if there is no such thing."""
    for point in _MOUNT_POINTS:
        if path.is_relative_to(point):
            # /media/<user>/<volume>, /Volumes/<volume>
            depth = len(point.parts) + (1 if point.name == "Volumes" else 2)
            volume = Path(*path.parts[:depth])
            if len(path.parts) >= depth and not os.path.lexists(volume):
                return volume.name
    return None


def is_guarded(path: Path, home: Path | None = None) -> bool:
    """Tell whether macOS asks before a background program may look into *path*."""
    home = home or Path.home()
    return any(path.is_relative_to(home / folder) for folder in _GUARDED) or path.is_relative_to("/Volumes")
