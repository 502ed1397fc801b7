"""`daemon.health.doctor` and `daemon.health.fitness`: each fault gives one finding that a person can act on."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.config.folders import FolderConfig
from daemon.config.model import Config
from daemon.health.doctor import examine, healthy
from daemon.health.findings import Finding, Grade
from daemon.health.machine import Access, Machine
from daemon.paths import Home, find_home
from daemon.views import Condition, FolderStatus, Health, PluginStatus
from jobs.errors import ConfigError, DaemonUnreachable, ModelMissing
from launchd.contract import Answer, ServiceStatus, Standing

GB = 10**9


@pytest.fixture
def home() -> Iterator[Home]:
    """Give a home that is in order, with a short path: pytest's own folders are too long for a socket on a Mac."""
    root = Path(tempfile.mkdtemp(prefix="mlxd-"))
    home = find_home({"MLXD_HOME": str(root)})
    home.state.mkdir(mode=0o700)
    yield home
    shutil.rmtree(root, ignore_errors=True)


def machine(**changes) -> Machine:
    versions = {"mlx": "0.32.4", "mlx-lm": "0.32.2", "mlx-whisper": "0.4.3"}
    facts = {
        "system": "linux",
        "processor": "x86_64",
        "python": (3, 12, 1),
        "macos": "",
        "version": versions.get,
        "memory": lambda: 32 * GB,
        "free": lambda path: 100 * GB,
        "look": lambda path: Access.READABLE,
        "uid": os.getuid,
        "environ": {"PATH": "/usr/bin:/bin"},
        "run": lambda command: Answer(0, "AC Power:\n sleep                0\n", ""),
    }
    return Machine(**{**facts, **changes})


def found(check: str, home: Home, config=None, **facts) -> list[Finding]:
    facts.setdefault("machine", machine())
    return [each for each in examine(home, config or Config(), **facts) if each.check == check]


def only(check: str, home: Home, config=None, **facts) -> Finding:
    (finding,) = found(check, home, config, **facts)
    return finding


def test_a_healthy_set_up_has_nothing_to_complain_about(home: Home) -> None:
    """Everything in order on a Mac: all findings are good ones, in reading order."""
    mac = machine(system="darwin", processor="arm64", macos="15.1")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(home.socket))
    home.socket.chmod(0o600)
    listening.close()
    findings = examine(
        home,
        Config(folders=(FolderConfig(path=home.inbox),)),
        machine=mac,
        health=Health(version="0.1.0", pid=7, uptime_s=3.2, home=str(home.state)),
        folders=[FolderStatus(path=home.inbox)],
        plugins=[PluginStatus(name="generate", kind="builtin")],
        find_model=lambda ref: ref,
        service=ServiceStatus(Standing.RUNNING, "Running.", 7),
    )
    assert {each.grade for each in findings} == {Grade.OK}
    assert healthy(findings)
    assert [each.check for each in findings] == [
        *("python", "mlx", "mlx-lm", "mlx-whisper", "accelerator", "memory", "disk"),
        *("prefixes", "home", "socket", "path"),
        *("config", "folder", "model", "model", "plugin", "service", "sleep", "daemon"),
    ]
    assert all(each.message.endswith(".") for each in findings)


@pytest.mark.parametrize(
    ("check", "changes", "grade", "said"),
    [
        ("python", {"python": (3, 10, 9)}, Grade.PROBLEM, "too old"),
        ("python", {"python": (3, 14, 0)}, Grade.NOTE, "newer"),
        ("mlx", {"version": lambda name: None}, Grade.PROBLEM, "not installed"),
        ("accelerator", {"system": "darwin", "processor": "x86_64", "macos": "15.0"}, Grade.PROBLEM, "Apple silicon"),
        ("accelerator", {"system": "darwin", "processor": "arm64", "macos": "13.6"}, Grade.PROBLEM, "macOS 14"),
        ("accelerator", {}, Grade.NOTE, "CPU"),
        ("accelerator", {"version": lambda name: "0.32" if name == "mlx-cuda-12" else None}, Grade.OK, "CUDA"),
        ("memory", {"memory": lambda: 4 * GB}, Grade.NOTE, "4.0 GB of memory, of which models may use 2.4 GB"),
        ("disk", {"free": lambda path: GB}, Grade.NOTE, "1.0 GB free"),
        ("disk", {"free": lambda path: GB // 10}, Grade.PROBLEM, "0.1 GB free"),
    ],
)
def test_an_unfit_machine_is_told(check: str, changes: dict, grade: Grade, said: str, home: Home) -> None:
    """What is old, missing, foreign or too small gets a grade, a sentence, and advice where there is any."""
    finding = only(check, home, machine=machine(**changes))
    assert finding.grade is grade
    assert said in finding.message
    assert finding.advice or grade is not Grade.PROBLEM


def test_a_home_of_others_is_told(home: Home, tmp_path: Path) -> None:
    """Open to others, owned by others, read-only, a link: each is a problem with a command that mends it."""
    home.state.chmod(0o755)
    assert "may look into" in only("home", home).message
    home.state.chmod(0o500)
    if os.geteuid():  # root may write everywhere
        assert "not writable" in only("home", home).message
    home.state.chmod(0o700)
    assert "another user" in only("home", home, machine=machine(uid=lambda: os.getuid() + 1)).message
    home.state.rmdir()
    assert only("home", home).grade is Grade.OK  # the daemon makes it
    home.state.symlink_to(tmp_path / "elsewhere")
    assert "not a folder of its own" in only("home", home).message


def test_a_socket_path_that_macos_would_cut_is_told(tmp_path: Path) -> None:
    """104 bytes are too many, on Linux too, so that a home can move to a Mac."""
    deep = find_home({"MLXD_HOME": str(tmp_path / ("x" * 100))})
    finding = only("socket", deep)
    assert finding.grade is Grade.PROBLEM
    assert "MLXD_HOME" in finding.advice


def test_a_broken_configuration_hides_nothing_else(home: Home) -> None:
    """Its error is a finding; memory and the rest are still examined, folders and models cannot be."""
    findings = examine(home, ConfigError("line 3: no such key"), machine=machine(), find_model=lambda ref: ref)
    assert [each.message for each in findings if each.grade is Grade.PROBLEM] == ["line 3: no such key"]
    assert {"memory", "disk", "socket"} <= {each.check for each in findings}
    assert not {"folder", "model"} & {each.check for each in findings}
    assert not healthy(findings)


def test_a_configuration_file_is_named(home: Home) -> None:
    """With a file its path is told, without one the place where it would be."""
    assert "defaults apply" in only("config", home).message
    home.config.write_text("")
    assert "in order" in only("config", home).message


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access.MISSING, "does not exist"),
        (Access.NOT_A_FOLDER, "is a file"),
        (Access.DENIED, "may not be read"),
        (Access.PROTECTED, "may not be read"),
        (Access.BLOCKED, "gives no answer"),
    ],
)
def test_a_folder_that_cannot_be_watched_is_told(access: Access, said: str, home: Home) -> None:
    """Missing, wrong, forbidden and silent folders are told apart."""
    config = Config(folders=(FolderConfig(path=home.inbox),))
    finding = only("folder", home, config, machine=machine(look=lambda path: access))
    assert finding.grade is Grade.PROBLEM
    assert said in finding.message
    assert finding.advice


def test_a_folder_that_the_daemon_makes_is_not_missed(home: Home) -> None:
    """`create` makes absence normal; a disabled folder is nobody's problem."""
    look = machine(look=lambda path: Access.MISSING)
    config = Config(folders=(FolderConfig(path=home.inbox, create=True),))
    assert only("folder", home, config, machine=look).grade is Grade.OK
    config = Config(folders=(FolderConfig(path=home.inbox, enabled=False),))
    assert found("folder", home, config, machine=look) == []


@pytest.mark.parametrize("folder", ["Downloads", "Documents/audio", "Library/Mobile Documents/com~apple~CloudDocs/x"])
def test_macos_privacy_is_explained(folder: str, home: Home) -> None:
    """For a protected folder on a Mac the advice names the place in System Settings, also when the daemon says so."""
    path = Path("/Users/ada") / folder
    mac = machine(system="darwin", processor="arm64", macos="15.0", look=lambda path: Access.PROTECTED)
    from_here = only("folder", home, Config(folders=(FolderConfig(path=path),)), machine=mac)
    from_daemon = only(
        "folder", home, machine=mac, folders=[FolderStatus(path=path, problem="Operation not permitted")]
    )
    assert "Privacy & Security" in from_here.advice
    assert "Privacy & Security" in from_daemon.advice
    assert "ls -ld" in only("folder", home, folders=[FolderStatus(path=path, problem="No.")]).advice


def test_a_model_that_is_missing_names_the_command(home: Home) -> None:
    """Defaults and aliases are looked up, each once; the resolver's own sentence is what is shown."""
    asked: list[str] = []

    def find(ref: str) -> None:
        asked.append(ref)
        if ref == "small":
            raise ModelMissing("It is not here. Run: mlxd models pull org/small")

    config = Config.model_validate({"models": {"small": "org/small"}, "defaults": {"lm": "small"}})
    findings = found("model", home, config, find_model=find)
    assert asked == ["small", "demo:whisper"]
    assert [each.grade for each in findings] == [Grade.PROBLEM, Grade.OK]
    assert "mlxd models pull org/small" in findings[0].message


def test_a_broken_plugin_is_told(home: Home) -> None:
    """Each broken plugin is a problem of its own."""
    plugins = [PluginStatus(name="a", kind="file", problem="no such module"), PluginStatus(name="b", kind="builtin")]
    finding = only("plugin", home, plugins=plugins)
    assert finding.message == "Plugin a: no such module"


@pytest.mark.parametrize(
    ("status", "grade", "said"),
    [
        (ServiceStatus(Standing.NOT_INSTALLED, "Not installed."), Grade.NOTE, "does not start by itself"),
        (ServiceStatus(Standing.STOPPED, "No process.", None, 78), Grade.NOTE, "ended with 78"),
        (ServiceStatus(Standing.UNKNOWN, "Cannot tell."), Grade.NOTE, "Cannot tell."),
        (ServiceStatus(Standing.RUNNING, "Running.", 7), Grade.OK, "Process 7"),
    ],
)
def test_the_service_is_told(status: ServiceStatus, grade: Grade, said: str, home: Home) -> None:
    """A service that is not there is a note, not a problem: `mlxd run` is enough for many."""
    finding = only("service", home, service=status)
    assert finding.grade is grade
    assert said in finding.message


def test_the_daemons_own_problems_are_passed_on(home: Home) -> None:
    """What it says of itself is told once, even if a folder said it already; draining and silence are notes."""
    health = Health(
        status=Condition.DEGRADED, version="1", pid=7, uptime_s=1, home="/", problems=("ledger is slow", "no inbox")
    )
    findings = found("daemon", home, health=health, folders=[FolderStatus(path=home.inbox, problem="no inbox")])
    assert [each.message for each in findings if each.grade is Grade.PROBLEM] == ["ledger is slow"]
    draining = Health(status=Condition.DRAINING, version="1", pid=7, uptime_s=1, home="/")
    assert only("daemon", home, health=draining).grade is Grade.NOTE
    assert only("daemon", home, health=DaemonUnreachable()).grade is Grade.NOTE
    assert found("daemon", home) == []


def test_a_check_that_fails_hides_no_other(home: Home) -> None:
    """A disk that cannot be asked is a finding, and the rest goes on."""

    def broken(path: Path) -> int:
        raise OSError(5, "Input/output error")

    findings = examine(home, Config(), machine=machine(free=broken))
    (disk,) = [each for each in findings if each.check == "disk"]
    assert disk.grade is Grade.PROBLEM
    assert "Input/output error" in disk.message
    assert findings[-1].check == "sleep"


def test_the_real_machine_can_be_examined(home: Home) -> None:
    """With nothing replaced the doctor looks at this very machine and comes to an end."""
    findings = examine(home, Config())
    assert {"python", "mlx", "memory", "disk"} <= {each.check for each in findings}


def test_a_ledger_that_keeps_the_daemon_from_starting_is_told(home: Home) -> None:
    """When nobody answers, a newer or a broken ledger is named; a daemon that answers speaks for its ledger itself."""
    silent = DaemonUnreachable()
    assert found("ledger", home, health=silent) == []  # there is none yet
    with closing(sqlite3.connect(home.ledger)) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert only("ledger", home, health=silent).grade is Grade.OK
    with closing(sqlite3.connect(home.ledger)) as connection:
        connection.execute("PRAGMA user_version = 99")
    newer = only("ledger", home, health=silent)
    assert newer.grade is Grade.PROBLEM
    assert "newer mlxd" in newer.message
    assert found("ledger", home) == []
    home.ledger.write_bytes(b"no database, but long enough to be taken for one" * 20)
    assert "cannot be read" in only("ledger", home, health=silent).message
