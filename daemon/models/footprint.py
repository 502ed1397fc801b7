"""What processes occupy, as the system that may kill them counts.

macOS ends processes by their physical footprint (``proc_pid_rusage``), which holds Metal's buffers that the resident
set does not show. On Linux it is the proportional set size (``smaps_rollup``): pages that several of our processes
share are counted once. Reading it walks the page tables (measured: 60 ms at 2 GB), the resident set costs 12
microseconds and is never smaller, so it is asked for only when the resident sets together are too much.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

# struct rusage_info_v0 of <sys/resource.h>: a 16-byte uuid, then 64-bit counters; ri_phys_footprint is the eighth.
_RUSAGE_INFO_V0: Final = 0
_BUFFER_BYTES: Final = 512
_FOOTPRINT_AT: Final = 16 + 7 * 8

_PROC: Final = Path("/proc")
_PSS: Final = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)

Read = Callable[[int], int | None]


def footprint() -> int:
    """Return the bytes this process occupies; costs microseconds."""
    return quick(os.getpid()) or 0


def tree_footprint(
    pids: Collection[int], *, beyond: int, quick_one: Read | None = None, exact_one: Read | None = None
) -> int:
    """Return the bytes that the processes *pids* occupy together; exactly only where that is more than *beyond*.

    A process that is gone occupies nothing.
    """
    rough = sum((quick_one or quick)(pid) or 0 for pid in pids)
    if rough <= beyond:
        return rough
    return sum(found for pid in pids if (found := (exact_one or exact)(pid)) is not None)


def quick(pid: int, system: str = sys.platform) -> int | None:
    """Return what *pid* occupies, bytes, or on Linux its resident set, which is no less; None when it is gone."""
    if system == "darwin":
        return physical_footprint(_proc_pid_rusage(), pid)
    if system == "linux":
        return resident_set(pid)
    import psutil  # a start-up of the daemon has no need of it

    return int(psutil.Process(pid).memory_info().rss)


def exact(pid: int, system: str = sys.platform) -> int | None:
    """Return what *pid* occupies, bytes; None when it is gone. May take 30 ms for each gigabyte."""
    if system == "linux":
        found = proportional_set(pid)
        return resident_set(pid) if found is None else found
    return quick(pid)


def resident_set(pid: int, proc: Path = _PROC) -> int | None:
    """Return the resident set of *pid* as Linux tells it, bytes; None when it is gone."""
    try:
        return int((proc / str(pid) / "statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def proportional_set(pid: int, proc: Path = _PROC) -> int | None:
    """Return the proportional set size of *pid*, bytes; None when it is gone, a stranger's, or the kernel has none."""
    try:
        found = _PSS.search((proc / str(pid) / "smaps_rollup").read_bytes())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def physical_footprint(proc_pid_rusage: Callable[..., Any], pid: int) -> int | None:
    """Ask *proc_pid_rusage* for the physical footprint of *pid*, bytes; None when it refuses."""
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    if proc_pid_rusage(pid, _RUSAGE_INFO_V0, buffer) != 0:
        return None
    (found,) = struct.unpack_from("=Q", buffer, _FOOTPRINT_AT)
    return int(found)


@functools.cache
def _proc_pid_rusage() -> Callable[..., Any]:
    found: Callable[..., Any] = ctypes.CDLL(None).proc_pid_rusage
    return found
