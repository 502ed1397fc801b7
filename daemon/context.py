"""The world as a running task sees it (`plugins.task.TaskContext`), made anew for each attempt."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from daemon.events import Hub
from daemon.handles import Handle, Models
from daemon.stopping import Recalls, Stop, Written
from jobs import room
from jobs.errors import Interrupted, JobCancelled, LedgerUnavailable
from jobs.failpoints import reach
from jobs.ledger import Ledger
from jobs.model import Job, OutputFile, Progress
from jobs.outputs import OutputWriter, safe_name
from jobs.provenance import UsedModel, is_sidecar
from plugins.task import ModelHandle, Task

#: Seconds between two progress writes to the ledger, and between two progress events to listeners.
LEDGER_EVERY: Final = 1.0
PUBLISH_EVERY: Final = 0.1

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class World:
    """What every context of one daemon shares."""

    ledger: Ledger
    hub: Hub
    models: Models
    #: Name -> task, as the plugins registered them; raises `UnknownTask`.
    task: Callable[[str], Task]
    #: Name, parameters -> the task's own model; raises `InvalidParams`.
    parse: Callable[[str, Mapping[str, Any]], BaseModel]
    #: Task name -> parameters that apply where a job says nothing: ``[tasks.<name>]``.
    defaults: Callable[[str], Mapping[str, Any]]
    #: Task name -> settings of its plugin: ``[plugins.settings.<plugin>]``.
    settings: Callable[[str], Mapping[str, Any]]
    #: Where outputs go when the job names no directory.
    results: Path
    monotonic: Callable[[], float] = time.monotonic
    recalls: Recalls = field(default_factory=Recalls)
    #: Job, whether to give up -> raises `InputChanged` if its watched file is not what it was made of.
    require_input: Callable[[Job, Callable[[], bool]], None] = lambda _job, _stopping: None


@dataclass(kw_only=True)
class _Pace:
    """When progress was last told, and how fast it goes."""

    started: float | None = None
    first: float = 0.0
    ledger: float = float("-inf")
    published: float = float("-inf")
    message: str = ""
    unit: str = ""
    rates: dict[str, float] = field(default_factory=dict)


class RunContext:
    """One attempt of one job."""

    def __init__(self, job: Job, *, world: World, stop: Stop) -> None:
        self.job = job
        self.stem = job.placement.stem
        self.settings: Mapping[str, Any] = world.settings(job.task)
        self.log = logging.LoggerAdapter(logging.getLogger(f"mlxd.task.{job.task}"), job.log_context)
        self.directory = job.placement.directory or world.results / job.id
        self._world = world
        self._stop = stop
        # Of a job that is claimed for the first time nobody can have noted anything.
        begun = job.fence > 1
        self._saved = (world.ledger.checkpointed(job.id) or {}) if begun else {}
        self._earlier = world.ledger.intended(job.id) if begun else {}
        self._writer = OutputWriter(
            self.directory,
            job_id=job.id,
            intend=lambda output: stop.persist(lambda: world.ledger.intend(job.id, job.fence, output)),
            mine=self._earlier,
            root=job.placement.root,
        )
        if job.fence > 1:
            self._writer.sweep()
        self._pace = _Pace()
        self._pace_lock = threading.Lock()
        #: Says which model a lease is on; set by whoever wants `used` to be known.
        self.identify: Callable[[str | None, str, Mapping[str, Any]], UsedModel | None] | None = None
        #: The models that this attempt leased.
        self.used: list[UsedModel] = []
        self._all_known = True
        self._drawn = False
        self._ran = {job.task}
        self._input_read = False

    @property
    def saved(self) -> dict[str, Any] | None:
        """What the task saved in an earlier attempt."""
        return self._saved.get("task")

    @property
    def outputs(self) -> tuple[OutputFile, ...]:
        """What this attempt wrote, and what earlier ones had written and nobody has touched since."""
        written = tuple(output for output in self._writer.outputs if not is_sidecar(output.path))
        places = {output.path for output in written}
        earlier = (
            (path, hashes) for path, hashes in self._earlier.items() if path not in places and not is_sidecar(path)
        )
        return (*filter(None, (_still_there(path, hashes) for path, hashes in earlier)), *written)

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop."""
        return self._stop.event.is_set()

    def check(self) -> None:
        """Raise if the job should stop."""
        self._stop.check()

    def require_input(self) -> None:
        """Raise `InputChanged` if the watched file is not what the job was made of."""
        self._world.require_input(self.job, self._stop.event.is_set)

    def input_read(self) -> None:
        """Note that the input was read, if it still is what the job was made of."""
        self.require_input()
        self._input_read = True

    def require_read(self) -> None:
        """Raise `InputChanged` if the task has not said that it had read its input, and the file is another by now."""
        if not self._input_read:
            self.require_input()

    def persist(self, write: Callable[[], Written]) -> Written:
        """Write something down as `Stop.persist` does."""
        return self._stop.persist(write)

    @contextmanager
    def models(self, ref: str | None, *, runtime: str, draft_model: str | None = None) -> Iterator[ModelHandle]:
        """Lease a model for the block, unless its results have no place: then nothing need be computed."""
        self.check()
        room.require(self.directory)
        reach("model.wanted")
        try:
            lease = self._world.models.acquire(
                ref,
                runtime,
                lane=self.job.lane,
                cancelled=self._stop.event,
                on_progress=self._say,
                recall=self._step_aside,
                **({} if draft_model is None else {"draft_model": draft_model}),
            )
        except JobCancelled as error:
            raise self._stop.error() from error
        try:
            reach("model.leased")
            self._note_model(ref, runtime, lease.info)
            yield Handle(lease, self._stop, crashes=self.job.crashes, asked=self._note_request)
        finally:
            lease.release()

    def _step_aside(self) -> None:
        """Go back into the queue: somebody more urgent needs the model's place."""
        if self._world.recalls.allow(self.job.id, kept=bool(self._saved)):
            self.log.info("Steps aside for a more urgent job.", extra={"action": "job_recalled"})
            self._stop.set(Interrupted)

    def _say(self, message: str) -> None:
        """Tell what the job is waiting for; the amount done stays as it is."""
        self._tell(Progress(message=message))

    def progress(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        """Tell how far the job is."""
        with self._pace_lock:
            pace, now = self._pace, self._world.monotonic()
            if pace.started is None or pace.unit != unit:
                pace.started, pace.first, pace.unit = now, done, unit
            elapsed = now - pace.started
            rate = (done - pace.first) / elapsed if elapsed > 0 and done > pace.first else None
        self._tell(Progress(done=done, total=total, unit=unit, message=message, rate=rate))

    def _tell(self, progress: Progress) -> None:
        now = self._world.monotonic()
        with self._pace_lock:
            # The last unit and a new message are always told: they are what the person is waiting for.
            last = progress.total is not None and 0 < progress.total <= progress.done
            news = progress.message != self._pace.message or last
            publish = news or now - self._pace.published >= PUBLISH_EVERY
            # Otherwise a job that has ended would say for ever that it came to 377 of 400.
            write = last or now - self._pace.ledger >= LEDGER_EVERY
            self._pace.message = progress.message
            if publish:
                self._pace.published = now
            if write:
                self._pace.ledger = now
        if publish:
            self._world.hub.publish(self.job.id, "progress", progress.model_dump(mode="json"))
        if write:
            # A full disk must not end a job that only wanted to say how far it is.
            with suppress(LedgerUnavailable):
                self._world.ledger.progress(self.job.id, self.job.fence, progress)

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send a live event to whoever follows this job."""
        self._world.hub.publish(self.job.id, kind, data)

    def output(self, name: str, data: str | bytes) -> OutputFile:
        """Write one result file, whole or not at all."""
        return self._writer.write(name, data)

    def written(self, name: str) -> OutputFile | None:
        """Return what an earlier attempt wrote under *name*, if nobody has touched it since."""
        return self._writer.find(name)

    def put_beside(self, path: Path, content: str) -> None:
        """Write the sidecar *path*, which lies beside one of the outputs and is none itself."""
        self._writer.write(str(path.relative_to(self._writer.directory)), content)

    def wrote(self, path: Path) -> bool:
        """Return whether this job wrote *path*, or meant to."""
        return path in self._earlier or any(output.path == path for output in self._writer.outputs)

    def names(self) -> Mapping[str, Path]:
        """Return what this attempt's outputs were to be called, relative, and where they are."""
        return {name: path for name, path in self._writer.names().items() if not is_sidecar(path)}

    def repeatable(self, task: Callable[[str], Task]) -> bool:
        """Tell whether the same work gives the same result: every task says so, and nothing was drawn by chance."""
        tasks = (task(name) for name in self._ran)
        sound = all(getattr(one, "repeatable", False) for one in tasks)
        return bool(self.used) and self._all_known and not self._drawn and sound

    def _note_model(self, ref: str | None, runtime: str, info: Mapping[str, Any]) -> None:
        if self.identify is None or any((one.ref, one.runtime) == (ref, runtime) for one in self.used):
            return
        found = self.identify(ref, runtime, info)
        if found is None:
            self._all_known = False
        else:
            self.used.append(found)

    def _note_request(self, request: Mapping[str, Any]) -> None:
        self._drawn |= bool(request.get("temperature")) and request.get("seed") is None

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        """Save where the task is; what a step saved before is over."""
        self._save({"task": dict(data)})

    def _save(self, data: dict[str, Any]) -> None:
        self._saved = data
        self.persist(lambda: self._world.ledger.checkpoint(self.job.id, self.job.fence, data))

    def run(
        self, task: str, params: Mapping[str, Any], *, stem: str | None = None, outputs: bool = True
    ) -> dict[str, Any]:
        """Run another task as a step of this job."""
        step = _Step(self, task, stem=stem, outputs=outputs)
        self._ran.add(task)
        given = self._world.parse(task, {**self._world.defaults(task), **params})
        return dict(self._world.task(task).run(step, given))


class _Step:
    """A step's view of its job: everything is the job's, only the settings, the stem and the checkpoint are its own."""

    def __init__(self, parent: RunContext, task: str, *, stem: str | None, outputs: bool) -> None:
        self._parent = parent
        self.job = parent.job
        self.settings: Mapping[str, Any] = parent._world.settings(task)
        self.stem = stem or parent.stem
        self.directory = parent.directory
        self.log = parent.log
        self.check, self.models, self.progress = parent.check, parent.models, parent.progress
        self.emit, self.run = parent.emit, parent.run
        self.input_read = parent.input_read
        self.output = parent.output if outputs else self._unwritten
        self.written = parent.written if outputs else self._never_written

    @property
    def cancelled(self) -> bool:
        return self._parent.cancelled

    @property
    def saved(self) -> dict[str, Any] | None:
        return self._parent._saved.get("step")

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        self._parent._save({"task": self._parent.saved, "step": dict(data)})

    def _never_written(self, name: str) -> OutputFile | None:  # noqa: ARG002 - the contract's signature
        """Find nothing."""
        return None

    def _unwritten(self, name: str, data: str | bytes) -> OutputFile:
        """Describe the file that is not wanted."""
        content = data.encode() if isinstance(data, str) else data
        digest = hashlib.sha256(content).hexdigest()
        return OutputFile(path=self.directory / safe_name(name), size=len(content), sha256=digest)


def _still_there(path: Path, hashes: Collection[str]) -> OutputFile | None:
    """Return the file at *path* if it has one of the contents that this job gave it."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError:
        return None
    return OutputFile(path=path, size=size, sha256=digest) if digest in hashes else None
