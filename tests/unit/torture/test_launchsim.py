"""The stand-in for launchd does what launchd's manual and source say, rule by rule."""

from __future__ import annotations

import os
import plistlib
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest
from torture.launchsim import Supervisor, group
from torture.launchspec import LaunchSpec, respawn_delay, restarts


@pytest.fixture
def folder():
    """A folder with a short path: a socket's has to fit."""
    path = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def job(folder):
    """Writes a property list whose program is a shell script; returns its path."""

    def write(script: str, **keys) -> Path:
        program = folder / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
        described = {"Label": "test.job", "ProgramArguments": [str(program)], "WorkingDirectory": str(folder), **keys}
        path = folder / "test.job.plist"
        path.write_bytes(plistlib.dumps(described))
        return path

    return write


def until(true, patience=20.0):
    """Wait until *true* says so."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("keep_alive", "status", "again"),
    [
        ({"SuccessfulExit": False}, 0, False),
        ({"SuccessfulExit": False}, 1, True),
        ({"SuccessfulExit": False}, -9, True),
        ({"SuccessfulExit": False}, -15, True),
        ({"SuccessfulExit": True}, 0, True),
        ({"SuccessfulExit": True}, -9, False),
        (True, 0, True),
        (False, 1, False),
        (None, 1, False),
    ],
)
def test_keep_alive_decides_by_the_exit(keep_alive, status, again):
    """SuccessfulExit false restarts after everything but an exit with 0; jetsam's SIGKILL counts as no success."""
    assert restarts(keep_alive, status) is again


def test_throttle_is_what_is_missing_to_a_life():
    """A job that lived shorter than ThrottleInterval waits for the rest of it; one that lived longer does not."""
    assert respawn_delay(3.0, 10.0) == 7.0
    assert respawn_delay(10.0, 10.0) == 0.0
    assert respawn_delay(3000.0, 10.0) == 0.0


def test_a_job_killed_early_waits_for_its_throttle(job):
    """The supervisor asks for just the rest of the interval, by its own clock."""
    seconds = iter([100.0, 104.0, 200.0, 260.0, 300.0, 301.0])
    pauses: list[float] = []
    plist = job("exit 1", RunAtLoad=True, KeepAlive={"SuccessfulExit": False}, ThrottleInterval=10)
    with Supervisor(plist, clock=lambda: next(seconds, 1e6), pause=pauses.append) as supervisor:
        assert supervisor.wait_exit(3)
    assert pauses[:2] == [6.0, 9.0]  # the second life was long enough


def test_the_default_throttle_is_ten_seconds(job):
    """Without ThrottleInterval the documented default counts, and ExitTimeOut's is twenty."""
    spec = LaunchSpec.read(job("exit 0"))
    assert (spec.throttle_s, spec.exit_timeout_s) == (10.0, 20.0)


def test_it_runs_again_after_a_kill_and_not_after_success(job):
    """KILL is followed by another start, an exit with 0 by none."""
    plist = job("[ -e again ] && exit 0; touch again; sleep 60", RunAtLoad=True, KeepAlive={"SuccessfulExit": False})
    with Supervisor(plist, throttle_s=0) as supervisor:
        until((plist.parent / "again").exists)
        supervisor.kill(signal.SIGKILL)
        assert supervisor.wait_exit(2)
        assert not supervisor.wait_spawn(3, timeout=0.2)
        assert [one.status for one in supervisor.exits] == [-9, 0]
        assert supervisor.pid is None


def test_a_client_starts_a_job_that_is_down(job, folder):
    """With Sockets, launchd holds the door: whoever connects has the job started."""
    path = folder / "s.sock"
    plist = job("exit 0", Sockets={"http": {"SockPathName": str(path), "SockPathMode": 0o600}})
    with Supervisor(plist, throttle_s=0.2) as supervisor:
        assert not supervisor.wait_spawn(1, timeout=0.1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert supervisor.wait_spawn(1)


def test_suspended_it_starts_nothing(job):
    """Between suspend and resume no end is followed by a start."""
    plist = job("exec sleep 60", RunAtLoad=True, KeepAlive={"SuccessfulExit": False})
    with Supervisor(plist, throttle_s=0) as supervisor:
        assert supervisor.wait_spawn(1)
        supervisor.suspend()
        supervisor.kill()
        assert supervisor.wait_exit(1)
        assert not supervisor.wait_spawn(2, timeout=0.1)
        supervisor.resume()
        assert supervisor.wait_spawn(2)


def test_stop_is_a_term(job):
    """A job that ends on SIGTERM is not killed."""
    plist = job("trap 'exit 0' TERM; touch up; while :; do sleep 0.01; done", RunAtLoad=True)
    with Supervisor(plist) as supervisor:
        until((plist.parent / "up").exists)
        ended = supervisor.stop()
    assert ended is not None
    assert (ended.status, ended.by_kill_after_timeout) == (0, False)


@pytest.mark.parametrize(("hears", "deaf"), [("trap 'exit 0' TERM", False), ("", True)])
def test_a_stop_that_could_not_be_heard_is_told_apart(job, folder, hears, deaf):
    """A job without a handler ends by the signal itself; whether it had one is looked up as the signal is sent."""
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc here")
    plist = job(f"{hears}\n: > '{folder}/up'\nwhile :; do sleep 0.01; done", RunAtLoad=True)
    with Supervisor(plist, throttle_s=0) as supervisor:
        until((folder / "up").exists)
        ended = supervisor.stop()
    assert (ended.status, ended.asked_while_deaf) == ((-signal.SIGTERM, True) if deaf else (0, False))


def test_a_deaf_job_is_killed_after_its_time(job):
    """Whoever ignores SIGTERM gets SIGKILL after ExitTimeOut, and the exit says so."""
    plist = job("trap '' TERM; touch up; while :; do sleep 0.01; done", RunAtLoad=True, ExitTimeOut=1)
    with Supervisor(plist) as supervisor:
        until((plist.parent / "up").exists)
        began = time.monotonic()
        ended = supervisor.stop()
    assert ended is not None
    assert (ended.status, ended.by_kill_after_timeout) == (-9, True)
    assert time.monotonic() - began >= 1.0


def test_leftovers_of_the_group_get_a_term(job):
    """What the job leaves behind in its process group is counted and told to end; an escaped process is neither."""
    python = sys.executable
    # The shell makes the file itself: a `touch` would be one more of the group for a moment after its file is there.
    plist = job(
        f"sleep 60 & echo $! > child; {python} -c 'import os, time; os.setsid(); print(os.getpid(), flush=True); "
        "time.sleep(60)' > escaped & while [ ! -s escaped ]; do sleep 0.01; done; : > up; wait",
        RunAtLoad=True,
    )
    with Supervisor(plist, throttle_s=0) as supervisor:
        until((plist.parent / "up").exists)
        pid = supervisor.pid
        assert pid is not None
        supervisor.kill()
        assert supervisor.wait_exit(1)
        assert supervisor.exits[0].leftovers == 1
        escaped = int((plist.parent / "escaped").read_text())
        until(lambda: not group({pid}))
        os.kill(escaped, signal.SIGKILL)  # it was there


def test_the_environment_is_launchds_and_the_property_lists(job, folder, monkeypatch):
    """Nothing of ours comes through; values that are no strings are ignored; the fault's variables are added."""
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "1")
    plist = job("env > seen.tmp; mv seen.tmp seen", RunAtLoad=True, EnvironmentVariables={"OURS": "a b", "NUMBER": 7})
    with Supervisor(plist, environ={"FAULT": "x"}) as supervisor:
        until((folder / "seen").exists)
        assert supervisor.pid is None or supervisor.wait_exit(1)
    seen = dict(line.split("=", 1) for line in (folder / "seen").read_text().splitlines())
    assert seen["PATH"] == "/usr/bin:/bin:/usr/sbin:/sbin"
    assert (seen["OURS"], seen["FAULT"], seen["XPC_SERVICE_NAME"]) == ("a b", "x", "test.job")
    assert set(seen) <= {
        "PATH",
        "OURS",
        "FAULT",
        "XPC_SERVICE_NAME",
        "XPC_FLAGS",
        "LISTEN_PID",
        "PWD",
        "OLDPWD",
        "_",
        "SHLVL",
    }


def test_folder_mask_limit_and_output_are_the_property_lists(job, folder):
    """WorkingDirectory, Umask (decimal in the file), the soft limit of files, and output that is appended to."""
    (folder / "out").write_text("before\n")
    plist = job(
        "pwd; umask; ulimit -n; echo trouble >&2; exit 0",
        RunAtLoad=True,
        Umask=0o077,
        SoftResourceLimits={"NumberOfFiles": 300},
        StandardOutPath=str(folder / "out"),
        StandardErrorPath=str(folder / "err"),
    )
    with Supervisor(plist) as supervisor:
        assert supervisor.wait_exit(1)
    assert (folder / "out").read_text().split() == ["before", str(folder), "0077", "300"]
    assert (folder / "err").read_text() == "trouble\n"


def test_output_that_cannot_be_opened_means_no_start(job, folder):
    """No start, and only the log of launchd would say so: it starts nothing."""
    plist = job("exit 0", RunAtLoad=True, StandardOutPath=str(folder / "no" / "out"))
    with Supervisor(plist) as supervisor:
        until(lambda: supervisor.complaints)
        assert not supervisor.exits


def test_the_socket_is_bound_beforehand_with_its_mode(job, folder):
    """The job finds a listening socket as its descriptor 3, told of by LISTEN_FDS; a dead one gives way."""
    path = folder / "s.sock"
    path.write_text("left behind")
    plist = job(
        'echo "$LISTEN_FDS $LISTEN_PID $$ $LISTEN_FDNAMES" > told; [ -S /dev/fd/3 ] && echo socket: >> told; touch up; '
        "exec sleep 60",
        RunAtLoad=True,
        Sockets={"http": {"SockPathName": str(path), "SockPathMode": 0o600}},
    )
    with Supervisor(plist, throttle_s=0) as supervisor:
        until((folder / "up").exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        count, said, own, name, target = (folder / "told").read_text().split()
        assert (count, said, name) == ("1", own, "http")  # the pid of the program itself
        assert target.startswith("socket:")
        supervisor.kill()
    assert path.exists()  # launchd does not remove it


def test_a_path_too_long_for_a_mac_is_cut(job, folder):
    """A Mac has room for 103 bytes; launchd binds what fits and says nothing."""
    path = folder / ("x" * (110 - len(str(folder))))
    spec = LaunchSpec.read(job("exit 0", Sockets={"http": {"SockPathName": str(path), "SockPathMode": 0o600}}))
    bound = spec.bind()
    assert len(bound["http"].getsockname()) == 103
    assert not path.exists()
    bound["http"].close()


def test_a_socket_that_cannot_be_bound_is_left_out(job, folder):
    """Its folder is missing: launchd starts the job without it."""
    keys = {"http": {"SockPathName": str(folder / "no" / "s.sock"), "SockPathMode": 0o600}}
    assert LaunchSpec.read(job("exit 0", Sockets=keys)).bind() == {}
