"""The systemd user unit against a scripted `systemctl` on the PATH, and the service that belongs to a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_service import FakeSystemctl, sample_spec

from daemon.installation import describe, manager
from daemon.paths import find_home
from launchd.contract import ServiceFailure, Standing
from launchd.systemd import SystemdController


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch) -> FakeSystemctl:
    """Put a fake first in the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return FakeSystemctl(tmp_path / "bin")


def test_a_life_of_a_service(systemctl: FakeSystemctl, tmp_path: Path) -> None:
    """Install (three times), stop, start, restart, uninstall (twice): the units come and go with it."""
    controller = SystemdController(sample_spec(tmp_path), units=tmp_path / "units", uid=os.getuid())
    for _ in range(3):
        assert controller.install() == (Standing.RUNNING, "Running under systemd.", 4711, None, controller.definition)
    assert systemctl.verbs == ["daemon-reload", "enable", "stop", "start"] * 3
    assert controller.stop().standing is Standing.STOPPED
    assert controller.start().standing is Standing.RUNNING
    assert controller.restart().standing is Standing.RUNNING
    assert sorted(each.name for each in (tmp_path / "units").iterdir()) == ["mlxd.service", "mlxd.socket"]
    for _ in range(2):
        assert controller.uninstall().standing is Standing.NOT_INSTALLED
    assert list((tmp_path / "units").iterdir()) == []
    assert not (tmp_path / "state" / "mlxd-agent").exists()


def test_no_user_session_is_explained(systemctl: FakeSystemctl, tmp_path: Path) -> None:
    """In a container there is no bus: the message says how to get a session, or to run without one."""
    systemctl.change(broken="Failed to connect to bus: No medium found")
    controller = SystemdController(sample_spec(tmp_path), units=tmp_path / "units", uid=os.getuid())
    with pytest.raises(ServiceFailure, match=r"enable-linger.*mlxd run"):
        controller.install()


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac the manager is launchd")
def test_the_service_of_a_home_starts_this_very_mlxd(systemctl: FakeSystemctl, tmp_path: Path) -> None:
    """What `mlxd service install` installs runs the mlxd that installed it, for the same home, with no shell's PATH."""
    environ = {"HOME": str(tmp_path), "MLXD_HOME": str(tmp_path / "mlxd"), "PATH": "/strange/bin"}
    assert manager(find_home(environ), environ=environ).install().standing is Standing.RUNNING
    unit = (tmp_path / ".config" / "systemd" / "user" / "mlxd.service").read_text()
    assert f'Environment="MLXD_HOME={tmp_path / "mlxd"}"' in unit
    assert "/strange/bin" not in unit
    launcher = tmp_path / "mlxd" / "state" / "mlxd-agent"
    # Through the launcher, in an empty environment, the program still finds itself.
    done = subprocess.run([launcher, "--help"], env={"HOME": str(tmp_path)}, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"run" in done.stdout


def test_the_described_service_fits_both_systems(tmp_path: Path) -> None:
    """The same home gives the same launcher, socket and environment to launchd and to systemd."""
    environ = {"HOME": "/Users/ada", "MLXD_HOME": str(tmp_path), "HF_HOME": "/Volumes/models", "XDG_STATE_HOME": "/x"}
    home = find_home(environ)
    mac = describe(home, environ=environ, platform="darwin")
    linux = describe(home, environ=environ, platform="linux")
    assert mac.environment == {"HOME": "/Users/ada", "MLXD_HOME": str(tmp_path), "HF_HOME": "/Volumes/models"}
    assert linux.environment == {**mac.environment, "XDG_STATE_HOME": "/x"}
    assert mac.socket == linux.socket == home.socket
