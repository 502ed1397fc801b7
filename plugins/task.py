"""What a task plugin gives (`Task`) and what it gets (`TaskContext`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel

from jobs.model import Job, OutputFile

#: What a request tells while it runs: a kind ("token", "segment", "progress", ...) and JSON data.
OnEvent = Callable[[str, Mapping[str, Any]], None]

#: While a job's parameters are validated, pydantic's context (``info.context``) holds under this key a function
#: ``(task, params) -> dict``: a task that runs others can validate their parameters with it before the job is accepted.
VALIDATE: Final = "mlxd_validate"


class Call(Protocol):
    """One request under way on a resident model."""

    def result(self) -> dict[str, Any]:
        """Wait for the end and return the runtime's result.

        Raises:
            RequestFailed: the runtime refused or failed this request.
            RunnerDied: the runner process ended; the job is retried by the daemon, let it through.
            JobCancelled: the job was cancelled.
            Interrupted: the daemon is draining.

        """

    def cancel(self) -> None:
        """Drop the request at the next token or window; `result` then raises `JobCancelled`."""


class ModelHandle(Protocol):
    """A lease on a resident model: it is not unloaded while the lease is held."""

    #: What the runtime said when it had loaded the model (JSON).
    info: Mapping[str, Any]

    def submit(self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool | None = None) -> Call:
        """Start *request* (JSON, as the runtime documents it). *on_event* is called on a reader thread: be quick.

        With *alone* no other request runs on the model meanwhile: for one that may have ended its runner. None: alone
        if the job was there when a runner died before.
        """


class TaskContext(Protocol):
    """The world as a running task sees it."""

    #: The job as it was claimed.
    job: Job
    #: The settings of the task's plugin from the configuration: ``[plugins.settings.<plugin>]``.
    settings: Mapping[str, Any]
    #: Where this job's output files go.
    directory: Path
    #: File name without suffix that outputs should be named after, if the submitter said so.
    stem: str | None
    log: logging.LoggerAdapter[logging.Logger]

    @property
    def saved(self) -> dict[str, Any] | None:
        """What `checkpoint` saved in an earlier attempt, or None."""

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop: cancelled or draining."""

    def check(self) -> None:
        """Raise `JobCancelled` or `Interrupted` if the job should stop; call it between units of work."""

    def models(
        self, ref: str | None, *, runtime: str, draft_model: str | None = None
    ) -> AbstractContextManager[ModelHandle]:
        """Lease the model *ref* (None: the configured default of *runtime*), loading it first if need be.

        With the reference *draft_model* that smaller model is loaded beside it, for speculative decoding.

        Raises:
            ModelMissing, ModelBroken, ModelTooLarge, UnknownRuntime: let them through, the daemon knows what to do.

        """

    def input_read(self) -> None:
        """Say that the input file has been read: what comes of it is of what the job was made of, or of nothing.

        Call it after the last byte was read. A task that never does is asked when it has returned. Without a watched
        folder's file this does nothing.

        Raises:
            InputChanged: the file was changed meanwhile; let it through, its new content is another job.

        """

    def progress(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        """Say how far the job is. Cheap: may be called for every token; the ledger is written at most once a second."""

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send a live event ("token", "segment") to whoever follows this job."""

    def output(self, name: str, data: str | bytes) -> OutputFile:
        """Write one result file whole or not at all, never over a stranger's file, and return what was written.

        *name* is a relative file name; it is sanitised and stays under `directory`. Writing the same name again in the
        same job replaces what the job wrote.
        """

    def written(self, name: str) -> OutputFile | None:
        """Return the file that an earlier attempt of this job wrote as *name*, if it is still as it was written.

        It may be newer than what `saved` knows: a file is on disk before the checkpoint that tells of it.
        """

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        """Durably save where the task is (JSON, small): the next attempt finds it in `saved`."""

    def run(
        self, task: str, params: Mapping[str, Any], *, stem: str | None = None, outputs: bool = True
    ) -> dict[str, Any]:
        """Run another task as a step of this job and return its result (the steps of a pipeline).

        With *outputs* false the step's `output` writes nothing: only its result counts.

        Raises:
            InvalidParams: *params* do not fit *task*.
            UnknownTask: no loaded plugin offers it.

        """


class Task(Protocol):
    """One kind of job.

    It may have an attribute ``repeatable = True``: its result then depends on nothing but its parameters, the files
    they name and the models it asks, so that a recorded result may stand for it. What was drawn by chance (a request
    with a temperature and without a seed) is never taken for repeatable. An attribute ``runtime`` names the runtime
    that its parameter ``model`` is for. A parameter ``front_matter`` (a bool) says that it reads prompt files that set
    parameters themselves (`plugins.front_matter`).
    """

    #: Unique name: what a submitter says.
    name: str
    #: One line for `mlxd plugins` and help texts.
    summary: str
    #: Validates a job's parameters before it is accepted. A field named ``file`` holds the input's absolute path.
    params: type[BaseModel]

    def run(self, ctx: TaskContext, params: Any) -> Mapping[str, Any]:
        """Do the job and return its result as JSON; the key ``text`` is what a pipeline's next step gets.

        Runs on a worker thread of the daemon: hold no model, do no heavy work. What it raises fails the job;
        retryable `MlxdError` are tried again.
        """
