"""What the service is: one value, rendered as launchd's property list."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from launchd.files import LAUNCHER_NAME
from launchd.schema import STOP_MARGIN_S, problems

#: Name of the service everywhere: label, file name, log lines.
LABEL: Final = "io.mlxd.agent"
#: What a launchd job gets when nobody says otherwise. A login shell's PATH differs by terminal, by day and by tool.
SYSTEM_PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One installed daemon; every path is absolute."""

    #: What the launcher executes, e.g. ``("/opt/mlxd/bin/mlxd",)``.
    program: tuple[str, ...]
    #: What the daemon is started with.
    arguments: tuple[str, ...] = ("run", "--supervised")
    #: Folder of the launcher and the socket; made 0700.
    state: Path
    #: Folder of what the daemon prints before its own log is open.
    logs: Path
    socket: Path
    #: Beside PATH, LANG and PYTHONUNBUFFERED: HOME, MLXD_HOME, HF_HOME, ...
    environment: Mapping[str, str] = field(default_factory=dict)
    #: How long the daemon drains after SIGTERM, seconds.
    drain_seconds: int = 30
    #: "Interactive", or "Background" for a Mac that only does batches: throttles CPU and disk.
    process_type: str = "Interactive"
    #: Also load without a graphical session (installed over SSH).
    headless: bool = False
    label: str = LABEL

    @property
    def launcher(self) -> Path:
        """Return where the launcher lies."""
        return self.state / LAUNCHER_NAME

    @property
    def stop_seconds(self) -> int:
        """Return how long the service manager waits between SIGTERM and SIGKILL: 45, or more for a longer drain."""
        return max(45, self.drain_seconds + STOP_MARGIN_S + 5)

    @property
    def full_environment(self) -> dict[str, str]:
        """Return everything that the daemon's environment consists of."""
        return {"LANG": "en_US.UTF-8", "PATH": SYSTEM_PATH, "PYTHONUNBUFFERED": "1", **self.environment}


def describe(spec: AgentSpec) -> dict[str, Any]:
    """Return *spec* as launchd's keys."""
    return {
        "Label": spec.label,
        "ProgramArguments": [str(spec.launcher), *spec.arguments],
        "RunAtLoad": True,
        # Start again after everything but a clean exit: also after jetsam's SIGKILL, which "Crashed" does not count.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": spec.stop_seconds,
        "ProcessType": spec.process_type,
        "LimitLoadToSessionType": ["Aqua", "Background"] if spec.headless else "Aqua",
        "Sockets": {"http": {"SockPathName": str(spec.socket), "SockPathMode": 0o600}},
        "EnvironmentVariables": spec.full_environment,
        "StandardOutPath": str(spec.logs / "agent.out"),
        "StandardErrorPath": str(spec.logs / "agent.err"),
        "WorkingDirectory": str(spec.state),
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
    }


def render(spec: AgentSpec) -> bytes:
    """Return the property list of *spec*.

    Raises:
        ValueError: it is not one that launchd takes; the message lists every problem.

    """
    described = describe(spec)
    found = problems(described, file_name=f"{spec.label}.plist", drain_seconds=spec.drain_seconds)
    if found:
        raise ValueError("The launch agent cannot be written: " + " ".join(found))
    return plistlib.dumps(described, sort_keys=True)
