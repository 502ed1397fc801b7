"""`daemon.installation`: what is installed for a home."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from daemon import installation
from daemon.installation import describe, manager, program, user_folder
from daemon.paths import find_home
from jobs.errors import ServiceError
from launchd.control import ServiceController
from launchd.systemd import SystemdController


def test_the_script_beside_python_is_the_program(tmp_path: Path) -> None:
    """The `mlxd` of the same environment, links not resolved; without it the module, isolated from the folder."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.symlink_to("/usr/bin/env")
    assert program(python) == (str(python), "-I", "-m", "daemon")
    (tmp_path / "bin" / "mlxd").write_text("")
    assert program(python) == (str(tmp_path / "bin" / "mlxd"),)


def test_only_what_belongs_to_the_daemon_is_carried(tmp_path: Path) -> None:
    """The person's settings for mlxd and the hub travel; PATH, tokens and the rest of the shell stay behind."""
    environ = {
        "HOME": "/Users/ada",
        "PATH": "/opt/strange",
        "HF_TOKEN": "hf_secret",
        "HF_HUB_CACHE": "/Volumes/hub",
        "MLXD_HOME": str(tmp_path),
        "HF_HOME": "",
    }
    spec = describe(find_home(environ), environ=environ, platform="darwin", drain_seconds=44.2)
    assert spec.environment == {"HOME": "/Users/ada", "HF_HUB_CACHE": "/Volumes/hub", "MLXD_HOME": str(tmp_path)}
    assert "/opt/strange" not in str(spec.full_environment)
    assert spec.drain_seconds == 45
    assert spec.stop_seconds == 60


def test_each_system_has_its_manager(tmp_path: Path) -> None:
    """The one of macOS on a Mac, systemd elsewhere, their files under the person's own folders."""
    environ = {"HOME": str(tmp_path)}
    home = find_home(environ)
    mac = manager(home, environ=environ, platform="darwin")
    linux = manager(home, environ=environ, platform="linux")
    assert isinstance(mac, ServiceController)
    assert mac.definition == tmp_path / "Library" / "LaunchAgents" / "io.mlxd.agent.plist"
    assert isinstance(linux, SystemdController)
    assert linux.definition == tmp_path / ".config" / "systemd" / "user" / "mlxd.service"


def test_sudo_is_refused(tmp_path: Path, monkeypatch) -> None:
    """A service installed by sudo would be root's: the message says to leave sudo away."""
    monkeypatch.setattr(installation.os, "geteuid", lambda: 0)
    environ = {"HOME": str(tmp_path), "SUDO_USER": "ada"}
    with pytest.raises(ServiceError, match="without sudo"):
        manager(find_home(environ), environ=environ)


def test_a_person_without_home_has_one_all_the_same() -> None:
    """Where HOME is not set the user database knows."""
    assert user_folder({}) == Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert user_folder({"HOME": "/x"}) == Path("/x")
