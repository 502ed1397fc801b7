"""`python bench/queueing.py`: the queue and the daemon around it, without a model.

Durable submissions of many clients against stock SqliteHuey in the same run; how soon a job starts on an idle daemon;
what an idle daemon costs; how long it and its smallest command take to start.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import storm
from contest import Spread, duel, paired, percentile, timed
from house import House, command, running
from machine import interpreter, path_to_ours
from results import Results, arguments

path_to_ours()

from daemon.cli.client import Client  # noqa: E402 - the checkout has to be found first

#: Seconds after a start until nothing of it is left to be seen in an idle daemon.
SETTLING = 5.0


def submits(results: Results, options: argparse.Namespace) -> None:
    """Compare what 64 clients get acknowledged with what a stock queue takes in and runs."""
    if not results.wants("queue.submits", "queue.jobs"):
        return
    clients, each, workers = options.clients, options.each, options.workers
    with running() as house:
        rounds = range(options.warm + options.rounds)
        pairs = [(storm.ours(house, clients, each), storm.theirs(clients, each, workers)) for _ in rounds][
            options.warm :
        ]
    waits = Spread.of([1000 * mine.p99 for mine, _ in pairs]).text("ms")
    accepted = paired([(mine.submits, other.jobs) for mine, other in pairs])
    note = f"{clients} clients, {each} each; acknowledged within {waits} (p99)"
    entered = Spread.of([other.submits for _, other in pairs])
    results.duel("queue.submits", accepted, unit="/s", note=note, their_submits=entered.median)
    ended = paired([(mine.jobs, other.jobs) for mine, other in pairs])
    results.duel("queue.jobs", ended, unit="/s", note=f"{workers} workers there")


def start(results: Results, options: argparse.Namespace) -> None:
    """Measure from the ledger's own times how long a job waits that nothing keeps waiting."""
    if not results.wants("queue.start"):
        return
    waits = []
    with running() as house:
        client = Client(house.socket)
        for _ in range(options.jobs + 1):
            job = client.wait(client.submit("noop", {})[0].id, timeout=60)
            if job.started_at is None:
                raise SystemExit(f"A tiny job did not run: {job.error}")
            waits.append(1000 * (job.started_at - job.created_at).total_seconds())
    late, usual = percentile(waits[1:], 0.99), percentile(waits[1:], 0.5)
    note = f"median {usual:.1f} ms of {options.jobs} jobs, longest {max(waits[1:]):.1f} ms"
    results.value("queue.start", late, unit="ms", note=note, waits=waits[1:])


def idle(results: Results, options: argparse.Namespace) -> None:
    """Measure a daemon that has nothing to do."""
    if not results.wants("queue.rss", "queue.wakeups"):
        return
    import psutil

    with running() as house:
        Client(house.socket).jobs()  # the whole interface is imported now
        time.sleep(min(SETTLING, options.idle))
        daemon = psutil.Process(house.pid)
        pids = [daemon.pid, *(child.pid for child in daemon.children(recursive=True))]
        before, began = _switches(pids), time.monotonic()
        time.sleep(options.idle)
        after, seconds = _switches(pids), time.monotonic() - began
        megabytes = daemon.memory_info().rss / 1e6
        children = [child.memory_info().rss / 1e6 for child in daemon.children(recursive=True)]
    beside = f"and {sum(children):.0f} MB in {len(children)} children" if children else "no children"
    results.value("queue.rss", megabytes, unit="MB", note=beside)
    if before is not None and after is not None:
        note = f"over {seconds:.0f} s, children included"
        woken = sum(count - before.get(thread, 0) for thread, count in after.items())
        results.value("queue.wakeups", woken / seconds, unit="/s", note=note)
    else:
        print("wake-ups are counted on Linux only; on a Mac `powermetrics --samplers tasks` tells them")


def startup(results: Results, options: argparse.Namespace) -> None:
    """Measure how long a daemon takes to answer, and the smallest command against an interpreter that does nothing."""
    if results.wants("queue.startup"):
        house = House()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, house.home, ignore_errors=True)
            stack.callback(house.stop)
            readings = []
            for _ in range(options.warm + options.rounds):
                readings.append(house.start())
                house.stop()
        results.value("queue.startup", Spread.of(readings[options.warm :]), unit="s", rounds=options.rounds)
    if results.wants("queue.command"):
        with running() as house:
            result = duel(
                lambda: timed([*command(), "submit", "noop"], environ=house.environ),
                lambda: timed([interpreter(), "-I", "-c", "pass"], environ=house.environ),
                rounds=options.rounds,
                warm=options.warm,
            )
        results.duel("queue.command", result, unit="s")


def _switches(pids: Iterable[int]) -> dict[str, int] | None:
    """Return how often each thread of *pids* has gone to sleep by itself, or None where nobody counts."""
    if sys.platform != "linux":
        return None
    found = {}
    for task in (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended this very moment
            said = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            found[task.name] = int(said["voluntary_ctxt_switches"])
    return found


def main() -> int:
    """Measure, print, keep."""
    parser = arguments(__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--each", type=int, default=30, help="jobs of each client in a round")
    parser.add_argument("--workers", type=int, default=4, help="worker threads of the stock queue")
    parser.add_argument("--jobs", type=int, default=300, help="tiny jobs for the time to start")
    parser.add_argument("--idle", type=float, default=30, help="seconds of quiet in which wake-ups are counted")
    options = parser.parse_args()
    facts = {name: getattr(options, name) for name in ("clients", "each", "workers", "jobs", "idle")}
    results = Results("queue", options, **facts)
    for part in (submits, start, idle, startup):
        part(results, options)
    results.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
