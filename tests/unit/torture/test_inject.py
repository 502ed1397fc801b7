"""The campaign's failing disks: what they do fails as it says, and nothing else."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from torture import disk_sabotage
from torture.inject import Disk, Fault, Strace, limit_files, mounts_work, strace_works, until

#: Waits for a line, then syncs a file three times and says what came of it.
_VICTIM = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
sys.stdin.readline()
for _ in range(3):
    try:
        os.write(file, b"x" * 8192)
        os.fsync(file)
        print("ok")
    except OSError as error:
        print(error.errno)
"""


def victim(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _VICTIM, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not strace_works(), reason="strace is not here, or may not attach")
def test_the_chosen_call_fails_and_no_other(tmp_path: Path) -> None:
    """Of three syncs the second fails, and the note of it is counted; afterwards the process goes on as before."""
    with victim(tmp_path / "file") as process:
        with Strace(process.pid, Fault(calls="fsync", error="EIO", when="2"), log=tmp_path / "log") as strace:
            said, _ = process.communicate("go\n", timeout=30)
        assert strace.injected == 1
    assert said.split() == ["ok", str(errno.EIO), "ok"]


#: Opens files on several threads, says so, and when its input ends which errors it has seen.
_BUSY = """
import os, sys, threading
seen, over = set(), threading.Event()
def work():
    while not over.is_set():
        try:
            os.close(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            seen.add(error.errno)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(*sorted(seen))
"""


@pytest.mark.skipif(not strace_works(), reason="strace is not here, or may not attach")
def test_a_process_is_let_go_between_two_calls(tmp_path: Path) -> None:
    """Who is let go in the middle of a call that was to fail would see an error that no disk has."""
    command = [sys.executable, "-c", _BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"  # what it needs for itself must not fail
        for number in range(12):
            with Strace(process.pid, Fault(calls="openat", error="EIO"), log=tmp_path / f"{number}") as strace:
                until(lambda strace=strace: strace.injected, 10.0)
        said, _ = process.communicate("", timeout=30)
    assert said.split() == [str(errno.EIO)]


@pytest.mark.skipif(not strace_works(), reason="strace is not here, or may not attach")
def test_calls_that_a_processor_lacks_are_left_out() -> None:
    """Not every processor has `rename` or `link`; strace would refuse to start over a name that it does not know."""
    options = Fault(calls="?no_such_call,fsync", error="EIO").options
    assert options == ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1+"]


@pytest.mark.skipif(not strace_works(), reason="strace is not here, or may not attach")
def test_a_process_that_is_gone_is_said(tmp_path: Path) -> None:
    """A fault that cannot be set must not pass for one that did no harm."""
    process = victim(tmp_path / "file")
    process.communicate("go\n", timeout=30)
    with (
        pytest.raises(RuntimeError, match="could not attach"),
        Strace(process.pid, Fault(calls="fsync", error="EIO"), log=tmp_path / "log"),
    ):
        pass


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """Under a limit a write is cut short, and the next one fails."""
    with victim(tmp_path / "file") as process:
        limit_files(process.pid, 12000)
        said, _ = process.communicate("go\n", timeout=30)
    assert said.split() == ["ok", "ok", str(errno.EFBIG)]
    assert (tmp_path / "file").stat().st_size == 12000


@pytest.mark.skipif(not mounts_work(), reason="mounting is not allowed here")
def test_a_disk_is_filled_freed_and_locked(tmp_path: Path) -> None:
    """A full disk takes nothing, a freed one does, a locked one does not; what lies there survives it."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    (place / "before").write_text("x")
    with Disk(place, 1 << 20) as disk:
        assert (place.stat().st_mode & 0o777, (place / "before").read_text()) == (0o700, "x")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (place / "more").write_bytes(bytes(1 << 16))
        disk.free()
        (place / "more").write_bytes(bytes(1 << 16))
        disk.fill(leave=1 << 15)
        disk.free()
        disk.lock()
        with pytest.raises(OSError, match="Read-only"):
            (place / "locked").touch()
        disk.unlock()
        (place / "after").write_text("y")
    assert ((place / "after").read_text(), (place / "more").stat().st_size) == ("y", 1 << 16)


def test_waiting_has_an_end() -> None:
    """What never comes is told by None, after the time that was given."""
    assert until(lambda: True, 1.0) is not None
    assert until(lambda: False, 0.05) is None


def test_sabotage_still_fits_the_program() -> None:
    """What the controls replace exists: a control that breaks nothing would pass for a defence that holds."""
    from daemon.service import Service
    from jobs import files
    from jobs.database import Database

    assert callable(Database._writer)
    assert callable(Database._remembered)
    assert callable(Service.submit)
    assert callable(Service.submit_all)
    assert files._PASSING
    compile(
        disk_sabotage.plugin(*(getattr(disk_sabotage, name) for name in ("UNSYNCED", "BRAVE", "GLOOMY", "HARSH"))),
        "plugin",
        "exec",
    )
