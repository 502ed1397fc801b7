"""The control of the kill row: huey as it comes, which takes a task out of its queue before it runs it.

What its tasks do they note in a table that the checker can read.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from huey import SqliteHuey

from torture.checker import Verdict, check
from torture.history import History
from torture.stub_plugin import expected, expected_output

WORKERS = 4
_JOBS = """CREATE TABLE IF NOT EXISTS jobs (seq INTEGER PRIMARY KEY, id UNIQUE, task, idempotency_key, parent,
source_kind, source_detail, state, params, result, outputs)"""


def queue(folder: Path) -> tuple[SqliteHuey, object]:
    """Return stock huey in *folder* and its one task, which does what the stub does."""
    huey = SqliteHuey("raw", filename=str(folder / "huey.sqlite3"))

    @huey.task()
    def work(key: str, seconds: float) -> None:
        time.sleep(seconds)
        path = folder / "results" / key / "stub-0.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(expected_output(key, 0))
        output = {"path": str(path), "size": path.stat().st_size, "sha256": _sha256(expected_output(key, 0))}
        with closing(sqlite3.connect(folder / "ledger.sqlite3", timeout=30)) as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO jobs (id, task, idempotency_key, source_kind, state, params, result, outputs)"
                " VALUES (?, 'stub', ?, 'api', 'succeeded', '{}', ?, ?)",
                (key, key, json.dumps({"text": expected(key)}), json.dumps([output])),
            )

    return huey, work


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def serve(folder: Path) -> None:
    """Consume until killed."""
    huey, _ = queue(folder)
    huey.create_consumer(workers=WORKERS, periodic=False, initial_delay=0.01, max_delay=0.05).run()


def attack(folder: Path, *, kills: int, chance: random.Random) -> tuple[Verdict, int]:
    """Kill a consumer under load *kills* times; return what the checker says, and how many tasks were acknowledged."""
    folder.mkdir()
    (folder / "results").mkdir()
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        connection.execute(_JOBS)
    huey, work = queue(folder)
    history, accepted = History(folder / "history.jsonl"), 0
    consumer = _start(folder)
    for _ in range(kills):
        for _ in range(40):
            work(key := f"task-{accepted}", chance.uniform(0.01, 0.05))
            history.ack(key, key)  # huey has answered: it is in its queue, on disk
            accepted += 1
        _until(lambda: huey.pending_count() < 25, 20.0)
        consumer.kill()
        consumer.wait()
        consumer = _start(folder)
    _until(lambda: huey.pending_count() == 0, 60.0)
    time.sleep(0.3)  # the last tasks it took, 50 ms each
    consumer.kill()
    consumer.wait()
    history.close()
    return check(history.path, ledger=folder / "ledger.sqlite3", results=folder / "results"), accepted


def _start(folder: Path) -> subprocess.Popen[bytes]:
    tests = str(Path(__file__).parents[1])
    # Not by -m: the task would be known by another module's name here than there, and huey drops what it does not know.
    program = "import sys; from pathlib import Path; from torture.rawhuey import serve; serve(Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(
        command, env={"PYTHONPATH": tests}, stdout=subprocess.DEVNULL, stderr=(folder / "huey.log").open("ab")
    )


def _until(true: Callable[[], bool], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
