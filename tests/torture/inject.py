"""Disks that fail: system calls of a living daemon are made to fail by strace, small disks are filled and locked.

Both need rights that not every machine gives; `strace_works` and `mounts_work` say so, and whoever asks has to say so
in turn. Nothing here knows mlxd.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

from torture.privileges import obey_permissions
from torture.stillness import held_still

_ATTACHED: Final = re.compile(rb"Process \d+ attached")
_INJECTED: Final = "(INJECTED)"
#: Seconds that strace gets to attach to all threads, or to let go of them.
_PATIENCE: Final = 20.0
#: linux/prctl.h; CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH (linux/capability.h).
_PR_CAPBSET_DROP: Final = 24
_OVERRIDES: Final = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """System calls that fail; *when* counts in each thread for itself, as strace does."""

    #: Names with commas between; one with "?" before it may be unknown to this processor ("?rename,?renameat").
    calls: str
    #: "EIO", "ENOSPC", ...
    error: str
    #: "3": the third one; "1+": all of them; "2+5": the second and every fifth after it.
    when: str = "1+"

    @property
    def options(self) -> list[str]:
        """Return it as strace wants it."""
        plain = self.calls.replace("?", "")
        found = ",".join(name for name in plain.split(",") if _known(name))
        return ["-e", f"trace={found}", "-e", f"inject={found}:error={self.error}:when={self.when}"]


class Strace:
    """Makes the system calls of the process *pid* fail as *fault* says, from entering to leaving; notes go to *log*."""

    def __init__(self, pid: int, fault: Fault, *, log: Path) -> None:
        self._pid, self._log = pid, log
        self._command = [_program("strace"), "-f", "-e", "signal=none", "-o", str(log), *fault.options, "-p", str(pid)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def injected(self) -> int:
        """Return how many calls have failed; strace writes a call down when it is over."""
        try:
            return self._log.read_text(errors="replace").count(_INJECTED)
        except FileNotFoundError:
            return 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._process.stderr is not None
        said = b""
        while not _ATTACHED.search(said):
            line = self._process.stderr.readline()
            if not line:
                self._process.communicate()
                raise RuntimeError(f"strace could not attach: {said.decode(errors='replace')}")
            said += line
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with held_still(self._pid, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()


class Disk:
    """A tmpfs of *size* bytes at *path* (made if need be): it can be filled, and made read-only. Unmounted at the end.

    What is on the place already comes along, and what is there at the end stays.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._size = size
        self._ballast = path / ".ballast"

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as aside:
            _copy(self.path, Path(aside))
            mode = f"{self.path.stat().st_mode & 0o777:o}"
            _mount("-t", "tmpfs", "-o", f"size={self._size},mode={mode}", "tmpfs", str(self.path))
            _copy(Path(aside), self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
        with tempfile.TemporaryDirectory(dir=self.path.parent) as aside:
            _copy(self.path, Path(aside))
            # Lazily: whoever still has a file open there must not keep the campaign from cleaning up.
            subprocess.run([_program("umount"), "--lazy", str(self.path)], check=False, capture_output=True)
            _copy(Path(aside), self.path)

    def fill(self, *, leave: int = 0) -> None:
        """Leave nobody more than about *leave* bytes; several can fill it one after the other."""
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for chunk in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file, bytes(chunk))
            if leave:
                os.ftruncate(file, max(0, os.fstat(file).st_size - leave))
        finally:
            os.close(file)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def lock(self) -> None:
        """Make it read-only; `OSError` while somebody has a file there open for writing."""
        _mount("-o", "remount,ro", str(self.path))

    def unlock(self) -> None:
        """Make it writable again."""
        _mount("-o", "remount,rw", str(self.path))


def _copy(source: Path, target: Path) -> None:
    def sockets(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder, name).is_socket()]

    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True, ignore=sockets)


def _mount(*arguments: str) -> None:
    done = subprocess.run([_program("mount"), *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())


@cache
def mounts_work() -> bool:
    """Tell whether this process may mount a tmpfs."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder) / "disk", 1 << 16):
                return True
        except OSError:
            return False


@cache
def strace_works() -> bool:
    """Tell whether strace is here and may make another process's system calls fail."""
    if shutil.which("strace") is None:
        return False
    victim = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; sys.stdin.read(1); os.fsync(os.open('/tmp', 0))"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Strace(victim.pid, Fault(calls="fsync", error="EIO"), log=Path(folder) / "log"):
                victim.communicate(b"x", timeout=_PATIENCE)
                return victim.returncode != 0
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        finally:
            victim.kill()
            victim.wait()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise OSError(f"There is no {name} here.")
    return found


@cache
def _known(call: str) -> bool:
    """Tell whether strace knows the system call *call* on this processor (arm64 has neither `link` nor `rename`)."""
    asked = subprocess.run([_program("strace"), "-e", f"trace={call}", "true"], check=False, capture_output=True)
    return asked.returncode == 0


def ordinary_user() -> str:
    """Give up root's right to read and write everything, also for programs started from here; say how it was done.

    `obey_permissions` is for this thread alone: without the bounding set a program run by root has every right again.
    """
    said = obey_permissions()
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in _OVERRIDES:
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")
    return said


def limit_files(pid: int, most: int | None) -> None:
    """Let the process *pid* write files of at most *most* bytes (None: any): short writes, then EFBIG."""
    import resource

    unlimited = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited if most is None else most, unlimited))


def until(done: Callable[[], object], timeout: float) -> float | None:
    """Call *done* until it is true; return the seconds that took, None after *timeout* of them."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > timeout:
            return None
        time.sleep(0.02)
    return time.monotonic() - began
