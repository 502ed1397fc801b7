"""A service without a daemon behind it, and a way to serve it on a socket."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.api.front import MAX_BODY, front
from daemon.api.listener import bind
from daemon.api.peers import is_own
from daemon.api.server import SocketServer
from daemon.events import STATE, Hub
from daemon.health.findings import Finding, problem
from daemon.views import (
    FolderStatus,
    Health,
    ModelStatus,
    PluginStatus,
    ReloadReport,
    Residency,
    ServiceFacade,
    TaskInfo,
    public_job,
)
from jobs.errors import JobConflict, JobNotFound
from jobs.model import TERMINAL, Job, Lane, NewJob, State, new_job_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeService(ServiceFacade):
    """Keeps jobs in memory; a test moves them on with `move`. Set ``refuse`` to make every call raise it."""

    def __init__(self) -> None:
        self._hub = Hub()
        self.jobs: dict[str, Job] = {}
        self.refuse: Exception | None = None
        self.calls: list[tuple[Any, ...]] = []
        #: Set whenever a job was submitted.
        self.submitted = threading.Event()
        self._seq = itertools.count(1)

    @property
    def hub(self) -> Hub:
        return self._hub

    def move(self, job_id: str, state: State, **changes: Any) -> Job:
        """Put a job into *state* and tell the hub, as the executor would."""
        job = self.jobs[job_id].model_copy(update={"state": state, **changes})
        self.jobs[job_id] = job
        self.hub.publish(job_id, STATE, public_job(job))
        return job

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        self._note("submit", new)
        for job in self.jobs.values():
            if new.idempotency_key is not None and job.idempotency_key == new.idempotency_key:
                return job, False
        job = Job(**dict(new), id=new_job_id(), seq=next(self._seq), created_at=NOW)
        self.jobs[job.id] = job
        self.hub.publish(job.id, STATE, public_job(job))
        self.submitted.set()
        return job, True

    def get(self, job_id: str) -> Job:
        self._note("get", job_id)
        found = [job for key, job in self.jobs.items() if key.startswith(job_id)]
        if len(found) != 1:
            raise JobNotFound(f"There is no job {job_id!r}.", job=job_id)
        return found[0]

    def find(
        self,
        *,
        states: Collection[State] = (),
        task: str | None = None,
        lane: Lane | None = None,
        source: str | None = None,
        rule: str | None = None,
        parent: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        self._note("find", states, task, lane, source, rule, parent, limit, before)
        found = [
            job
            for job in self.jobs.values()
            if (not states or job.state in states)
            and task in (None, job.task)
            and lane in (None, job.lane)
            and source in (None, job.source.kind)
            and rule in (None, job.source.rule)
            and parent in (None, job.parent)
            and (before is None or job.seq < before)
        ]
        return sorted(found, key=lambda job: -job.seq)[:limit]

    def counts(self) -> dict[State, int]:
        return {State.QUEUED: len(self.jobs)}

    def cancel(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job.state in TERMINAL:
            raise JobConflict(f"Job {job.id} has already {job.state.value}.")
        return self.move(job.id, State.CANCELLED)

    def retry(self, job_id: str) -> Job:
        job = self.get(job_id)
        return self.submit(NewJob(task=job.task, params=job.params, parent=job.id))[0]

    def models(self) -> list[ModelStatus]:
        self._note("models")
        return [ModelStatus(ref="demo:lm", runtime="lm", state=Residency.READY, pid=7, memory_bytes=9_000_000)]

    def load(self, ref: str, *, runtime: str | None = None, pin: bool | None = None) -> ModelStatus:
        self._note("load", ref, runtime, pin)
        return ModelStatus(ref=ref, runtime=runtime or "lm", state=Residency.READY, pinned=bool(pin))

    def unload(self, ref: str) -> bool:
        self._note("unload", ref)
        return ref == "demo:lm"

    def pull(self, ref: str) -> Job:
        return self.submit(NewJob(task="pull", params={"model": ref}))[0]

    def folders(self) -> list[FolderStatus]:
        self._note("folders")
        return [FolderStatus(path=Path("/in"), rules=("memos",), waiting=1, taken=2, problem="no permission")]

    def rescan(self) -> int:
        self._note("rescan")
        return 3

    def plugins(self) -> list[PluginStatus]:
        return [PluginStatus(name="generate", kind="builtin", tasks=("generate",), runtimes=(), problem=None)]

    def tasks(self) -> list[TaskInfo]:
        return [TaskInfo(name="generate", summary="Text.", params={"type": "object"}, plugin="generate")]

    def health(self) -> Health:
        self._note("health")
        return Health(version="1", pid=1, uptime_s=2.0, home="/h", counts=self.counts(), problems=("a disk is full",))

    def doctor(self) -> list[Finding]:
        self._note("doctor")
        return [problem("folder", "/in may not be read.", "Look at its permissions.", fault="folder-denied")]

    def metrics(self) -> str:
        return "mlxd_up 1\n"

    def reload(self) -> ReloadReport:
        self._note("reload")
        return ReloadReport(changed=("folders",), needs_restart=("queue.workers",))

    def config(self) -> dict[str, Any]:
        return {"drain_seconds": 30}

    def shutdown(self) -> None:
        self._note("shutdown")

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.refuse is not None:
            raise self.refuse


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Give a folder with a short name: a socket's path has little room, and pytest's folders have long ones."""
    folder = Path(tempfile.mkdtemp(prefix="mlxd-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def serving(service: ServiceFacade, **options: Any) -> Iterator[Path]:
    """Serve *service* on a fresh socket and give its path."""
    max_body = options.pop("max_body", MAX_BODY)
    with short_folder() as folder:
        path = folder / "state" / "mlxd.sock"
        app, short = front(service, max_body=max_body)
        server = SocketServer(
            app,
            bind(path),
            short=short,
            before_stop=service.hub.close,
            allow=options.pop("allow", is_own),
            **options,
        )
        server.start()
        try:
            yield path
        finally:
            assert server.stop(), "the server did not stop"
