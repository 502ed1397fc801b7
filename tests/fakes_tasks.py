"""A task's world without a daemon: scripted models, recorded progress, real output files."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.errors import InputChanged, Interrupted, JobCancelled, MlxdError
from jobs.model import Job, OutputFile, Placement
from jobs.outputs import OutputWriter
from plugins.manager import PluginManager
from plugins.task import OnEvent

#: What a scripted model does with a request: tells events, returns the result or raises.
Script = Callable[[Mapping[str, Any], OnEvent], dict[str, Any]]

#: No wait in these tests may last longer than this.
DEADLINE_S = 20.0

BUILTIN_TASKS = ("plugins.generate", "plugins.transcribe", "plugins.batch", "plugins.pipeline")


def job(task: str, *, params: Mapping[str, Any] | None = None, placement: Placement | None = None) -> Job:
    """Return a job of *task* as if it had just been claimed."""
    return Job(
        task=task,
        params=dict(params or {}),
        placement=placement or Placement(),
        id="j0b1d2e3f4",
        seq=1,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def asked(request: Mapping[str, Any]) -> str:
    """Return what the person asked: the prompt, or the chat's last turn."""
    return str(request["prompt"] if "prompt" in request else request["messages"][-1]["content"])


def echo(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Answer with the last message in upper case, a token a word."""
    words = asked(request).upper().split()
    for count, word in enumerate(words, start=1):
        on_event("token", {"text": word + " ", "n": count})
    return {
        "text": " ".join(words),
        "finish_reason": "stop",
        "prompt_tokens": len(words) + 1,
        "completion_tokens": len(words),
        "tokens_per_second": 100.0,
        "notes": [],
    }


def hear(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Hear two segments whatever the file holds."""
    segments = [
        {"start": 0.0, "end": 1.5, "text": " Call Anna on Monday."},
        {"start": 1.5, "end": 3.0, "text": " Buy milk."},
    ]
    for segment in segments:
        on_event("segment", segment)
        on_event("progress", {"done": segment["end"], "total": 3.0})
    return {
        "text": " Call Anna on Monday. Buy milk.",
        "language": "en",
        "duration": 3.0,
        "segments": segments,
        "realtime_factor": 30.0,
    }


class FakeCall:
    """A request that runs its script on a thread of its own, as a real one does."""

    def __init__(self, script: Script, request: Mapping[str, Any], on_event: OnEvent | None) -> None:
        self.cancelled = threading.Event()
        self._done = threading.Event()
        self._result: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(script, request, on_event or (lambda *_: None)))
        self._thread.start()

    def _run(self, script: Script, request: Mapping[str, Any], on_event: OnEvent) -> None:
        try:
            self._result = script({**request, "cancelled": self.cancelled}, on_event)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        finally:
            self._done.set()

    def result(self) -> dict[str, Any]:
        assert self._done.wait(DEADLINE_S), "the scripted model never answered"
        self._thread.join()
        if self.cancelled.is_set():
            raise JobCancelled
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        self.cancelled.set()


class FakeModel:
    """A leased model that answers by script and remembers what it was asked."""

    def __init__(self, script: Script, *, ref: str = "fake:model") -> None:
        self.info: Mapping[str, Any] = {"ref": ref}
        self.requests: list[dict[str, Any]] = []
        self.alone: list[bool | None] = []
        self.calls: list[FakeCall] = []
        self._script = script

    def submit(
        self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool | None = None
    ) -> FakeCall:
        self.alone.append(alone)
        # Only what survives JSON may be sent: a real request travels through a pipe.
        self.requests.append(json.loads(json.dumps(dict(request))))
        call = FakeCall(self._script, request, on_event)
        self.calls.append(call)
        return call


def hold(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Tell one token and never end until cancelled."""
    on_event("token", {"text": "a", "n": 1})
    assert request["cancelled"].wait(DEADLINE_S)
    return {}


class FakeContext:
    """`plugins.task.TaskContext`, with everything that was said to it kept for the test to read."""

    def __init__(
        self,
        directory: Path,
        *,
        task: str = "generate",
        lm: Script = echo,
        whisper: Script = hear,
        stem: str | None = None,
        saved: Mapping[str, Any] | None = None,
        placement: Placement | None = None,
        mine: Mapping[Path, set[str]] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        plugins: PluginManager | None = None,
    ) -> None:
        self.job = job(task, placement=placement)
        self.settings: Mapping[str, Any] = (settings or {}).get(task, {})
        self.saved: dict[str, Any] | None = json.loads(json.dumps(saved)) if saved else None
        self.directory = directory
        self.stem = stem
        self.log = logging.LoggerAdapter(logging.getLogger("tests"), {})
        self.lm, self.whisper = FakeModel(lm), FakeModel(whisper)
        self.leases: list[tuple[str, str | None]] = []
        self.drafts: list[str | None] = []
        self.leased = 0
        #: How often the task said that it had read its input.
        self.inputs_read = 0
        #: Whether the answer to that is that it was changed meanwhile.
        self.input_changed = False
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        self.told: list[tuple[float, float | None, str, str]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.stop: type[MlxdError] | None = None
        #: Called with each checkpoint: where a test stops the job.
        self.on_checkpoint: Callable[[dict[str, Any]], None] = lambda _: None
        #: Files as the ledger remembers them for the next attempt.
        self.intended: dict[Path, set[str]] = {path: set(sums) for path, sums in (mine or {}).items()}
        self._plugins = plugins
        self._writer = OutputWriter(directory, job_id=self.job.id, intend=self._intend, mine=dict(self.intended))

    def _intend(self, output: OutputFile) -> None:
        self.intended.setdefault(output.path, set()).add(output.sha256)

    @property
    def outputs(self) -> tuple[OutputFile, ...]:
        return self._writer.outputs

    @property
    def cancelled(self) -> bool:
        return self.stop is not None

    def check(self) -> None:
        if self.stop is not None:
            raise self.stop

    def interrupt(self, reason: type[MlxdError] = Interrupted) -> None:
        """Ask the job to stop, as a drain or a cancellation does."""
        self.stop = reason
        for call in [*self.lm.calls, *self.whisper.calls]:
            call.cancel()

    @contextmanager
    def models(self, ref: str | None, *, runtime: str, draft_model: str | None = None) -> Iterator[FakeModel]:
        self.leases.append((runtime, ref))
        self.drafts.append(draft_model)
        self.leased += 1
        try:
            yield {"lm": self.lm, "whisper": self.whisper}[runtime]
        finally:
            self.leased -= 1

    def input_read(self) -> None:
        self.inputs_read += 1
        if self.input_changed:
            raise InputChanged

    def progress(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        self.told.append((done, total, unit, message))

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        self.emitted.append((kind, dict(data)))

    def output(self, name: str, data: str | bytes) -> OutputFile:
        return self._writer.write(name, data)

    def written(self, name: str) -> OutputFile | None:
        return self._writer.find(name)

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        self.saved = json.loads(json.dumps(dict(data)))
        self.checkpoints.append(self.saved)
        self.on_checkpoint(self.saved)

    def run(
        self, task: str, params: Mapping[str, Any], *, stem: str | None = None, outputs: bool = True
    ) -> dict[str, Any]:
        plugins = self._plugins or loaded()
        step = _Step(self, stem=stem or self.stem, outputs=outputs)
        return dict(plugins.task(task).run(step, plugins.parse(task, params)))


class _Step:
    """A step's view of the job."""

    def __init__(self, parent: FakeContext, *, stem: str | None, outputs: bool) -> None:
        self._parent = parent
        self._outputs = outputs
        self.stem = stem
        self.saved: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parent, name)

    def output(self, name: str, data: str | bytes) -> OutputFile:
        if self._outputs:
            return self._parent.output(name, data)
        return OutputFile(path=self._parent.directory / name, size=len(data), sha256="")

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        self.saved = dict(data)


def loaded(**options: Any) -> PluginManager:
    """Return a manager with the tasks that ship with mlxd."""
    manager = PluginManager(**{"builtins": BUILTIN_TASKS, **options})
    manager.load()
    return manager
