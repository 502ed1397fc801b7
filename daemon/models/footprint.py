"""What this process occupies, as the system that may kill it counts.

macOS ends processes by their physical footprint (``proc_pid_rusage``), which holds Metal's buffers that the resident
set does not show; elsewhere the resident set is what counts.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

# struct rusage_info_v0 of <sys/resource.h>: a 16-byte uuid, then 64-bit counters; ri_phys_footprint is the eighth.
_RUSAGE_INFO_V0: Final = 0
_BUFFER_BYTES: Final = 512
_FOOTPRINT_AT: Final = 16 + 7 * 8


def footprint() -> int:
    """Return the bytes this process occupies."""
    if sys.platform == "darwin":
        found = physical_footprint(ctypes.CDLL(None).proc_pid_rusage, os.getpid())
        if found is not None:
            return found
    import psutil  # a start-up of the daemon has no need of it

    return int(psutil.Process().memory_info().rss)


def physical_footprint(proc_pid_rusage: Callable[..., Any], pid: int) -> int | None:
    """Ask *proc_pid_rusage* for the physical footprint of *pid*, bytes; None when it refuses."""
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    if proc_pid_rusage(pid, _RUSAGE_INFO_V0, buffer) != 0:
        return None
    (found,) = struct.unpack_from("=Q", buffer, _FOOTPRINT_AT)
    return int(found)
