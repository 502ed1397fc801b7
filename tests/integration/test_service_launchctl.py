"""The launch agent against a scripted `launchctl` on the PATH: real files, real processes, no Mac."""

from __future__ import annotations

import os
import plistlib
import stat
from pathlib import Path

import pytest
from fakes_service import FakeLaunchctl, FakeTime, sample_spec

from launchd.agent import render
from launchd.contract import ServiceFailure, Standing
from launchd.control import ServiceController

UID = os.getuid()
NAME = f"gui/{UID}/io.mlxd.agent"


class Mac:
    """A home folder with a fake launchd behind it."""

    def __init__(self, root: Path, launchctl: FakeLaunchctl) -> None:
        self.launchctl = launchctl
        self.time = FakeTime()
        self.spec = sample_spec(root)
        self.controller = ServiceController(
            self.spec, agents=root / "LaunchAgents", uid=UID, pause=self.time.pause, clock=self.time.clock
        )

    @property
    def loaded(self) -> list[str]:
        return sorted(self.launchctl.state["loaded"])


@pytest.fixture
def mac(tmp_path: Path, monkeypatch):
    """Make a Mac whose `launchctl` is the first one in the PATH."""

    def make(**facts) -> Mac:
        launchctl = FakeLaunchctl(tmp_path / "bin", uid=UID, **facts)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return Mac(tmp_path, launchctl)

    return make


def test_a_life_of_a_service(mac) -> None:
    """Install, stop, start, restart, uninstall: each leaves what it says, and the files come and go with it."""
    made = mac(leave_after=3)
    controller = made.controller
    assert controller.status().standing is Standing.NOT_INSTALLED
    installed = controller.install()
    assert (installed.standing, installed.pid) == (Standing.RUNNING, 4711)
    assert controller.stop().standing is Standing.NOT_LOADED
    assert made.loaded == []
    assert controller.start().standing is Standing.RUNNING
    assert controller.restart().standing is Standing.RUNNING
    assert made.loaded == [NAME]
    assert controller.uninstall().standing is Standing.NOT_INSTALLED
    assert made.loaded == []
    assert not controller.definition.exists()
    assert not made.spec.launcher.exists()
    assert made.spec.state.is_dir()  # jobs and models stay


def test_installing_three_times_is_installing_once(mac) -> None:
    """Each time the old copy is taken out before the new one goes in; what stands afterwards is the same."""
    made = mac(leave_after=5)
    states = []
    for _ in range(3):
        made.controller.install()
        states.append((made.loaded, made.controller.definition.read_bytes(), made.spec.launcher.read_bytes()))
    assert states[0] == states[1] == states[2]
    again = ["enable", "bootout", "bootstrap", "kickstart"]
    assert made.launchctl.verbs == ["enable", "bootstrap", "kickstart", *again, *again]


def test_uninstalling_twice_is_uninstalling_once(mac) -> None:
    """Also on a machine that never had it."""
    made = mac()
    made.controller.install()
    for _ in range(2):
        assert made.controller.uninstall().standing is Standing.NOT_INSTALLED


def test_launchd_gets_the_new_definition(mac) -> None:
    """An install over a living, slowly draining copy never leaves the old definition in launchd's memory."""
    made = mac(leave_after=12)
    made.controller.install()
    changed = sample_spec(made.spec.state.parent, process_type="Background")
    ServiceController(
        changed, agents=made.controller.definition.parent, uid=UID, pause=made.time.pause, clock=made.time.clock
    ).install()
    held = plistlib.loads(made.launchctl.state["loaded"][NAME]["plist"].encode())
    assert held["ProcessType"] == "Background"
    assert made.time.now >= 12 * 0.25 - 0.25


def test_the_files_are_what_launchd_wants(mac) -> None:
    """A real file of mode 0644 named after its label; an executable launcher that only its owner may touch."""
    made = mac()
    made.controller.install()
    facts = made.controller.definition.lstat()
    assert stat.S_ISREG(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o644
    assert made.controller.definition.name == "io.mlxd.agent.plist"
    assert made.controller.definition.read_bytes() == render(made.spec)
    assert stat.S_IMODE(made.spec.launcher.lstat().st_mode) == 0o700
    assert stat.S_IMODE(made.spec.state.lstat().st_mode) == 0o700
    assert sorted(each.name for each in made.controller.definition.parent.iterdir()) == ["io.mlxd.agent.plist"]


def test_busy_answers_are_outlasted(mac) -> None:
    """Two EIOs and one "in progress" from bootstrap, and the service runs all the same."""
    made = mac()
    made.launchctl.change(script={"bootstrap": [5, 37, 36, 0], "kickstart": [37, 0]})
    assert made.controller.install().standing is Standing.RUNNING
    assert made.time.pauses == [0.5, 1.0, 2.0, 0.5]


def test_a_service_that_was_switched_off_comes_back(mac) -> None:
    """The record of `disable` survives; install switches on first, so bootstrap is not refused with 119."""
    made = mac()
    made.launchctl.change(disabled={"io.mlxd.agent": True})
    assert made.controller.install().standing is Standing.RUNNING
    made.controller.stop()
    made.launchctl.change(disabled={"io.mlxd.agent": True})
    assert made.controller.status().standing is Standing.DISABLED


def test_over_ssh_it_runs_without_a_screen(mac) -> None:
    """No GUI session: the service goes to `user/UID`, and its session types allow that."""
    made = mac(screen=False)
    assert made.controller.install().standing is Standing.RUNNING
    assert made.loaded == [f"user/{UID}/io.mlxd.agent"]
    held = plistlib.loads(made.controller.definition.read_bytes())
    assert held["LimitLoadToSessionType"] == ["Aqua", "Background"]
    # Somebody logs in at the screen and installs again: one copy, in the new session.
    made.launchctl.change(domains=[f"user/{UID}", f"gui/{UID}"])
    made.controller.install()
    assert made.loaded == [NAME]


def test_a_refusal_leaves_a_clear_state(mac) -> None:
    """When launchd refuses, the error says so, the service is not half loaded, and a later install succeeds."""
    made = mac()
    made.launchctl.change(script={"bootstrap": [122]})
    with pytest.raises(ServiceFailure, match=r"does not trust the file.*\(code 122\)"):
        made.controller.install()
    assert made.loaded == []
    assert made.controller.status().standing is Standing.NOT_LOADED
    assert made.controller.install().standing is Standing.RUNNING


def test_what_cannot_be_rendered_touches_nothing(mac, tmp_path: Path) -> None:
    """A socket path that is too long for a Mac is refused before a file is written or launchd is asked to change."""
    made = mac()
    spec = sample_spec(tmp_path, socket=tmp_path / ("x" * 120))
    controller = ServiceController(spec, agents=tmp_path / "LaunchAgents", uid=UID)
    with pytest.raises(ServiceFailure, match="103 bytes"):
        controller.install()
    assert made.launchctl.verbs == []
    assert not spec.launcher.exists()


def test_without_launchctl_the_error_says_so(tmp_path: Path, monkeypatch) -> None:
    """A PATH without launchctl is named as the cause; the status is "cannot tell"."""
    monkeypatch.setenv("PATH", str(tmp_path))
    controller = ServiceController(sample_spec(tmp_path), agents=tmp_path / "LaunchAgents", uid=UID)
    with pytest.raises(ServiceFailure, match="There is no launchctl in the PATH"):
        controller.install()
    assert controller.status().standing is Standing.UNKNOWN
