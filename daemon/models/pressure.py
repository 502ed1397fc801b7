"""How short of memory the machine is, as its kernel says; and whether the kernel has just killed for lack of it.

macOS tells a level (``kern.memorystatus_vm_pressure_level``: 1 normal, 2 warning, 4 critical), which is what its own
memory-pressure events carry. Linux tells how much could be had without swapping (``MemAvailable``).
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon.models.watermarks import Level

_LEVEL: Final = b"kern.memorystatus_vm_pressure_level"
_MAC_LEVELS: Final = {1: Level.NORMAL, 2: Level.WARN, 4: Level.CRITICAL}
#: Shares of a Linux machine's memory that are available at most: below them things get slow, then killed.
_SCARCE: Final = 0.05
_GONE: Final = 0.02

_MEMINFO: Final = Path("/proc/meminfo")
_VMSTAT: Final = Path("/proc/vmstat")
_AVAILABLE: Final = re.compile(rb"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_TOTAL: Final = re.compile(rb"^MemTotal:\s+(\d+) kB", re.MULTILINE)
_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


def kernel_level(system: str = sys.platform) -> Level:
    """Return what the kernel says; `Level.NORMAL` where it says nothing."""
    match system:
        case "darwin":
            return mac_level(_sysctlbyname())
        case "linux":
            return linux_level(_read(_MEMINFO))
    return Level.NORMAL


def mac_level(sysctlbyname: Callable[..., int]) -> Level:
    """Ask *sysctlbyname* for the level."""
    found, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    if sysctlbyname(_LEVEL, ctypes.byref(found), ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return Level.NORMAL
    return _MAC_LEVELS.get(found.value, Level.NORMAL)


def linux_level(meminfo: bytes) -> Level:
    """Return how scarce memory is by the text of ``/proc/meminfo``."""
    available, total = _AVAILABLE.search(meminfo), _TOTAL.search(meminfo)
    if available is None or total is None:
        return Level.NORMAL
    share = int(available[1]) / max(1, int(total[1]))
    return Level.CRITICAL if share < _GONE else Level.WARN if share < _SCARCE else Level.NORMAL


def kills() -> int | None:
    """Return how many processes Linux has killed for lack of memory since it started; None where it does not tell."""
    found = _KILLS.search(_read(_VMSTAT)) if sys.platform == "linux" else None
    return int(found[1]) if found else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@functools.cache
def _sysctlbyname() -> Callable[..., Any]:
    found: Callable[..., Any] = ctypes.CDLL(None).sysctlbyname
    return found
