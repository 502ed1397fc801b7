"""What launchd makes of a property list: pure rules, and one start. Sources: launchd.plist(5), launchd 842's core.c."""

from __future__ import annotations

import contextlib
import os
import plistlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: All that a job's environment has when its property list says nothing (and what XPC adds).
MINIMUM = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "XPC_FLAGS": "0x0"}
#: launchd's own defaults, seconds.
THROTTLE_S = 10.0
EXIT_TIMEOUT_S = 20.0
#: Bytes of a socket's path that fit beside the final NUL into macOS' ``sun_path``; launchd cuts off the rest.
SUN_PATH = 103
#: What the folder, the mask and the limit are set by before the program takes over the process, its pid included.
_BEGIN = (
    'cd "$1" 2>/dev/null || cd /; umask "$2"; [ "$3" = - ] || ulimit -S -n "$3"; '
    'LISTEN_PID=$$; export LISTEN_PID; shift 3; exec "$@"'
)


def restarts(keep_alive: Any, status: int) -> bool:
    """Tell whether a job that ended with *status* (negative: by a signal) is started again without being asked for.

    ``SuccessfulExit`` false: after everything but an exit with 0. A signal is no exit, whichever it was.
    """
    if isinstance(keep_alive, Mapping):
        wanted = keep_alive.get("SuccessfulExit")
        return wanted is not None and wanted == (status == 0)
    return bool(keep_alive)


def respawn_delay(lived_s: float, throttle_s: float) -> float:
    """Return how long a job that *lived_s* seconds has to wait for its next start."""
    return max(0.0, throttle_s - lived_s)


@dataclass(frozen=True)
class LaunchSpec:
    """One job as its property list describes it."""

    keys: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> LaunchSpec:
        """Read the very file that launchd would read."""
        return cls(plistlib.loads(path.read_bytes()))

    @property
    def exit_timeout_s(self) -> float:
        """Return the time between SIGTERM and SIGKILL, seconds."""
        return float(self.keys.get("ExitTimeOut", EXIT_TIMEOUT_S))

    @property
    def throttle_s(self) -> float:
        """Return the shortest life, seconds, after which a job is started again at once."""
        return float(self.keys.get("ThrottleInterval", THROTTLE_S))

    @property
    def at_load(self) -> bool:
        """Whether the job starts when it is loaded; SuccessfulExit implies it."""
        keep = self.keys.get("KeepAlive")
        return bool(
            self.keys.get("RunAtLoad") or keep is True or (isinstance(keep, Mapping) and "SuccessfulExit" in keep)
        )

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment of the job, *more* on top; what is no string is ignored without a word."""
        said = self.keys.get("EnvironmentVariables", {})
        strings = {name: value for name, value in said.items() if isinstance(value, str)}
        return {**MINIMUM, "XPC_SERVICE_NAME": self.keys["Label"], **strings, **more}

    def bind(self) -> dict[str, socket.socket]:
        """Bind and listen, under the names of the property list; what fails is left out without a word."""
        found = {name: _bound(one) for name, one in self.keys.get("Sockets", {}).items()}
        return {name: sock for name, sock in found.items() if sock is not None}

    def start(self, sockets: Mapping[str, socket.socket], more: Mapping[str, str]) -> int:
        """Start the job as the leader of a session of its own and return its process id.

        Sockets travel as descriptors from 3 on, told of by LISTEN_FDS: the one thing that is done Linux's way, for
        there is no ``launch_activate_socket`` here.

        Raises:
            OSError: no such program, or its output cannot be opened.

        """
        environ = self.environment(more)
        if sockets:
            environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)}
        actions = [*self._standard_files(), *_dup(sockets.values())]
        return os.posix_spawn("/bin/sh", self._command(), environ, file_actions=actions, setsid=True)

    def _command(self) -> list[str]:
        folder = self.keys.get("WorkingDirectory", "/")
        limit = self.keys.get("SoftResourceLimits", {}).get("NumberOfFiles", "-")
        mask = format(self.keys.get("Umask", 0o022), "o")
        return ["sh", "-c", _BEGIN, "launchd", folder, mask, str(limit), *self.keys["ProgramArguments"]]

    def _standard_files(self) -> list[tuple[Any, ...]]:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        out = self.keys.get("StandardOutPath", "/dev/null"), self.keys.get("StandardErrorPath", "/dev/null")
        return [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, out[0], append, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, out[1], append, 0o600),
        ]


def _dup(sockets: Sequence[socket.socket] | Any) -> list[tuple[Any, ...]]:
    return [(os.POSIX_SPAWN_DUP2, sock.fileno(), 3 + index) for index, sock in enumerate(sockets)]


def _bound(keys: Mapping[str, Any]) -> socket.socket | None:
    path = os.fsencode(keys["SockPathName"])[:SUN_PATH]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Above the numbers it is handed over as: a move onto itself would leave it closed at the start of the program.
    high = _moved_up(sock)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - bytes: a path may be cut within a character
        high.bind(path)
        os.chmod(path, keys.get("SockPathMode", 0o755))  # noqa: PTH101 - bytes, see above
        high.listen(128)
    except OSError:
        high.close()
        return None
    return high


def _moved_up(sock: socket.socket, least: int = 32) -> socket.socket:
    import fcntl

    moved = socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, least))
    sock.close()
    return moved
