"""Sockets that a service manager bound for us: launchd's and systemd's."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from jobs.errors import ServiceError

#: The key under ``Sockets`` in our property list.
LAUNCHD_NAME: Final = "http"

_SYSTEMD_FIRST: Final = 3
_LIB: Final = "/usr/lib/libSystem.B.dylib"


def launchd_sockets(
    name: str = LAUNCHD_NAME, *, platform: str = sys.platform, library: Callable[[str], Any] = ctypes.CDLL
) -> list[socket.socket]:
    """Return the sockets that launchd holds for us; none when it did not start us or its plist names none.

    May be called once in a process.

    Raises:
        ServiceError: launchd refused, or gave them away already.

    """
    if platform != "darwin":
        return []
    system = library(_LIB)
    system.launch_activate_socket.restype = ctypes.c_int
    system.launch_activate_socket.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
        ctypes.POINTER(ctypes.c_size_t),
    ]
    system.free.argtypes, system.free.restype = [ctypes.c_void_p], None
    fds, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t(0)
    status = system.launch_activate_socket(name.encode(), ctypes.byref(fds), ctypes.byref(count))
    if status in (errno.ENOENT, errno.ESRCH):  # no such socket in the plist; not started by launchd
        return []
    if status != 0:
        raise ServiceError(f"launchd did not hand over the socket {name!r}: {os.strerror(status)}.", errno=status)
    try:
        return [_adopt(fds[index]) for index in range(count.value)]
    finally:
        system.free(fds)


def systemd_sockets(environ: MutableMapping[str, str], *, first: int = _SYSTEMD_FIRST) -> list[socket.socket]:
    """Return the sockets that systemd passed us, and take its variables out of *environ* (children must not see them).

    Raises:
        ServiceError: what it passed is not a listening Unix socket.

    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_adopt(fd) for fd in range(first, first + int(count))]


def _adopt(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ServiceError(f"The service manager passed no usable socket (descriptor {fd}): {error}.") from error
    if sock.family != socket.AF_UNIX or not _listens(sock):
        sock.detach()  # not ours to close
        raise ServiceError(f"The service manager passed descriptor {fd}, which is not a listening Unix socket.")
    return sock


def _listens(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
