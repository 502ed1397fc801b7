"""Being an ordinary user to the disk, also when run as root: without this no file would be unreadable."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_VERSION_3 = 0x20080522
#: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read everything. linux/capability.h
_OVERRIDES = (1 << 1) | (1 << 2)


def obey_permissions() -> str:
    """Give up root's right to read everything, for this process and its children; return how, for the record."""
    if os.geteuid() != 0:
        return "run as an ordinary user"
    if sys.platform != "linux":
        raise RuntimeError("this campaign must not be run as root: to root no file is unreadable")
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    low = [value & ~_OVERRIDES for value in struct.unpack("=6I", sets.raw)[:3]]
    kept = [*low, *struct.unpack("=6I", sets.raw)[3:]]
    if libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *kept))) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    return "run as root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH"
