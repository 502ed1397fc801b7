"""The same service on Linux: a systemd user unit, and a socket unit that starts it on the first request."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launchd.agent import AgentSpec
from launchd.contract import Answer, Run, ServiceFailure, ServiceStatus, Standing, run_command
from launchd.files import launcher_text, private_folder, remove, write_file
from launchd.schema import SOCKET_PATH_MAX

#: Name of both units, before the dot.
UNIT: Final = "mlxd"

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")
_PROPERTIES: Final = ("LoadState", "ActiveState", "SubState", "MainPID", "ExecMainStatus")

_SERVICE: Final = """\
# Written by `mlxd service install`; removed by `mlxd service uninstall`.
[Unit]
Description=mlxd: MLX models resident, jobs in the background
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Sockets={unit}.socket
WorkingDirectory={state}
{environment}
Restart=on-failure
RestartSec=10
# TERM goes to the daemon alone, which drains its runners; whatever is left after that is killed.
KillMode=mixed
TimeoutStopSec={stop_seconds}
UMask=0077
LimitNOFILE=4096:524288
StandardOutput=append:{logs}/agent.out
StandardError=append:{logs}/agent.err

[Install]
WantedBy=default.target
"""

_SOCKET: Final = """\
# Written by `mlxd service install`; removed by `mlxd service uninstall`.
[Unit]
Description=mlxd: the socket its clients talk to

[Socket]
ListenStream={socket}
FileDescriptorName=http
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""


def quoted(text: str) -> str:
    """Return *text* as one word of a unit file: no specifier, no variable, no escape in it means anything.

    Raises:
        ServiceFailure: it holds a control character, which no unit file can say.

    """
    return '"' + bare(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def bare(text: str) -> str:
    """Return *text* as the whole value of a setting that takes a path and knows no quotes."""
    if _UNSAFE.search(text):
        raise ServiceFailure(f"{text!r} cannot be written into a unit file: it holds a control character.")
    return text.replace("%", "%%")


def render_service(spec: AgentSpec) -> str:
    """Return the service unit of *spec*."""
    # Through sh, because systemd refuses quotes and backslashes in the name of the executable itself.
    words = ["/bin/sh", str(spec.launcher), *spec.arguments]
    return _SERVICE.format(
        command=" ".join(quoted(word).replace("$", "$$") for word in words),
        unit=UNIT,
        state=bare(str(spec.state)),
        logs=bare(str(spec.logs)),
        environment="\n".join(
            f"Environment={quoted(f'{name}={value}')}" for name, value in spec.full_environment.items()
        ),
        stop_seconds=spec.stop_seconds,
    )


def render_socket(spec: AgentSpec) -> str:
    """Return the socket unit of *spec*.

    Raises:
        ServiceFailure: its path is longer than a Mac takes, which is less than Linux takes.

    """
    if len(os.fsencode(spec.socket)) > SOCKET_PATH_MAX:
        raise ServiceFailure(
            f"{spec.socket} is longer than {SOCKET_PATH_MAX} bytes. Set MLXD_HOME to a shorter folder."
        )
    return _SOCKET.format(socket=bare(str(spec.socket)))


class SystemdController:
    """The user unit of one user; *units* is ``~/.config/systemd/user``."""

    def __init__(self, spec: AgentSpec, *, units: Path, uid: int, run: Run = run_command) -> None:
        self._spec = spec
        self._uid = uid
        self._run = run
        self._service = units / f"{UNIT}.service"
        self._socket = units / f"{UNIT}.socket"
        #: The service unit's path.
        self.definition = self._service

    def install(self) -> ServiceStatus:
        """Write launcher and units, enable them, and start afresh."""
        service, socket = render_service(self._spec), render_socket(self._spec)
        private_folder(self._spec.state, uid=self._uid)
        private_folder(self._spec.logs, uid=self._uid)
        write_file(self._spec.launcher, launcher_text(self._spec.program).encode(), mode=0o700)
        write_file(self._service, service.encode(), mode=0o644)
        write_file(self._socket, socket.encode(), mode=0o644)
        self._do("daemon-reload", doing="make systemd read the units")
        self._do("enable", f"{UNIT}.socket", f"{UNIT}.service", doing="switch the service on")
        self._stop()
        self._start()
        return self.status()

    def uninstall(self) -> ServiceStatus:
        """Stop, disable and remove."""
        if self._service.exists() or self._socket.exists():
            self._stop()
            self._do("disable", f"{UNIT}.socket", f"{UNIT}.service", doing="switch the service off")
        for path in (self._service, self._socket, self._spec.launcher):
            remove(path)
        self._do("daemon-reload", doing="make systemd forget the units")
        return self.status()

    def start(self) -> ServiceStatus:
        """Have the installed service running."""
        self._require_definition()
        self._start()
        return self.status()

    def stop(self) -> ServiceStatus:
        """Stop the socket first: as long as systemd holds it, any client would start the service again."""
        self._require_definition()
        self._stop()
        return self.status()

    def restart(self) -> ServiceStatus:
        """Stop, then start."""
        self._require_definition()
        self._stop()
        self._start()
        return self.status()

    def status(self) -> ServiceStatus:
        """Say where the service stands, as far as systemd tells."""
        if not self._service.exists():
            return ServiceStatus(Standing.NOT_INSTALLED, "Not installed. Install it with: mlxd service install")
        wanted = [f"--property={name}" for name in _PROPERTIES]
        answer = self._run(["systemctl", "--user", "show", f"{UNIT}.service", *wanted])
        facts = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
        if answer.code or "ActiveState" not in facts:
            return ServiceStatus(Standing.UNKNOWN, f"Cannot tell: {_why(answer)}", definition=self._service)
        return self._judged(facts)

    def _judged(self, facts: Mapping[str, str]) -> ServiceStatus:
        pid, last_exit = _number(facts.get("MainPID")) or None, _number(facts.get("ExecMainStatus"))
        if facts["ActiveState"] in {"active", "reloading", "deactivating"} and pid:
            return ServiceStatus(Standing.RUNNING, "Running under systemd.", pid, last_exit, self._service)
        if facts.get("LoadState") != "loaded":
            detail = "Installed, but systemd has not read it. Start it with: mlxd service start"
            return ServiceStatus(Standing.NOT_LOADED, detail, None, last_exit, self._service)
        detail = (
            f"Not running ({facts['ActiveState']}, {facts.get('SubState', '?')}). Start it with: mlxd service start"
        )
        return ServiceStatus(Standing.STOPPED, detail, None, last_exit, self._service)

    def _start(self) -> None:
        self._do("start", f"{UNIT}.socket", f"{UNIT}.service", doing="start the service")

    def _stop(self) -> None:
        self._do("stop", f"{UNIT}.socket", f"{UNIT}.service", doing="stop the service")

    def _do(self, *words: str, doing: str) -> None:
        answer = self._run(["systemctl", "--user", *words])
        if answer.code:
            raise ServiceFailure(f"Could not {doing}. {_why(answer)} (code {answer.code})", code=answer.code)

    def _require_definition(self) -> None:
        if not self._service.exists():
            raise ServiceFailure("The service is not installed. Install it with: mlxd service install")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _why(answer: Answer) -> str:
    said = " ".join((answer.err or answer.out).split())
    if answer.code == 127:  # noqa: PLR2004 - what a shell answers for a missing command
        return "There is no systemctl here. Run the daemon yourself instead: mlxd run"
    if "connect to bus" in said or "XDG_RUNTIME_DIR" in said or "No medium found" in said:
        return (
            "systemd runs no session for this user here (common in containers and under su). "
            "Log in properly, or allow one with: loginctl enable-linger; or run the daemon yourself: mlxd run"
        )
    return said or "systemctl said nothing more."
