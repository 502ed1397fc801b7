"""Keeps the machine from falling asleep by itself while a job runs that asked for it, and not a second longer.

Who asks is the lane: ``[lanes.<lane>] keep_awake = true``. One helper process holds the assertion for all its jobs:
it is started with the first and ended with the last. It ends with the daemon too, however that ends: ``caffeinate -w``
watches our process, and on Linux the inhibitor lasts as long as a ``cat`` that reads from a pipe of ours.

Closing the lid, the menu's Sleep and an empty battery are not held off.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Final, Protocol

from jobs.model import Job

log = logging.getLogger(__name__)

#: Seconds that the helper gets to end after it was asked to.
_PATIENCE: Final = 2.0


class Helper(Protocol):
    """The started process: what is used of `subprocess.Popen`."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe, if there is one."""

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""


def command(system: str = sys.platform, *, pid: int | None = None) -> tuple[str, ...] | None:
    """Return the command that holds off idle sleep on *system*, None where there is none. *pid*: ours."""
    if system == "darwin":
        return "/usr/bin/caffeinate", "-i", "-w", str(os.getpid() if pid is None else pid)
    if system == "linux":
        what = ("--what=idle", "--who=mlxd", "--why=A job is running", "--mode=block")
        return "/usr/bin/systemd-inhibit", *what, "/bin/cat"
    return None


def spawn(argv: Sequence[str]) -> Helper:
    """Start the helper; its standard input is a pipe that closes when we end."""
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Awake:
    """*asked* tells whether a job wants the machine awake. Any thread may enter `during`."""

    def __init__(
        self,
        asked: Callable[[Job], bool],
        *,
        argv: Sequence[str] | None = None,
        spawn: Callable[[Sequence[str]], Helper] = spawn,
    ) -> None:
        self._asked = asked
        self._argv = command() if argv is None else argv
        self._spawn = spawn
        self._lock = threading.Lock()
        self._jobs = 0
        self._helper: Helper | None = None
        self._complained = False

    @contextmanager
    def during(self, job: Job) -> Iterator[None]:
        """Keep the machine awake for the block, if *job* asked for it."""
        if not self._asked(job):
            yield
            return
        with self._lock:
            self._jobs += 1
            if self._helper is None or self._helper.poll() is not None:
                self._helper = self._start()
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1
                if self._jobs == 0:
                    self._end()

    def close(self) -> None:
        """End the helper whatever still runs: the daemon stops."""
        with self._lock:
            self._end()

    def _start(self) -> Helper | None:
        """Start the helper; where that cannot be done the job runs all the same."""
        if self._argv is not None:
            with suppress(OSError):
                return self._spawn(self._argv)
        if not self._complained:
            self._complained = True
            missing = self._argv[0] if self._argv else "a command for it"
            log.warning("Idle sleep cannot be held off: no %s.", missing, extra={"action": "awake_failed"})
        return None

    def _end(self) -> None:
        helper, self._helper = self._helper, None
        if helper is None:
            return
        if helper.stdin is not None:
            with suppress(OSError):
                helper.stdin.close()
        helper.terminate()
        try:
            helper.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()
