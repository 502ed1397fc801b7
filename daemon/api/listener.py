"""The socket mlxd listens on: handed over by launchd or systemd, or bound by ourselves.

Nobody but the user may come near it: the folder is 0700 and the user's own, the socket 0600, and each connection's
user id is asked of the kernel on top (`daemon.api.server`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from daemon.api.activation import launchd_sockets, systemd_sockets
from jobs.errors import AlreadyRunning, ConfigError

#: Bytes in a socket's path. macOS allows 103, Linux 107; one limit for both, or what works on one fails on the other.
PATH_LIMIT: Final = 103

_BACKLOG: Final = 512
_PROBE_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


class Origin(StrEnum):
    """Who bound the socket."""

    LAUNCHD = "launchd"
    SYSTEMD = "systemd"
    OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Listening sockets, and who owns them."""

    sockets: Sequence[socket.socket]
    origin: Origin
    path: Path
    #: Device and inode of the socket file, if we made it.
    identity: tuple[int, int] | None = None
    #: The same of whoever made it: what leads to us.
    door: tuple[int, int] | None = None

    @property
    def lost(self) -> bool:
        """Whether the socket's file is gone, or another: then nobody finds us any more."""
        return self.door is not None and _identity(self.path) != self.door

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still the one we made."""
        for sock in self.sockets:
            sock.close()
        if self.identity is not None and _identity(self.path) == self.identity:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def listen(
    path: Path,
    *,
    environ: MutableMapping[str, str] = os.environ,
    supervised: bool = False,
    launchd: Callable[[], list[socket.socket]] = launchd_sockets,
) -> Listener:
    """Return the socket to serve on: 1. launchd's, 2. systemd's, 3. our own at *path*.

    *supervised* says that a service manager started us: a missing hand-over is then worth a warning.

    Raises:
        AlreadyRunning: somebody answers on *path*.
        ConfigError: *path* is too long, or its folder is not safe; the message says what to do.
        ServiceError: the service manager handed over something unusable.

    """
    if sockets := launchd():  # 1.
        return _handed_over(sockets, Origin.LAUNCHD, path)
    if sockets := systemd_sockets(environ):  # 2.
        return _handed_over(sockets, Origin.SYSTEMD, path)
    if supervised:
        _log.info("The service manager handed over no socket; binding our own.", extra={"action": "socket_own"})
    return bind(path)  # 3.


def bind(path: Path) -> Listener:
    """Bind *path* ourselves; the errors are those of `listen`."""
    check_length(path)
    prepare_folder(path.parent)
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))  # the folder's 0700 guards it until the next line
        path.chmod(0o600)
        sock.listen(_BACKLOG)
        sock.settimeout(0)
    except OSError as error:
        sock.close()
        raise ConfigError(f"Cannot listen on {path}: {error.strerror}.", path=str(path)) from error
    made = _identity(path)
    return Listener(sockets=(sock,), origin=Origin.OWN, path=path, identity=made, door=made)


def check_length(path: Path) -> None:
    """Raise `ConfigError` if *path* is too long for a socket."""
    length = len(os.fsencode(path))
    if length > PATH_LIMIT:
        raise ConfigError(
            f"The socket's path {path} has {length} bytes, and a socket's path may have at most {PATH_LIMIT}. "
            "Set MLXD_HOME to a shorter folder.",
            path=str(path),
            limit=PATH_LIMIT,
        )


def prepare_folder(folder: Path) -> None:
    """Make *folder* (0700) if it is missing, and raise `ConfigError` unless it is a folder of ours alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise ConfigError(f"Cannot make the folder {folder}: {error.strerror}.", path=str(folder)) from error
    if stat.S_ISLNK(facts.st_mode):
        raise ConfigError(f"{folder} is a link. mlxd's socket must lie in a real folder; set MLXD_HOME to one.")
    if facts.st_uid != os.geteuid():
        raise ConfigError(f"{folder} belongs to another user. Set MLXD_HOME to a folder of your own.")
    if facts.st_mode & 0o022:
        raise ConfigError(f"Other users may write to {folder}. Look what is in it, then: chmod 700 '{folder}'")
    if facts.st_mode & 0o077:
        folder.chmod(0o700)


def _clear(path: Path) -> None:
    """Take a dead socket out of the way; a live one, or another kind of file, is not ours to touch.

    macOS refuses a connection to a live socket whose backlog is full just as it does to a dead one. That cannot be
    another daemon of this home: its lock is asked for first (`daemon.instance`).
    """
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(_PROBE_SECONDS)
    with contextlib.closing(probe):
        try:
            probe.connect(os.fspath(path))
        except FileNotFoundError:
            if path.is_symlink():  # to nowhere
                _remove_dead(path)  # raises
            return
        except ConnectionRefusedError:
            _remove_dead(path)
            return
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                _remove_dead(path)  # raises: macOS' word for a plain file
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT) and not isinstance(error, TimeoutError):
                raise ConfigError(f"{path} is in the way: {error.strerror}. Move it.", path=str(path)) from error
    raise AlreadyRunning(f"Another mlxd answers on {path}.", path=str(path))


def _remove_dead(path: Path) -> None:
    # Linux refuses the connection to a plain file just as it does to a dead socket.
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"{path} is in the way and is no socket. Move it.", path=str(path))
    path.unlink(missing_ok=True)
    _log.info("Removed the socket of an mlxd that is gone.", extra={"action": "socket_stale"})


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _handed_over(sockets: Sequence[socket.socket], origin: Origin, default: Path) -> Listener:
    path = _name(sockets[0], default)
    return Listener(sockets=sockets, origin=origin, path=path, door=_identity(path))


def _name(sock: socket.socket, default: Path) -> Path:
    name = sock.getsockname()
    return Path(name) if isinstance(name, str) and name else default
