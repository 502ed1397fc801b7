"""Facts of the machine that `mlxd doctor` looks at; the one seam between it and the world."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from daemon.config.units import physical_memory
from launchd.contract import Run, run_command

# A folder in the cloud or behind a macOS permission prompt can block for hours.
_PATIENCE_S: Final = 10.0


class Access(StrEnum):
    """What came of looking into a folder."""

    READABLE = "readable"
    MISSING = "missing"
    NOT_A_FOLDER = "not-a-folder"
    #: The mode bits say no.
    DENIED = "denied"
    #: macOS's privacy protection says no (EPERM, not EACCES).
    PROTECTED = "protected"
    #: No answer: a permission prompt is open, or the folder is on a server or in a cloud.
    BLOCKED = "blocked"


def package_version(name: str) -> str | None:
    """Return the installed version of *name* without importing it, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def look_into(folder: Path, *, patience: float = _PATIENCE_S) -> Access:
    """Try to list *folder*; give up after *patience* seconds."""
    answers: list[Access] = []
    # A daemon thread: if the system never answers, the program can still end.
    thread = threading.Thread(target=lambda: answers.append(_listed(folder)), name="look-into", daemon=True)
    thread.start()
    thread.join(patience)
    return answers[0] if answers else Access.BLOCKED


def _listed(folder: Path) -> Access:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except FileNotFoundError:
        return Access.MISSING
    except NotADirectoryError:
        return Access.NOT_A_FOLDER
    except OSError as error:
        return Access.PROTECTED if error.errno == errno.EPERM else Access.DENIED
    return Access.READABLE


def free_bytes(path: Path) -> int:
    """Return the free space in bytes where *path* is, or will be once it exists."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    return shutil.disk_usage(existing).free


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the machine answers; the defaults ask the real one."""

    #: "darwin" or "linux", as in ``sys.platform``.
    system: str = sys.platform
    #: "arm64", "x86_64", ...
    processor: str = platform.machine()
    python: tuple[int, ...] = tuple(sys.version_info[:3])
    #: macOS's own version, e.g. "15.1"; empty elsewhere.
    macos: str = platform.mac_ver()[0]
    version: Callable[[str], str | None] = package_version
    memory: Callable[[], int] = physical_memory
    free: Callable[[Path], int] = free_bytes
    look: Callable[[Path], Access] = look_into
    uid: Callable[[], int] = os.getuid
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Run = run_command
