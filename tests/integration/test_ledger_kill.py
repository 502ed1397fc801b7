"""kill -9 at any instant: what was acknowledged is there, once."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from jobs.ledger import Ledger
from jobs.model import Job, State

ROUNDS = 12

#: Does jobs as fast as it can and says each thing after the ledger has taken it.
CHILD = """
import random, sys
from pathlib import Path
from jobs.ledger import Ledger
from jobs.model import NewJob, OutputFile, Progress

ledger, rng, owner = Ledger(Path(sys.argv[1])), random.Random(int(sys.argv[2])), sys.argv[2]
ledger.recover(owner)
queued, running = [job.id for job in ledger.ready()], []
print("ready", flush=True)
while True:
    dice = rng.random()
    if dice < 0.4 or not (queued or running):
        job, _ = ledger.add(NewJob(task="t", params={"text": "x" * rng.randrange(9000)}))
        queued.append(job.id)
        print("added", job.id, flush=True)
    elif dice < 0.7 and queued:
        job = ledger.claim(queued.pop(rng.randrange(len(queued))), owner)
        ledger.progress(job.id, job.fence, Progress(done=1))
        ledger.intend(job.id, job.fence, OutputFile(path=Path("/out") / job.id, size=1, sha256="00"))
        running.append(job)
        print("claimed", job.id, flush=True)
    elif running:
        job = running.pop(rng.randrange(len(running)))
        ledger.finish(job.id, job.fence, {"text": job.id}, [])
        print("finished", job.id, flush=True)
"""


def _live_and_die(path: Path, seed: int) -> list[list[str]]:
    """Run the child until a seeded number of acknowledgements, kill it there and then, return all it said."""
    rng = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(rng.randrange(1, 80))]
        child.kill()
        said += child.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


def _check(path: Path, acknowledged: Counter[tuple[str, ...]], *, owner: str) -> None:
    added = {words[1] for words in acknowledged if words[0] == "added"}
    finished = {words[1] for words in acknowledged if words[0] == "finished"}
    ledger = Ledger(path)
    try:
        running = {job.id: job for job in ledger.find(states={State.RUNNING}, limit=10_000)}
        for job in ledger.recover(owner):
            before = running.pop(job.id)
            assert (job.state, job.attempts) == (State.QUEUED, before.attempts - 1)
        assert running == {}
        jobs: dict[str, Job] = {job.id: job for job in ledger.find(limit=10_000)}
    finally:
        ledger.close()
    assert added <= set(jobs)
    succeeded = {job.id for job in jobs.values() if job.state is State.SUCCEEDED}
    assert finished <= succeeded
    # One write may have been committed and not yet said.
    assert len(succeeded - finished) <= ROUNDS
    assert all(acknowledged["finished", job] == 1 for job in finished)
    assert all(job.attempts == (1 if job.id in succeeded else 0) for job in jobs.values())
    assert all(job.result == {"text": job.id} for job in jobs.values() if job.id in succeeded)


def test_acknowledged_work_survives_kill_9(tmp_path: Path) -> None:
    """Over a dozen deaths no acknowledged job is lost, none finishes twice, and interrupted ones cost no attempt."""
    path = tmp_path / "ledger.sqlite3"
    acknowledged: Counter[tuple[str, ...]] = Counter()
    for seed in range(ROUNDS):
        acknowledged.update(tuple(words) for words in _live_and_die(path, seed))
        _check(path, acknowledged, owner=f"checker-{seed}")
    assert sum(count for words, count in acknowledged.items() if words[0] == "finished") > ROUNDS
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
