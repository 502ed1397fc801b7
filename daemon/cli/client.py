"""The daemon as a Python object: typed calls over the socket.

::

    client = Client(find_home().socket)
    job, created = client.submit("generate", {"prompt": "Hello"})
    print(client.wait(job.id, timeout=60).result["text"])
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from daemon.cli.transport import PATIENCE, Transport, job_path, pages
from daemon.events import SETTLED, Event
from daemon.health.findings import Finding
from daemon.views import FolderStatus, Health, ModelStatus, PluginStatus, ReloadReport, TaskInfo
from jobs.model import Job, Lane, NewJob, OutputFile, Placement, Source, State

#: Seconds that loading a model may take.
_LOADING: Final = 3600.0
#: Seconds that one request waits for a job.
_WAIT_PIECE: Final = 300.0


class Client:
    """Asks the daemon that listens on *socket_path*; thread-safe, holds nothing open.

    Every method raises `DaemonUnreachable` when nobody answers, and the `MlxdError` that the daemon answered with.
    """

    def __init__(self, socket_path: Path, *, patience: float = PATIENCE) -> None:
        self.transport = Transport(socket_path, patience=patience)

    def submit(
        self,
        task: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane = Lane.NORMAL,
        priority: int = 0,
        key: str | None = None,
        placement: Placement | None = None,
        source: Source | None = None,
    ) -> tuple[Job, bool]:
        """Submit a job; False means that the idempotency *key* was known and this is the job it gave."""
        new = NewJob(
            task=task,
            params=dict(params or {}),
            lane=lane,
            priority=priority,
            idempotency_key=key,
            placement=placement or Placement(),
            source=source or Source(kind="api"),
        )
        return self.submit_job(new)

    def submit_job(self, new: NewJob) -> tuple[Job, bool]:
        """Submit a job with everything that can be said about one."""
        status, body = self.transport.fetch("POST", "/v1/jobs", body=new.model_dump(mode="json"))
        return Job.model_validate_json(body), status == 201  # noqa: PLR2004 - HTTP: created

    def job(self, job_id: str) -> Job:
        """Return a job by its id or a unique beginning of it."""
        return Job.model_validate(self.transport.ask("GET", job_path(job_id)))

    def jobs(
        self,
        *,
        states: Collection[State] = (),
        task: str | None = None,
        lane: Lane | None = None,
        source: str | None = None,
        rule: str | None = None,
        parent: str | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """Return jobs, newest first: at most *limit*, or all of them."""
        query = {"state": [str(state) for state in states], "task": task, "lane": lane}
        query |= {"source": source, "rule": rule, "parent": parent}
        found = pages(self.transport, query, limit=limit)
        return [Job.model_validate(one) for one in found]

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Return the job when it is terminal, blocked or quarantined, or as it is after *timeout* seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_PIECE if deadline is None else min(_WAIT_PIECE, max(0.0, deadline - time.monotonic()))
            answer = self.transport.ask(
                "GET", job_path(job_id, "wait"), query={"timeout": left}, patience=left + PATIENCE
            )
            job = Job.model_validate(answer)
            if job.state in SETTLED or (deadline is not None and time.monotonic() >= deadline):
                return job

    def cancel(self, job_id: str) -> Job:
        """Take a job back; a running one stops at its next step."""
        return Job.model_validate(self.transport.ask("POST", job_path(job_id, "cancel")))

    def retry(self, job_id: str) -> Job:
        """Release a blocked or quarantined job, or repeat an ended one as a new job."""
        return Job.model_validate(self.transport.ask("POST", job_path(job_id, "retry")))

    def events(self, job_id: str | None = None) -> Iterator[Event]:
        """Follow a job until it is terminal, or everything (None) until the daemon stops."""
        target = "/v1/events" if job_id is None else job_path(job_id, "events")
        for kind, data in self.transport.events(target):
            yield Event(str(data.get("job") or data.get("id") or job_id or ""), kind, data)

    def outputs(self, job_id: str) -> list[OutputFile]:
        """Return the files a job wrote."""
        answer = self.transport.ask("GET", job_path(job_id, "outputs"))
        return [OutputFile.model_validate(one) for one in answer["outputs"]]

    def save_output(self, job_id: str, which: int | str, file: BinaryIO) -> None:
        """Copy one file that the job wrote, by its index or name, into *file*."""
        self.transport.save(job_path(job_id, f"outputs/{quote(str(which))}"), file)

    def models(self) -> list[ModelStatus]:
        """Return the models that are configured or resident."""
        return [ModelStatus.model_validate(one) for one in self.transport.ask("GET", "/v1/models")["models"]]

    def load(self, ref: str, *, runtime: str | None = None, pin: bool | None = None) -> ModelStatus:
        """Load a model and return when it is ready."""
        body = {"ref": ref, "runtime": runtime, "pin": pin}
        return ModelStatus.model_validate(self.transport.ask("POST", "/v1/models/load", body=body, patience=_LOADING))

    def unload(self, ref: str) -> bool:
        """Unload a model as soon as nobody uses it; False if it was not loaded."""
        answer = self.transport.ask("POST", "/v1/models/unload", body={"ref": ref}, patience=_LOADING)
        return bool(answer["unloaded"])

    def pull(self, ref: str) -> Job:
        """Submit the job that fetches a model."""
        return Job.model_validate(self.transport.ask("POST", "/v1/models/pull", body={"ref": ref}))

    def folders(self) -> list[FolderStatus]:
        """Return the watched folders."""
        return [FolderStatus.model_validate(one) for one in self.transport.ask("GET", "/v1/folders")["folders"]]

    def rescan(self) -> int:
        """Look through all watched folders now."""
        return int(self.transport.ask("POST", "/v1/folders/rescan", patience=_WAIT_PIECE)["files"])

    def plugins(self) -> list[PluginStatus]:
        """Return the plugins, broken ones too."""
        return [PluginStatus.model_validate(one) for one in self.transport.ask("GET", "/v1/plugins")["plugins"]]

    def tasks(self) -> list[TaskInfo]:
        """Return the kinds of jobs."""
        return [TaskInfo.model_validate(one) for one in self.transport.ask("GET", "/v1/tasks")["tasks"]]

    def config(self) -> dict[str, Any]:
        """Return the configuration in force."""
        return dict(self.transport.ask("GET", "/v1/config"))

    def reload(self) -> ReloadReport:
        """Make the daemon read its configuration again."""
        return ReloadReport.model_validate(self.transport.ask("POST", "/v1/reload"))

    def health(self) -> Health:
        """Return the daemon at a glance."""
        return Health.model_validate(self.transport.ask("GET", "/v1/health"))

    def doctor(self) -> list[Finding]:
        """Have the daemon examine the set-up from its own context."""
        found = self.transport.ask("GET", "/v1/doctor", patience=_WAIT_PIECE)["findings"]
        return [Finding.model_validate(one) for one in found]

    def metrics(self) -> str:
        """Return Prometheus' text format."""
        return self.transport.fetch("GET", "/metrics")[1].decode()

    def shutdown(self) -> None:
        """Make the daemon drain and stop; return at once."""
        self.transport.ask("POST", "/v1/shutdown")
