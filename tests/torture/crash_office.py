"""A daemon's inner parts that write results: the real executor, records and aftermath over a task that is a script."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fakes_daemon import AnyParams, FakeModels, FunctionTask

from daemon.aftermath import Aftermath
from daemon.config.model import OutputsConfig
from daemon.context import World
from daemon.events import Hub
from daemon.executor import Executor
from daemon.folders.trash import Trash
from daemon.records import Records
from daemon.verdicts import Policy
from jobs import database
from jobs.errors import Interrupted, RequestFailed, RunnerDied
from jobs.journal import Journal
from jobs.ledger import Ledger
from jobs.model import Job, State, new_job_id
from plugins.manager import PluginManager

NAME = "ledger.sqlite3"
#: Attempts of one job that may have written something else than the one before.
VERSIONS = 12
_ERRORS = {"fail": RequestFailed, "crash": RunnerDied, "stop": Interrupted}


def content(key: str, name: str, version: int, size: int) -> bytes:
    """Return what the job *key* writes under *name* in its attempt *version*: *size* bytes that nobody else writes."""
    head = f"{key} {name} {version} ".encode()
    return head + random.Random(f"{head!r}").randbytes(size)


class Office:
    """Runs jobs below *root* on a ledger of its own; *ended* hears of every job that left the running state.

    *day*: a later office comes on a later day, all of them after every file's time.
    """

    def __init__(
        self,
        root: Path,
        *,
        connect: database.Connect = database.connect,
        ended: Callable[[Job], None] = lambda _: None,
        day: int = 0,
        new_id: Callable[[], str] = new_job_id,
    ) -> None:
        self._now = datetime(2100, 1, 1, tzinfo=UTC) + timedelta(days=day)
        self._ended = ended
        self.hub = Hub()
        self.ledger = Ledger(root / NAME, connect=connect, clock=self.clock, new_id=new_id)
        tasks = {"write": FunctionTask("write", _write)}
        self._aftermath = Aftermath(
            plugins=PluginManager(builtins=()),
            unblock=lambda: None,
            journal=Journal(self.ledger),
            trash=Trash(root / "trash", system=False),
            clock=self.clock,
        )
        self._executor = Executor(
            world=World(
                ledger=self.ledger,
                hub=self.hub,
                models=FakeModels(),
                task=tasks.__getitem__,
                parse=lambda _task, params: AnyParams.model_validate(params),
                settings=lambda _task: {},
                defaults=lambda _task: {},
                results=root / "results",
            ),
            owner="me",
            clock=self.clock,
            ended=self._follow,
            again=lambda _job: None,
            policy=Policy(max_crashes=20, backoff=lambda _failures: 1.0),
            records=Records(
                ledger=self.ledger,
                settings=OutputsConfig,
                defaults=lambda _task: {},
                resolver=_no_models,
                task=tasks.__getitem__,
                clock=self.clock,
            ),
        )

    def clock(self) -> datetime:
        self._now += timedelta(seconds=10)
        return self._now

    def start(self) -> None:
        """Do what a start does with what a dead daemon left."""
        self.ledger.recover("nobody")
        self._aftermath.catch_up(self.ledger)

    def run(self, job_id: str) -> None:
        """Run one attempt of a job."""
        self._executor.execute(job_id)

    def work(self, most: int = 200) -> int:
        """Run attempts until nothing waits; return how many it took."""
        for number in range(most):
            waiting = self.ledger.ready(1)
            if not waiting:
                return number
            self.run(waiting[0].id)
        raise AssertionError(f"jobs still wait after {most} attempts")

    def _follow(self, job: Job) -> None:
        self._ended(job)
        self._aftermath(job)

    def close(self) -> None:
        self.hub.close()
        self.ledger.close()


def _no_models() -> Any:
    raise AssertionError("this task leases no models")


def _write(context: Any, params: Any) -> Mapping[str, Any]:
    """Write the files that *params* name; in the attempts that have a fate, end so after some of them."""
    attempt = context.job.fence
    version = attempt % VERSIONS if params.fresh else 0
    after, error = params.fates[attempt - 1] if attempt <= len(params.fates) else (None, None)
    for number, (name, size) in enumerate(params.files):
        if number == after:
            raise _ERRORS[error]
        context.output(name, content(params.key, name, version, size))
    return {"text": params.key}


def digests(job: Job) -> set[str]:
    """Return the SHA-256 of everything that the job may ever write."""
    return {
        hashlib.sha256(content(job.params["key"], name, version, size)).hexdigest()
        for name, size in job.params["files"]
        for version in range(VERSIONS)
    }


def unfinished(state: State) -> bool:
    """Tell whether a job in *state* is to go on."""
    return state in {State.QUEUED, State.RUNNING}
