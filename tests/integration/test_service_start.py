"""What the service manager starts is a working daemon: through the launcher, in the service's own environment."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from daemon.cli.client import Client
from daemon.installation import describe
from daemon.log import log_file
from daemon.paths import Home, find_home
from jobs.errors import DaemonUnreachable
from launchd.agent import AgentSpec
from launchd.files import launcher_text, private_folder, write_file

ACTIVATE = shutil.which("systemd-socket-activate") or ""
PATIENCE = 60.0
#: Coverage of a child process travels in these; a real service has none of them.
MEASURING = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


@pytest.fixture
def home() -> Iterator[Home]:
    """Give a home with a short path: a socket's path may have 103 bytes."""
    root = Path(tempfile.mkdtemp(prefix="mlxd-"))
    yield find_home({"MLXD_HOME": str(root)})
    shutil.rmtree(root, ignore_errors=True)


def installed(home: Home) -> AgentSpec:
    """Put everything in place that an install does, but for the service manager."""
    environ = {"HOME": str(home.state.parent), "MLXD_HOME": str(home.state.parent), "PATH": "/strange"}
    spec = describe(home, environ=environ, platform="darwin")
    for folder in (spec.state, spec.logs):
        private_folder(folder, uid=os.getuid())
    write_file(spec.launcher, launcher_text(spec.program).encode(), mode=0o700)
    return spec


def spawned(spec: AgentSpec, *before: str) -> subprocess.Popen[bytes]:
    """Start the service as launchd does: its environment and no other, its folder, its umask, output to its files."""
    with (spec.logs / "agent.out").open("ab") as out, (spec.logs / "agent.err").open("ab") as err:
        return subprocess.Popen(
            [*before, str(spec.launcher), *spec.arguments],
            env={**spec.full_environment, **MEASURING},
            cwd=spec.state,
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


def answering(client: Client, process: subprocess.Popen[bytes], spec: AgentSpec) -> int:
    """Wait until the daemon answers, and return its pid."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, (spec.logs / "agent.err").read_text()
        try:
            return client.health().pid
        except DaemonUnreachable:
            time.sleep(0.02)  # another process gives no signal to wait on
    raise AssertionError((spec.logs / "agent.err").read_text())


def told_ready(home: Home) -> None:
    """Wait until the log says so: the first answer may come before the line."""
    deadline = time.monotonic() + PATIENCE
    while "ready" not in (text := log_file(home).read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


def test_the_launcher_starts_a_daemon_that_stops_with_0(home: Home) -> None:
    """Without a shell's environment the daemon comes up as the launcher's process, logs to its file, ends with 0.

    0 is what tells launchd and systemd to leave it down; any other end is followed by a new start.
    """
    spec = installed(home)
    process = spawned(spec)
    try:
        assert answering(Client(home.socket), process, spec) == process.pid
        told_ready(home)
        assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
    assert status == 0
    assert (spec.logs / "agent.err").read_text() == ""


def test_a_wrong_configuration_does_not_make_it_start_for_ever(home: Home) -> None:
    """Under a service manager a mistake is no reason to end: the daemon serves with the defaults and says so."""
    spec = installed(home)
    home.config.write_text("[memory]\nbudgit = 1\n")
    process = spawned(spec)
    try:
        client = Client(home.socket)
        answering(client, process, spec)
        assert any("budgit" in problem for problem in client.health().problems)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def test_a_newer_ledger_is_told_in_the_log(home: Home) -> None:
    """A daemon that cannot start says why where `mlxd logs` looks, and ends so that launchd tries again later."""
    spec = installed(home)
    with closing(sqlite3.connect(home.ledger)) as connection:
        connection.execute("PRAGMA user_version = 99")
    status = spawned(spec).wait(PATIENCE)

    assert status > 0
    assert "newer mlxd" in log_file(home).read_text()
    assert "newer mlxd" in (spec.logs / "agent.err").read_text()


@pytest.mark.skipif(not ACTIVATE, reason="systemd-socket-activate is not installed")
def test_the_first_request_starts_the_daemon(home: Home) -> None:
    """The service manager holds the socket: nothing runs until somebody connects, and then that request is answered."""
    spec = installed(home)
    # Hands over the socket and becomes the service, as systemd does for a socket unit.
    passed = [f"--setenv={name}={value}" for name, value in {**spec.full_environment, **MEASURING}.items()]
    process = spawned(spec, ACTIVATE, f"--listen={spec.socket}", "--fdname=http", *passed)
    try:
        deadline = time.monotonic() + PATIENCE
        while not spec.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # another process gives no signal to wait on
        assert not log_file(home).exists()
        inode = spec.socket.stat().st_ino
        assert Client(home.socket).health().pid == process.pid
        # The socket stays the service manager's: the daemon made no other one, and leaves it when it ends.
        assert spec.socket.stat().st_ino == inode
        assert psutil.Process(process.pid).children() == []
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
    assert status == 0
    assert spec.socket.exists()
