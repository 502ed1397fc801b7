"""`daemon.selftest` and its checks for a Mac, against a scripted one."""

from __future__ import annotations

import plistlib
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes_shortcuts import FakeMac, signing

from daemon import selftest as module
from daemon.health import mac_checks
from daemon.health.mac_checks import MAC
from daemon.installation import program
from daemon.paths import Home, find_home
from daemon.selftest import PORTABLE, Bench, Result, passed, selftest
from jobs.errors import DaemonUnreachable
from launchd.contract import Answer

PRINTED = "gui/501/io.mlxd.agent = {\n\tpid = 77\n\tminimum runtime = 10\n\texit timeout = 60\n}\n"
CHECKLIST = Path(__file__).parents[3] / "docs" / "mac-checklist.md"


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Home:
    return find_home({"MLXD_HOME": str(tmp_path / "h")})


def down() -> Any:
    raise DaemonUnreachable


def bench(home: Home, **changes: Any) -> Bench:
    return Bench(**{"home": home, "program": program(Path(sys.executable)), "health": down, **changes})


def test_here_the_portable_checks_are_made(home: Home) -> None:
    """On Linux they pass, a daemon that is down is no failure, and what needs a Mac says so; nothing is left behind."""
    checks = {check.id: check for check in selftest(bench(home, platform="linux"))}
    assert list(checks) == [name for name, _, _ in (*PORTABLE, *MAC)]
    assert {name: check.result for name, check in checks.items() if check.result is Result.FAILED} == {}
    for name in ("arguments", "text", "launcher", "bundles", "socket-path", "ledger"):
        assert checks[name].result is Result.OK, checks[name].detail
    assert checks["daemon"].result is Result.CANNOT_TELL
    assert {checks[name].detail for name, _, _ in MAC} == {"This needs a Mac."}
    assert passed(checks.values())
    assert not home.state.exists()


def test_a_careless_command_would_be_found(home: Home, monkeypatch) -> None:
    """The controls: a command put together from strings fails the check of arguments, a lossy one that of text."""
    monkeypatch.setattr(module, "command", lambda action, launcher: f'exec "{launcher}" x -- $*')
    checks = {check.id: check for check in selftest(bench(home, platform="linux"))}
    assert checks["arguments"].result is Result.FAILED
    assert checks["text"].result is Result.FAILED
    assert not passed(checks.values())


def test_a_check_that_breaks_hides_no_other(home: Home) -> None:
    """Its error is its result."""
    checks = {check.id: check for check in selftest(bench(home, platform="linux", program=("/nowhere",)))}
    assert checks["launcher"].result is Result.FAILED
    assert "no longer at /nowhere" in checks["launcher"].detail


def on_a_mac(home: Home, mac: FakeMac, monkeypatch, tmp_path: Path, **changes: Any) -> dict[str, tuple[Result, str]]:
    """Make the checks for a Mac here, with its programs scripted and what is not here left out."""
    launcher = tmp_path / "mlxd-agent"
    launcher.write_text("")
    launcher.chmod(0o700)
    definition = tmp_path / "io.mlxd.agent.plist"
    definition.write_bytes(plistlib.dumps({"ProgramArguments": [str(launcher), "run"], "ExitTimeOut": 60}))
    monkeypatch.setattr(mac_checks, "_definition", lambda: definition)
    made = bench(home, platform="darwin", run=mac, scratch=tmp_path, uid=501, **changes)
    return {name: module._guarded(check, made) for name, _, check in MAC}


def test_a_mac_in_order(home: Home, monkeypatch, tmp_path: Path) -> None:
    """Everything that the scripted programs can answer for is ok."""
    mac = FakeMac(
        launchctl=Answer(0, PRINTED, ""),
        sysctl=Answer(0, "1\n", ""),
        shortcuts=signing("anyone"),
        pbs=Answer(0, '{NSMenuItem = {default = "Transcribe with mlxd"}}', ""),
        osascript=Answer(0, "2\n", ""),
    )
    found = on_a_mac(home, mac, monkeypatch, tmp_path, installed={"t": Path("/x/Transcribe with mlxd.workflow")})
    good = ("agent-plist", "agent-running", "agent-name", "agent-limits", "peer", "pressure", "bundles", "sign")
    for name in (*good, "services", "osascript"):
        if (name, sys.platform) != ("peer", "darwin"):
            assert found[f"mac-{name}"][0] is Result.OK, (name, found[f"mac-{name}"])
    assert found["mac-socket-mode"][0] is Result.CANNOT_TELL
    assert mac.calls("launchctl")[0] == ["print", "gui/501/io.mlxd.agent"]


def test_a_mac_in_disorder(home: Home, monkeypatch, tmp_path: Path) -> None:
    """Each fault is named by the check that is about it."""
    refusing = Answer(1, "", "no good")
    mac = FakeMac(
        launchctl=Answer(0, "minimum runtime = 10\n", ""),
        sysctl=refusing,
        shortcuts=refusing,
        plutil=refusing,
        pbs=Answer(0, "NSMenuItem", ""),
        osascript=refusing,
    )
    found = on_a_mac(home, mac, monkeypatch, tmp_path, installed={"t": Path("/x/Transcribe with mlxd.workflow")})
    for name in (
        "agent-plist",
        "agent-running",
        "agent-limits",
        "pressure",
        "bundles",
        "sign",
        "services",
        "osascript",
    ):
        assert found[f"mac-{name}"][0] is Result.FAILED, name
    assert "exit timeout = 60" in found["mac-agent-limits"][1]
    assert "Transcribe with mlxd" in found["mac-services"][1]


def test_a_mac_with_nothing_installed(home: Home, monkeypatch, tmp_path: Path) -> None:
    """What is not there cannot be judged, and says how to put it there."""
    mac = FakeMac(launchctl=Answer(113, "", ""), shortcuts=Answer(127, "", ""))
    found = on_a_mac(home, mac, monkeypatch, tmp_path)
    silent = bench(home, platform="darwin", run=mac, installed={"t": Path("/x/T.workflow")})
    assert mac_checks._installed(silent)[0] is Result.CANNOT_TELL
    for name in ("agent-running", "agent-limits", "services", "sign"):
        assert found[f"mac-{name}"][0] is Result.CANNOT_TELL, name
    (tmp_path / "io.mlxd.agent.plist").unlink()
    made = bench(home, platform="darwin", run=mac, scratch=tmp_path)
    for check in (mac_checks._agent_lint, mac_checks._agent_name):
        assert check(made)[0] is Result.CANNOT_TELL


def test_the_socket_is_its_owners(home: Home) -> None:
    """0600, and a socket."""
    home.state.mkdir(parents=True)
    home.socket.write_text("")
    assert mac_checks._socket_mode(bench(home))[0] is Result.FAILED


def test_numbers_are_those_of_the_checklist() -> None:
    """A check that names a row of the document names one that is there."""
    rows = {int(line.split("|")[1]) for line in CHECKLIST.read_text().splitlines() if line[2:3].isdigit()}
    named = {int(what.split(":")[0]) for _, what, _ in MAC if what[0].isdigit()}
    assert named <= rows
    assert len(named) >= 10
