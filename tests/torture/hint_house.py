"""The parts of mlxd that hints go through, real ones, in a process that can be killed.

``python -m torture.hint_house FOLDER PERIOD_S SABOTAGE`` takes commands as JSON lines: ``episode`` (jobs to take in,
and the weather), ``calm``, ``end``. It answers each with a line. What it accepts is in ``history.jsonl``, what it runs
in ``executions.log``, both in FOLDER.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update

from daemon.context import World
from daemon.dispatcher import Dispatcher
from daemon.events import Hub
from daemon.executor import Executor
from jobs.errors import JobNotFound
from jobs.ledger import Ledger
from jobs.model import Job, Lane, NewJob, State
from jobs.queue import JobQueue
from jobs.schema import jobs
from jobs.statements import find_job
from torture import stub_plugin
from torture.hint_storm import CALM, WEATHER, StormyStorage, Weather
from torture.history import History

#: A lane whose workers are busy must not stand in the way of the others.
WORKERS = {Lane.INTERACTIVE: 1, Lane.NORMAL: 2, Lane.BATCH: 1}


class TrustingLedger(Ledger):
    """Control: looks whether a job waits, and takes it afterwards."""

    def claim(self, job_id: str, owner: str, *, lane: Lane | None = None) -> Job | None:
        """Take the job without comparing and swapping."""
        try:
            job = self.get(job_id)
            if job.state is not State.QUEUED or lane not in (None, job.lane):
                return None
        except JobNotFound:
            return None
        values = {"state": "running", "owner": owner, "attempts": jobs.c.attempts + 1, "fence": jobs.c.fence + 1}
        with self.transaction("claim") as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values, started_at=self.now()))
            return find_job(connection, job_id)


class BlindDispatcher(Dispatcher):
    """Control: never compares the ledger with the queue."""

    def look(self) -> None:
        """Do nothing."""


class CountingDispatcher(Dispatcher):
    """Control: takes as many hints as there are jobs for a hint for each job."""

    def look(self) -> None:
        """Look only when fewer hints wait than jobs."""
        queue: Any = self._queue
        if queue.waiting() < self._ledger.counts()[State.QUEUED]:
            super().look()


class House:
    """Ledger, queue, dispatcher and executor over the files in *folder*; *sabotage* breaks one of them."""

    def __init__(self, folder: Path, period: float, sabotage: str) -> None:
        stub_plugin.HOME = folder
        self.history = History(folder / "history.jsonl")
        self.ledger = (TrustingLedger if sabotage == "no-cas" else Ledger)(folder / "ledger.sqlite3")
        world = World(
            ledger=self.ledger,
            hub=Hub(),
            models=None,  # type: ignore[arg-type]  # no job asks for one
            task=lambda _name: stub_plugin.Stub(),  # type: ignore[arg-type,return-value]
            parse=lambda _name, params: stub_plugin.Params.model_validate(params),
            settings=lambda _task: {},
            defaults=lambda _task: {},
            results=folder / "results",
        )
        owner = uuid.uuid4().hex
        self.executor = Executor(world=world, owner=owner, clock=_now, ended=_committed, again=self._again)
        self.queue = JobQueue(folder / "queue.sqlite3", self.executor.execute, workers=WORKERS, storage=StormyStorage)
        kinds = {"no-look": BlindDispatcher, "counting": CountingDispatcher}
        make = kinds.get(sabotage, Dispatcher)
        self.dispatcher = make(ledger=self.ledger, queue=self.queue, executor=self.executor, clock=_now, every=period)
        self.ledger.recover(owner)
        self.queue.start()
        self.dispatcher.start()

    def _again(self, job: Job) -> None:
        self.dispatcher.put(job)

    def episode(self, *, wanted: list[dict[str, Any]], weather: dict[str, Any], seed: str, trap: str) -> int:
        """Change the weather and take in the jobs; return how many there are.

        As many hints that lead nowhere wait in the batch lane, whose worker has a long job: in nobody's way.
        """
        WEATHER[0] = Weather(**weather, chance=random.Random(seed), trap=Path(trap))
        for one in wanted:
            params = {"key": one["key"], "seconds": one["seconds"], "outputs": one["outputs"]}
            new = NewJob(
                task="stub", params=params, lane=one["lane"], priority=one["priority"], idempotency_key=one["key"]
            )
            job, _ = self.ledger.add(new)
            self.history.ack(job.id, one["key"], outputs=one["outputs"])
            WEATHER[0].ids.append(job.id)
            self.dispatcher.put(job)
            self.queue.put(f"nothing-{job.id}", lane=Lane.BATCH, priority=99)
        return len(wanted)

    def calm(self) -> int:
        """End the storm; return how many faults it had."""
        weather, WEATHER[0] = WEATHER[0], CALM
        return weather.faults

    def end(self) -> None:
        """Stop in order."""
        self.dispatcher.stop()
        self.executor.drain(gently=False)
        self.queue.stop(5.0)
        self.ledger.close()


def _now() -> datetime:
    return datetime.now(UTC)


def _committed(job: Job) -> None:
    if job.state is State.SUCCEEDED:
        stub_plugin.note("commit", job.params["key"], job.fence)


def main(folder: Path, period: float, sabotage: str) -> int:
    """Serve commands until the end."""
    logging.basicConfig(filename=folder / "house.log", level=logging.ERROR)
    house = House(folder, period, sabotage)
    commands: dict[str, Callable[..., object]] = {"episode": house.episode, "calm": house.calm}
    _say("ready")
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        if name == "end":
            break
        _say(commands[name](**command))
    house.end()
    return 0 if threading.active_count() == 1 else 1


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
