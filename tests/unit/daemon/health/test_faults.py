"""Planted faults: `mlxd doctor` names each, tells it from the others, and says what mends it."""

from __future__ import annotations

import os
import plistlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config.folders import FolderConfig
from daemon.config.model import Config
from daemon.health.doctor import examine
from daemon.health.findings import Finding, Grade
from daemon.health.inside import examine_all
from daemon.health.machine import Access, Machine, look_into
from daemon.health.surroundings import path_variable, sleep, socket
from daemon.installation import describe, staleness
from daemon.paths import Home, find_home
from daemon.views import FolderState, FolderStatus, Health
from jobs.errors import ModelMissing
from launchd.agent import AgentSpec, render
from launchd.contract import Answer
from launchd.files import launcher_text
from launchd.systemd import render_service, render_socket

PMSET = """Battery Power:
 lidwake              1
 sleep                1
 displaysleep         2
AC Power:
 lidwake              1
 sleep                10
 displaysleep         10
"""


@pytest.fixture(name="home")
def _home() -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="mlxd-"))
    home = find_home({"MLXD_HOME": str(root)})
    home.state.mkdir(mode=0o700)
    yield home
    shutil.rmtree(root, ignore_errors=True)


def says(out: str, code: int = 0):
    """Return a command runner that always answers *out*."""

    def run(command: Sequence[str]) -> Answer:
        return Answer(code, out, "")

    return run


def machine(**changes: object) -> Machine:
    facts = {"environ": {"PATH": "/usr/bin:/bin"}, "run": says("masked"), "version": lambda _: "1", **changes}
    return Machine(system="linux", free=lambda _: 10**12, **facts)  # type: ignore[arg-type]


def one(findings: Sequence[Finding], fault: str) -> Finding:
    (finding,) = [each for each in findings if each.fault == fault]
    return finding


def spec_of(home: Home, environ: dict[str, str], executable: str, platform: str = "darwin") -> AgentSpec:
    return describe(home, environ=environ, executable=executable, platform=platform)


def install_agent(home: Home, environ: dict[str, str], executable: str) -> Path:
    """Write what `mlxd service install` of *executable* writes on a Mac."""
    spec = spec_of(home, environ, executable)
    definition = Path(environ["HOME"]) / "Library" / "LaunchAgents" / f"{spec.label}.plist"
    definition.parent.mkdir(parents=True, exist_ok=True)
    definition.write_bytes(render(spec))
    spec.launcher.write_text(launcher_text(spec.program))
    return definition


def test_five_planted_faults_are_each_named_with_what_mends_them(home: Home, tmp_path: Path) -> None:
    """A folder denied, one absent, one hanging, a missing model and a service of another mlxd, all at once."""
    environ = {"HOME": str(tmp_path)}
    install_agent(home, environ, "/old/bin/python")
    denied, absent, hanging = tmp_path / "denied", tmp_path / "absent", tmp_path / "hanging"
    looks = {denied: Access.DENIED, absent: Access.MISSING, hanging: Access.BLOCKED, home.inbox: Access.READABLE}
    folders = tuple(FolderConfig(path=path) for path in looks)

    def find(ref: str) -> object:
        if ref == "demo:lm":
            return ref
        raise ModelMissing(f"{ref} is not on this machine.")

    findings = examine(
        home,
        Config(folders=folders),
        machine=machine(look=looks.__getitem__),
        folders=[FolderStatus(path=path) for path in looks],
        find_model=find,
        stale=staleness(home, environ=environ, executable="/new/bin/python", platform="darwin"),
        inside=True,
    )
    mended = {
        "folder-denied": (str(denied), "ls -ld"),
        "folder-missing": (str(absent), "mkdir -p"),
        "folder-hanging": (str(hanging), "ls "),
        "model-missing": ("demo:whisper", "mlxd models pull demo:whisper"),
        "service-stale": ("/old/bin/python", "mlxd service install"),
    }
    assert {each.fault for each in findings if each.grade is Grade.PROBLEM} == set(mended)
    for fault, (named, command) in mended.items():
        assert named in one(findings, fault).message
        assert command in one(findings, fault).advice


def test_a_folder_that_never_answers_costs_its_deadline_and_no_more(tmp_path: Path) -> None:
    """Three hanging folders are looked into at the same time: each is still in its call when all have begun."""
    begun = threading.Barrier(3, timeout=20)

    def look(path: Path) -> Access:
        begun.wait()
        return Access.BLOCKED

    folders = tuple(FolderConfig(path=tmp_path / name) for name in "abc")
    home = find_home({"MLXD_HOME": str(tmp_path)})
    findings = examine(home, Config(folders=folders), machine=machine(look=look), inside=True)
    assert [each.fault for each in findings if each.check == "folder"] == ["folder-hanging"] * 3


def test_what_the_watcher_knows_is_not_tried_again(home: Home, tmp_path: Path) -> None:
    """Its word counts for a folder it has trouble with: another look at a hanging folder would cost another thread."""

    def look(path: Path) -> Access:
        raise AssertionError(path)

    status = FolderStatus(path=tmp_path, state=FolderState.UNREACHABLE, problem="the folder does not answer")
    config = Config(folders=(FolderConfig(path=tmp_path),))
    findings = examine(home, config, machine=machine(look=look), folders=[status], inside=True)
    assert "does not answer" in one(findings, "folder-hanging").message


def test_a_look_tells_a_real_folder_from_a_missing_one(tmp_path: Path) -> None:
    """On this very machine, without a fake."""
    (tmp_path / "file").write_text("")
    looks = [look_into(tmp_path), look_into(tmp_path / "no"), look_into(tmp_path / "file")]
    assert looks == [Access.READABLE, Access.MISSING, Access.NOT_A_FOLDER]


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_a_service_of_this_mlxd_is_not_stale(home: Home, tmp_path: Path, platform: str) -> None:
    """What was installed from another terminal, with another environment, is still this mlxd's."""
    environ = {"HOME": str(tmp_path), "HF_HOME": "/elsewhere"}
    spec = spec_of(home, environ, "/x/python", platform)
    if platform == "darwin":
        install_agent(home, environ, "/x/python")
    else:
        units = tmp_path / ".config" / "systemd" / "user"
        units.mkdir(parents=True)
        (units / "mlxd.service").write_text(render_service(spec))
        (units / "mlxd.socket").write_text(render_socket(spec))
        spec.launcher.write_text(launcher_text(spec.program))
    assert staleness(home, environ={"HOME": str(tmp_path)}, executable="/x/python", platform=platform) == []
    spec.launcher.unlink()
    (said,) = staleness(home, environ=environ, executable="/x/python", platform=platform)
    assert "not there" in said


def test_an_older_definition_is_stale(home: Home, tmp_path: Path) -> None:
    """The keys that differ are named; no service at all is no fault."""
    environ = {"HOME": str(tmp_path)}
    assert staleness(home, environ=environ, executable="/x/python", platform="darwin") == []
    definition = install_agent(home, environ, "/x/python")
    definition.write_bytes(plistlib.dumps({**plistlib.loads(definition.read_bytes()), "ExitTimeOut": 5}))
    (said,) = staleness(home, environ=environ, executable="/x/python", platform="darwin")
    assert "ExitTimeOut" in said
    definition.write_text("no plist")
    assert "cannot be read" in staleness(home, environ=environ, executable="/x/python", platform="darwin")[0]


def test_an_older_unit_is_stale(home: Home, tmp_path: Path) -> None:
    """A unit file of another version is named, and so is one that is gone."""
    environ = {"HOME": str(tmp_path)}
    spec = spec_of(home, environ, "/x/python", "linux")
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "mlxd.service").write_text(render_service(spec).replace("RestartSec=10", "RestartSec=1"))
    spec.launcher.write_text(launcher_text(spec.program))
    said = staleness(home, environ=environ, executable="/x/python", platform="linux")
    assert ["another version" in said[0], "mlxd.socket cannot be read" in said[1], len(said)] == [True, True, 2]


@pytest.mark.parametrize(
    ("system", "out", "code", "fault", "said"),
    [
        ("darwin", PMSET, 0, "sleep", "sleeps after 10 minutes"),
        (
            "darwin",
            PMSET.replace("10\n displaysleep         10", "0\n displaysleep         10"),
            0,
            "",
            "does not fall",
        ),
        ("darwin", "", 1, "", "cannot be told"),
        ("linux", "masked\n", 0, "", "never suspends"),
        ("linux", "IdleAction=suspend\nIdleActionUSec=30min\n", 0, "sleep", "'suspend' after 30min"),
        ("linux", "IdleAction=ignore\nIdleActionUSec=30min\n", 0, "", "does not put"),
        ("linux", "", 127, "", "No login manager"),
    ],
)
def test_sleep(*, system: str, out: str, code: int, fault: str, said: str) -> None:
    """Whether the machine falls asleep while work waits, in the words of its own tool."""
    (finding,) = sleep(replace(machine(run=says(out, code)), system=system))
    assert (finding.fault, said in finding.message) == (fault, True)
    assert finding.grade is not Grade.PROBLEM


@pytest.mark.parametrize(
    ("path", "grade"),
    [("/usr/bin:/bin", Grade.OK), ("", Grade.PROBLEM), ("/usr/bin", Grade.PROBLEM), ("/usr/bin:/bin:.", Grade.NOTE)],
)
def test_path(path: str, grade: Grade) -> None:
    """The system's programs must be found, and nobody else's."""
    (finding,) = path_variable(machine(environ={"PATH": path}))
    assert finding.grade is grade


def test_socket(tmp_path: Path) -> None:
    """A socket that is gone, no socket, left over, or open to others is told apart."""
    import socket as sockets

    path = Path(tempfile.mkdtemp(prefix="mlxd-")) / "s"
    try:
        assert [each.fault for each in socket(path, uid=os.getuid(), answers=True)] == ["socket-gone"]
        assert [each.fault for each in socket(tmp_path, uid=os.getuid(), answers=None)] == ["socket-foreign"]
        with sockets.socket(sockets.AF_UNIX) as listening:
            listening.bind(str(path))
        path.chmod(0o666)
        assert [each.fault for each in socket(path, uid=os.getuid(), answers=True)] == ["socket-open"]
        path.chmod(0o600)
        (left,) = socket(path, uid=os.getuid(), answers=False)
        assert (left.grade, "left over" in left.message) == (Grade.NOTE, True)
    finally:
        shutil.rmtree(path.parent)


def test_models_are_told_with_their_revision(home: Home) -> None:
    """The demo models of this very installation, found by the same resolver that the daemon uses."""
    health = Health(version="1", pid=1, uptime_s=1.0, home=str(home.state))
    findings = examine_all(home, {"health": health}, inside=True, running=Config(), machine=machine())
    models = [each.message for each in findings if each.check == "model"]
    assert all("revision sha256:" in message for message in models)
    assert len(models) == 2
