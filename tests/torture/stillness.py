"""Holding a traced process still, so that its tracer can let go of it between two system calls and not within one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

#: Seconds after which the tracer is told to go whatever the process does: it may be dead, or deep in its disk.
_PATIENCE_S = 2.0
#: How often in a row everything has to be seen at rest.
_LOOKS = 3


@contextlib.contextmanager
def held_still(pid: int, tracer: int) -> Iterator[None]:
    """Stop the process *pid* and its children until the block ends, when their system calls are over.

    A system call that strace makes fail is first turned into one that there is not, and gets its error when it is over.
    Who is let go in between sees ENOSYS, which no disk ever says. A stopped process is between two calls, as soon as
    the *tracer* has nothing more to do for it.
    """
    stopped = [one for one in _tree(pid) if _send(one, signal.SIGSTOP)]
    deadline, looks = time.monotonic() + _PATIENCE_S, 0
    while looks < _LOOKS and time.monotonic() < deadline:
        looks = looks + 1 if _states(tracer) <= {"S"} and all(_states(one) <= {"T", "t"} for one in stopped) else 0
        time.sleep(0.005)
    try:
        yield
    finally:
        for one in stopped:
            _send(one, signal.SIGCONT)


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _send(pid: int, what: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)
        return True
    return False


def _states(pid: int) -> set[str]:
    """Return the states of the process's threads, as proc(5) names them; none of one that is gone."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            found.add(thread.read_text().rpartition(")")[2].split()[0])
    return found
