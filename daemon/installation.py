"""The service that belongs to a home: what to start, with which environment, under which service manager."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from daemon.paths import Home
from jobs.errors import ServiceError
from launchd.agent import AgentSpec
from launchd.contract import ServiceManager

# What the person set for this daemon, and where the model hub's cache is. Nothing else of the shell's environment:
# a service must not depend on the terminal it was installed from.
_CARRIED: Final = ("MLXD_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE")
_CARRIED_ON_LINUX: Final = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


def describe(
    home: Home,
    *,
    drain_seconds: float = 30,
    environ: Mapping[str, str] = os.environ,
    executable: str = sys.executable,
    platform: str = sys.platform,
) -> AgentSpec:
    """Return the service that runs the daemon of *home* with this very installation of mlxd."""
    carried = _CARRIED if platform == "darwin" else (*_CARRIED, *_CARRIED_ON_LINUX)
    environment = {"HOME": str(user_folder(environ)), **{name: environ[name] for name in carried if environ.get(name)}}
    if "MLXD_HOME" in environment:
        environment["MLXD_HOME"] = str(Path(environment["MLXD_HOME"]).expanduser().absolute())
    return AgentSpec(
        program=program(Path(executable)),
        state=home.state,
        logs=home.logs,
        socket=home.socket,
        environment=environment,
        drain_seconds=-int(-drain_seconds // 1),
    )


def manager(
    home: Home,
    *,
    drain_seconds: float = 30,
    environ: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
) -> ServiceManager:
    """Return this platform's service manager for *home*.

    Raises:
        ServiceError: run as root, whose service would not be the person's.

    """
    if os.geteuid() == 0 and environ.get("SUDO_USER"):
        raise ServiceError("Run this without sudo: the service belongs to you, not to root.")
    spec = describe(home, drain_seconds=drain_seconds, environ=environ, platform=platform)
    if platform == "darwin":
        from launchd.control import ServiceController

        return ServiceController(spec, agents=user_folder(environ) / "Library" / "LaunchAgents", uid=os.getuid())
    from launchd.systemd import SystemdController

    config = Path(environ.get("XDG_CONFIG_HOME") or user_folder(environ) / ".config")
    return SystemdController(spec, units=config / "systemd" / "user", uid=os.getuid())


def staleness(
    home: Home,
    *,
    drain_seconds: float = 30,
    environ: Mapping[str, str] = os.environ,
    executable: str = sys.executable,
    platform: str = sys.platform,
) -> list[str]:
    """Return how the installed service of *home* differs from what this mlxd would install; nothing if none is."""
    from launchd.staleness import stale_agent, stale_units

    spec = describe(home, drain_seconds=drain_seconds, environ=environ, executable=executable, platform=platform)
    if platform == "darwin":
        return stale_agent(spec, user_folder(environ) / "Library" / "LaunchAgents" / f"{spec.label}.plist")
    from launchd.systemd import UNIT, render_service, render_socket

    units = Path(environ.get("XDG_CONFIG_HOME") or user_folder(environ) / ".config") / "systemd" / "user"
    wanted = {units / f"{UNIT}.service": render_service(spec), units / f"{UNIT}.socket": render_socket(spec)}
    return stale_units(spec, wanted)


def program(executable: Path) -> tuple[str, ...]:
    """Return the command of this installation: the ``mlxd`` script beside *executable*, or the module itself.

    Links are not resolved: ``bin/python`` of an environment is a link to an interpreter that knows nothing of it.
    """
    script = executable.with_name("mlxd")
    return (str(script),) if script.is_file() else (str(executable), "-I", "-m", "daemon")


def user_folder(environ: Mapping[str, str]) -> Path:
    """Return the person's home folder, also where nobody set HOME."""
    return Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
