"""What the tests of watched folders share: a clock to turn by hand, a ledger in memory, a patrol made of real parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config.folders import FolderConfig
from daemon.folders.complaints import Complaints
from daemon.folders.finder import Finder
from daemon.folders.following import Following
from daemon.folders.intake import Intake
from daemon.folders.patrol import Patrol
from daemon.folders.watcher import Watcher
from jobs.accepting import SeenFile
from jobs.errors import JobNotFound
from jobs.model import Job, NewJob, State


class ManualClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeLedger:
    """Service and ledger as intake sees them, in memory. Thread-safe; `wait` waits for jobs to arrive."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.keys: dict[tuple[Path, str], str] = {}
        self.outputs: set[Path] = set()
        #: Raised by the next submits, one each; the last one stays while `stuck`.
        self.errors: list[Exception] = []
        self._changed = threading.Condition()

    def submit(self, new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        with self._changed:
            if self.errors:
                raise self.errors.pop(0)
            if seen and seen[:2] in self.keys:
                return next(job for job in self.jobs if job.id == self.keys[seen[:2]]), False
            job = Job(**dict(new), id=f"job{len(self.jobs):07}", seq=len(self.jobs) + 1, created_at=datetime.now(UTC))
            self.jobs.append(job)
            if seen:
                self.keys |= {(seen[0], key): job.id for key in seen[1:]}
            self._changed.notify_all()
            return job, True

    def seen(self, folder: Path, key: str) -> str | None:
        return self.keys.get((folder, key))

    def remember(self, folder: Path, key: str, job_id: str) -> None:
        self.keys[folder, key] = job_id

    def get(self, job_id: str) -> Job:
        if job := next((job for job in self.jobs if job.id == job_id), None):
            return job
        raise JobNotFound

    def fail(self, number: int) -> None:
        """Let the job of this number have failed."""
        self.jobs[number] = self.jobs[number].model_copy(update={"state": State.FAILED})

    def is_output(self, path: Path) -> bool:
        return path in self.outputs

    @property
    def inputs(self) -> list[str]:
        """The names of the files that became jobs, in order."""
        return [Path(job.params["file"]).name for job in self.jobs]

    def wait(self, count: int, timeout: float = 20.0) -> list[str]:
        """Wait until there are *count* jobs and return their inputs' names."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.jobs) >= count, timeout), self.inputs
        return self.inputs


class Inline(Executor):
    """Does what it is given when `run` is called, on the caller's thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        while self.waiting:
            future, work = self.waiting.pop(0)
            future.set_result(work())


class Bench:
    """A patrol on a real folder, with no thread and no events: time and looks are the test's."""

    def __init__(self, folder: FolderConfig, *, ledger: Any = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.ledger = ledger or FakeLedger()
        self.background = Inline()
        self.wakes = 0
        complaints = Complaints()
        finding = {
            name: options.pop(name)
            for name in ("excluded", "dataless", "access", "wall", "platform")
            if name in options
        }
        self.patrol = Patrol(
            folder,
            finder=Finder(folder, complaints=complaints, **finding),
            following=Following(folder, observer_factory=None, on_hint=lambda _relative: None),
            complaints=complaints,
            intake=Intake(submit=self.ledger.submit, ledger=self.ledger),
            background=self.background,
            wake=self._wake,
            clock=self.clock,
            rescan_seconds=60.0,
            **options,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def turn(self, seconds: float = 0.0) -> list[str]:
        """Let *seconds* pass, give the patrol its turn, and return the names of all files taken so far."""
        self.clock.now += seconds
        self.patrol.turn(self.clock.now)
        taken: list[str] = self.ledger.inputs
        return taken

    def scan(self, seconds: float = 0.0) -> list[str]:
        """Like `turn`, with a scan."""
        self.patrol.expedite()
        return self.turn(seconds)

    def settle(self) -> list[str]:
        """Look, wait until everything has settled, and take it."""
        self.scan()
        return self.turn(self.patrol.folder.settle_seconds)

    @property
    def problem(self) -> str | None:
        return self.patrol.status().problem


@contextmanager
def watching(*folders: FolderConfig, ledger: Any = None, **options: Any) -> Iterator[tuple[Watcher, Any]]:
    """A running watcher on a fake ledger (or *ledger*), stopped at the end."""
    ledger = ledger or FakeLedger()
    watcher = Watcher(intake=Intake(submit=ledger.submit, ledger=ledger), **options)
    watcher.start(folders)
    try:
        yield watcher, ledger
    finally:
        watcher.stop()
