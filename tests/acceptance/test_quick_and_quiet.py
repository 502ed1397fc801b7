"""An idle daemon is small and still, and starts a job at once."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import psutil
import pytest
from fakes_acceptance import SpawnedDaemon

pytestmark = pytest.mark.alone


def voluntary_switches(pid: int) -> dict[str, int]:
    """Return how often each of the process's threads has gone to sleep by itself so far."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended this very moment
            said = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            found[task.name] = int(said["voluntary_ctxt_switches"])
    return found


def test_idle_is_small_and_still(daemon: SpawnedDaemon) -> None:
    """With no model loaded the daemon takes at most 80 MB and wakes less than twice a second."""
    daemon.traced = False
    daemon.start()
    daemon.ok("submit", "noop", "--wait")
    window = 4.0
    before = voluntary_switches(daemon.process.pid)
    time.sleep(window)  # the measurement itself: nothing may happen in this time
    after = voluntary_switches(daemon.process.pid)
    wakeups = sum(count - before.get(thread, 0) for thread, count in after.items()) / window

    assert wakeups < 2, f"{wakeups} wake-ups a second"
    assert psutil.Process(daemon.process.pid).memory_info().rss <= 80 * 2**20


def typical_and_late(daemon: SpawnedDaemon) -> tuple[float, float]:
    """Return the median and the ninth decile of what a hundred jobs wait from acceptance to start, milliseconds."""
    waits = []
    for _ in range(100):
        job = daemon.wait(daemon.client.submit("noop", {})[0].id)
        waits.append((job.started_at - job.created_at).total_seconds() * 1000)
    return statistics.median(waits), statistics.quantiles(waits, n=10)[-1]


def test_jobs_start_at_once(daemon: SpawnedDaemon) -> None:
    """From acceptance to start an idle daemon takes less than 10 ms every other time, and 20 ms nine times in ten."""
    daemon.traced = False
    daemon.start()
    daemon.until(daemon.is_idle, "the daemon to have done what a start leaves to do")
    # A virtual machine's host keeps the processors from it now and then. That can only add to what the program takes,
    # so one hundred in time shows it; a program that is too slow is so in all three.
    hundreds = []
    while len(hundreds) < 3:
        typical, late = typical_and_late(daemon)
        if typical < 10 and late < 20:
            return
        hundreds.append((typical, late))
    pytest.fail(f"median and ninth decile of three hundreds, ms: {hundreds}")
