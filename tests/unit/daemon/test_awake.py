"""Holding off idle sleep: while a job runs that asked for it, and not a second longer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

import pytest

from daemon.awake import Awake, command, spawn
from jobs.model import Job, Lane

ARGV = ("/usr/bin/caffeinate", "-i", "-w", "7")


class FakeHelper:
    """A process that ends when asked, or only when killed."""

    def __init__(self, argv: Sequence[str], *, stubborn: bool = False) -> None:
        self.argv = tuple(argv)
        self.stubborn = stubborn
        self.status: int | None = None
        self.said: list[str] = []
        self.stdin: IO[bytes] | None = None

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.said.append("terminate")
        if not self.stubborn:
            self.status = -15

    def kill(self) -> None:
        self.said.append("kill")
        self.status = -9

    def wait(self, timeout: float | None = None) -> int:
        if self.status is None:
            raise subprocess.TimeoutExpired(self.argv, timeout or 0)
        return self.status


class Spawner:
    """Starts fakes and keeps them."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.started: list[FakeHelper] = []
        self.stubborn = stubborn

    def __call__(self, argv: Sequence[str]) -> FakeHelper:
        self.started.append(FakeHelper(argv, stubborn=self.stubborn))
        return self.started[-1]


def job(lane: Lane = Lane.BATCH) -> Job:
    return Job(task="t", id="aaaaaaaaaa", seq=1, lane=lane, created_at=datetime(2026, 1, 1, tzinfo=UTC))


def awake(spawner: Spawner) -> Awake:
    return Awake(lambda each: each.lane is Lane.BATCH, argv=ARGV, spawn=spawner)


def test_the_commands() -> None:
    """Exactly these, by absolute path; on a Mac it ends with us by our process id, on Linux by its pipe."""
    assert command("darwin", pid=42) == ("/usr/bin/caffeinate", "-i", "-w", "42")
    assert command("linux") == (
        "/usr/bin/systemd-inhibit",
        "--what=idle",
        "--who=mlxd",
        "--why=A job is running",
        "--mode=block",
        "/bin/cat",
    )
    assert command("plan9") is None


def test_held_for_as_long_as_the_job_runs() -> None:
    """The helper is started with the job and ended with it, also when the job raises."""
    spawner = Spawner()
    keeper = awake(spawner)

    def run() -> None:
        with keeper.during(job()):
            assert spawner.started[0].poll() is None
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        run()
    assert [(each.argv, each.said) for each in spawner.started] == [(ARGV, ["terminate"])]


def test_who_does_not_ask_gets_nothing() -> None:
    """A job of another lane starts no helper."""
    spawner = Spawner()
    with awake(spawner).during(job(Lane.NORMAL)):
        assert spawner.started == []


def test_one_helper_for_all() -> None:
    """Jobs that overlap share a helper, which ends with the last of them; a later job starts another."""
    spawner = Spawner()
    keeper = awake(spawner)
    with keeper.during(job()):
        with keeper.during(job()):
            pass
        assert spawner.started[0].poll() is None
    with keeper.during(job()):
        pass
    assert [each.said for each in spawner.started] == [["terminate"], ["terminate"]]


def test_a_helper_that_died_is_replaced() -> None:
    """If somebody ended the helper, the next job starts one."""
    spawner = Spawner()
    keeper = awake(spawner)
    with keeper.during(job()):
        spawner.started[0].status = 1
        with keeper.during(job()):
            assert len(spawner.started) == 2


def test_a_stubborn_helper_is_killed() -> None:
    """A helper that does not end when asked is killed."""
    spawner = Spawner(stubborn=True)
    with awake(spawner).during(job()):
        pass
    assert spawner.started[0].said == ["terminate", "kill"]


def test_the_daemon_s_end_is_the_helper_s() -> None:
    """Closing ends the helper though jobs still run; their own end then does nothing more."""
    spawner = Spawner()
    keeper = awake(spawner)
    with keeper.during(job()):
        keeper.close()
        assert spawner.started[0].said == ["terminate"]
    assert spawner.started[0].said == ["terminate"]


def test_without_the_command_the_job_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Where the command is missing the job runs all the same, and the log says so once."""
    keeper = Awake(lambda _: True, argv=("/no/such/command",))
    for _ in range(2):
        with keeper.during(job()):
            pass
    assert [record.message for record in caplog.records] == ["Idle sleep cannot be held off: no /no/such/command."]


def test_the_pipe_ends_the_helper_with_us() -> None:
    """What is started waits at its standard input, and ends when our end of the pipe is gone, however we went."""
    helper = spawn((sys.executable, "-c", "import sys; sys.stdin.read()"))
    assert helper.poll() is None
    assert helper.stdin is not None
    helper.stdin.close()
    assert helper.wait(20) == 0


def test_threads_share_it() -> None:
    """Entered by many threads at once there is one helper, and afterwards none."""
    spawner = Spawner()
    keeper = awake(spawner)
    inside = threading.Barrier(8)

    def work() -> None:
        with keeper.during(job()):
            inside.wait(10)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [each.said for each in spawner.started] == [["terminate"]]
