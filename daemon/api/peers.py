"""Who is at the other end of a Unix socket, asked of the kernel."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final

# macOS' <sys/un.h> and <sys/ucred.h>; Python's socket module does not name them.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("=IIhxx16I")
_XUCRED_VERSION: Final = 0
_UCRED: Final = struct.Struct("3i")


def peer_uid(sock: socket.socket, *, platform: str = sys.platform) -> int | None:
    """Return the user id of the process that *sock* is connected to, or None when the kernel does not say.

    None must be treated as a stranger.
    """
    try:
        return _from_macos(sock) if platform == "darwin" else _from_linux(sock)
    except (OSError, struct.error, AttributeError):  # gone already, a short answer, or no such option here
        return None


def is_own(sock: socket.socket) -> bool:
    """Return whether the other end of *sock* runs as the same user as this process."""
    return peer_uid(sock) == os.geteuid()


def _from_linux(sock: socket.socket) -> int:
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def _from_macos(sock: socket.socket) -> int | None:
    version, uid, *_ = _XUCRED.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
    return int(uid) if version == _XUCRED_VERSION else None
