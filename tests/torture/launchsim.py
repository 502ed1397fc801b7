"""launchd for one job, on any system: reads the property list that mlxd generates, and does what launchd does with it.

A thread of its own starts the job, waits for its end and decides by the property list what follows. Where launchd is
documented or its source (842) is known, this does the same: `tests/unit/torture/test_launchsim.py`, rule by rule.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from torture.launchspec import LaunchSpec, respawn_delay, restarts


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How one life of the job ended."""

    #: Exit status, or the negative number of the signal that ended it.
    status: int
    #: The process that ended, and the leader of its group.
    pid: int
    #: `time.monotonic` of the end.
    at: float
    lived_s: float
    #: Whether it did not end within ExitTimeOut after a SIGTERM of the supervisor's.
    by_kill_after_timeout: bool
    #: Living processes of its group that it left behind; they got a SIGTERM.
    leftovers: int
    #: Whether a SIGTERM of the supervisor's came while the program did not catch it: at its very start, or very end.
    asked_while_deaf: bool = False


class Supervisor:
    """Keeps the job of *plist* as launchd would; a context manager: `start` at the beginning, `stop` at the end.

    *environ* is added to the job's environment: for faults only. *throttle_s* stands in for ThrottleInterval: the
    campaigns kill a job a thousand times and set 0, because launchd's ten seconds between two short lives would only
    stretch them. *pause* is what waits for that time, *clock* what measures lives; the tests of the rules replace both.
    """

    def __init__(
        self,
        plist: Path,
        *,
        environ: Mapping[str, str] | None = None,
        throttle_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.spec = LaunchSpec.read(plist)
        #: May be changed between two starts.
        self.environ = dict(environ or {})
        self._throttle_s = self.spec.throttle_s if throttle_s is None else throttle_s
        self._clock = clock
        self._pause = pause or self._wait_unloading
        self._changed = threading.Condition()  # guards all that follows
        self._loaded = self._suspended = self._overdue = False
        self._pid: int | None = None
        self._deaf: int | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        #: `time.monotonic` of each start, and each end; only ever appended to.
        self.spawns: list[float] = []
        self.exits: list[Exit] = []
        #: Why starts failed; launchd says so only in the system's log.
        self.complaints: list[str] = []

    @property
    def pid(self) -> int | None:
        """Return the job's process while it lives."""
        return self._pid

    def start(self) -> None:
        """Load the job (``launchctl bootstrap``): bind its sockets, and start it if it is to run at load."""
        with self._changed:
            if self._loaded:
                raise RuntimeError("It is loaded already.")
            self._loaded = True
            self._sockets = self.spec.bind()
        self._thread = threading.Thread(target=self._keep, name="launchsim", daemon=True)
        self._thread.start()

    def stop(self) -> Exit | None:
        """Unload the job (``launchctl bootout``), waiting for its end; return that, None if it never ran.

        As launchd does, leave the socket's file behind.
        """
        with self._changed:
            self._loaded = False
            self._tell()
        self._end_job()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for sock in self._sockets.values():
            sock.close()
        self._sockets = {}
        return self.exits[-1] if self.exits else None

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send *sig* to the job's process alone, if it lives; what follows is up to the property list."""
        with self._changed:
            if self._pid is None:
                return
            if sig == signal.SIGTERM and not catches(self._pid, sig):
                self._deaf = self._pid
            os.kill(self._pid, sig)

    def suspend(self) -> None:
        """Start nothing until `resume`; a job that runs goes on."""
        with self._changed:
            self._suspended = True
            self._tell()

    def resume(self) -> None:
        """Start what would have been started meanwhile."""
        with self._changed:
            self._suspended = False
            self._tell()

    def wait_spawn(self, count: int, timeout: float = 30.0) -> bool:
        """Wait until the job has been started *count* times in all."""
        return self._wait(lambda: len(self.spawns) >= count, timeout)

    def wait_exit(self, count: int, timeout: float = 30.0) -> bool:
        """Wait until the job has ended *count* times in all."""
        return self._wait(lambda: len(self.exits) >= count, timeout)

    def close(self) -> None:
        """Stop, and give the last descriptors back."""
        self.stop()
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        wanted = self.spec.at_load
        while self._may_start(wanted=wanted):
            try:
                pid, began = self._spawn()
            except OSError as error:
                self.complaints.append(f"The job was not started: {error}")
                return
            ended = self._reap(pid, began)
            wanted = restarts(self.spec.keys.get("KeepAlive"), ended.status)
            if delay := respawn_delay(ended.lived_s, self._throttle_s):
                self._pause(delay)

    def _may_start(self, *, wanted: bool) -> bool:
        """Wait until the job is *wanted*, or asked for by a client, and not held back; False when it was unloaded."""
        while True:
            with self._changed:
                if not self._loaded:
                    return False
                if wanted and not self._suspended:
                    return True
                asked = () if self._suspended else tuple(self._sockets.values())
            ready, _, _ = select.select([self._wake_read, *asked], [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            wanted |= any(sock in ready for sock in asked)

    def _spawn(self) -> tuple[int, float]:
        with self._changed:
            began = self._clock()
            self.spawns.append(time.monotonic())
            self._pid = self.spec.start(self._sockets, self.environ)
            self._overdue = False
            self._changed.notify_all()
            return self._pid, began

    def _reap(self, pid: int, began: float) -> Exit:
        """Wait for the job's end, and send a SIGTERM to what it leaves behind in its process group."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # still there: nobody else can get its number
        at, lived = time.monotonic(), self._clock() - began
        left = group({pid})
        if left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        with self._changed:
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            ended = Exit(
                status=code,
                pid=pid,
                at=at,
                lived_s=lived,
                by_kill_after_timeout=self._overdue,
                leftovers=len(left),
                asked_while_deaf=self._deaf == pid,
            )
            self._pid = None
            self.exits.append(ended)
            self._changed.notify_all()
            return ended

    # -- small change -----------------------------------------------------------------------------------------------

    def _end_job(self) -> None:
        self.kill(signal.SIGTERM)
        if not self._wait(lambda: self._pid is None, self.spec.exit_timeout_s):
            self._overdue = True
            self.kill(signal.SIGKILL)

    def _wait(self, done: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(done, timeout)

    def _wait_unloading(self, seconds: float) -> None:
        self._wait(lambda: not self._loaded, seconds)

    def _tell(self) -> None:
        os.write(self._wake_write, b"!")
        self._changed.notify_all()


def catches(pid: int, sig: int) -> bool:
    """Tell whether the process *pid* has a handler for *sig*; where there is no ``/proc`` to ask, that it has."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return True
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return bool(caught >> (sig - 1) & 1)


def group(leaders: Collection[int]) -> list[int]:
    """Return the living processes of the process groups of *leaders*, without the leaders themselves."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if (
                pid not in leaders
                and os.getpgid(pid) in leaders
                and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            ):
                found.append(pid)
    return found
