"""What every service manager does for us, and how it says that it could not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

# No command of launchctl or systemctl that we use blocks longer than a stop, which ends after ExitTimeOut (45 s).
_COMMAND_TIMEOUT_S: Final = 90.0
_COMMAND_MISSING: Final = 127  # what a shell answers


class ServiceFailure(Exception):
    """The service manager refused; the message says what happened and what to do.

    ``code`` is its exit status, or None when no command was run.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Standing(StrEnum):
    """Where the service stands."""

    RUNNING = "running"
    #: Known to the service manager, no process at the moment; it starts on demand or by ``start``.
    STOPPED = "stopped"
    #: Installed on disk, not known to the service manager until the next login or ``start``.
    NOT_LOADED = "not-loaded"
    #: Installed, and switched off by the person (Login Items on a Mac, ``disable`` on Linux).
    DISABLED = "disabled"
    NOT_INSTALLED = "not-installed"
    #: The service manager gave no answer that can be trusted: never to be read as "not running".
    UNKNOWN = "unknown"


class ServiceStatus(NamedTuple):
    """What is known about the service."""

    standing: Standing
    #: A sentence for people.
    detail: str
    #: The daemon's process, while it runs.
    pid: int | None = None
    #: How the last process ended, as the service manager counts it.
    last_exit: int | None = None
    #: The file that defines the service.
    definition: Path | None = None


class ServiceManager(Protocol):
    """launchd or systemd, for one service.

    Every method raises `ServiceFailure`, and every one may be repeated: asking twice for the same gives the same.
    """

    def install(self) -> ServiceStatus:
        """Write the definition, start the service, and have it started at every login."""

    def uninstall(self) -> ServiceStatus:
        """Stop the service and remove everything that `install` wrote; jobs, models and logs stay."""

    def start(self) -> ServiceStatus:
        """Start the installed service."""

    def stop(self) -> ServiceStatus:
        """Stop the service, waiting for its drain; it stays down until `start` or the next login."""

    def restart(self) -> ServiceStatus:
        """Stop, then start."""

    def status(self) -> ServiceStatus:
        """Say where the service stands; this never changes anything and never fails."""


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


#: Runs a command (absolute or looked up in PATH) to its end. Never raises; 127 says that there is no such command.
Run = Callable[[Sequence[str]], Answer]


def run_command(command: Sequence[str]) -> Answer:
    """Run *command* without a shell and without standard input; a hang is cut off after 90 s (code 124)."""
    try:
        done = subprocess.run(
            list(command),
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        return Answer(_COMMAND_MISSING, "", f"{command[0]}: command not found")
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"{command[0]} gave no answer within {_COMMAND_TIMEOUT_S:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)
