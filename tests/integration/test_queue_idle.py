"""An idle queue does nothing, and starts a job at once all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Runs apart, so that no thread of another test is measured.
CHILD = """
import json, sys, threading, time
from pathlib import Path
from jobs.model import Lane
from jobs.queue import JobQueue

def switches():
    total = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total

started, moments = threading.Semaphore(0), []

def execute(job_id, lane):
    moments.append(time.perf_counter())
    started.release()

queue = JobQueue(Path(sys.argv[1]), execute, workers={Lane.INTERACTIVE: 8, Lane.NORMAL: 8, Lane.BATCH: 4})
queue.start()
delays = []
for number in range(400):
    put = time.perf_counter()
    queue.put(f"job{number}", lane=list(Lane)[number % 3])
    started.acquire()
    delays.append(moments[-1] - put)

queue.put("last")
started.acquire()
before = switches()
time.sleep(1.0)  # the window of the measurement itself
idle = switches() - before
threads = threading.active_count()
stopped = queue.stop(10)
print(json.dumps({"p99": sorted(delays)[-5], "idle": idle, "threads": threads, "stopped": stopped}))
"""


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="counts context switches in /proc")
def test_an_idle_queue_sleeps_and_wakes_at_once(tmp_path: Path) -> None:
    """Twenty idle workers wake not once a second; a hint reaches its worker in under 20 ms at the 99th percentile."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "queue.sqlite3")]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=50).stdout)
    assert told["threads"] == 21
    # The last worker going back to sleep, and the measuring thread itself.
    assert told["idle"] <= 5
    assert told["p99"] < 0.020
    assert told["stopped"]
