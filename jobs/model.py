"""A job: a frozen value, its states, and the one table of allowed transitions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# Crockford's base 32 in lower case: no i, l, o, u, so an id can be read aloud and typed from a screen.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH: Final = 10
_BITS: Final = 5 * _ID_LENGTH


class State(StrEnum):
    """Where a job stands."""

    #: Durable and waiting for a worker (or for ``not_before``).
    QUEUED = "queued"
    #: Claimed by exactly one attempt, the one that holds the fence.
    RUNNING = "running"
    #: Finished; its outputs are on disk and recorded.
    SUCCEEDED = "succeeded"
    #: Gave up; ``error`` says why.
    FAILED = "failed"
    #: Taken back by the person.
    CANCELLED = "cancelled"
    #: Cannot run until something arrives (a plugin, a model); goes on by itself.
    BLOCKED = "blocked"
    #: Killed its runner too often; goes on only when released by hand.
    QUARANTINED = "quarantined"


#: Which state may follow which. Nothing else is ever written.
TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.BLOCKED}),
        State.RUNNING: frozenset(State) - {State.RUNNING},
        State.BLOCKED: frozenset({State.QUEUED, State.CANCELLED}),
        State.QUARANTINED: frozenset({State.QUEUED, State.CANCELLED}),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

#: States that never change again.
TERMINAL: Final = frozenset(state for state, following in TRANSITIONS.items() if not following)


class Lane(StrEnum):
    """How urgently somebody waits: each lane has workers of its own, so none blocks another."""

    #: A person is looking at the screen.
    INTERACTIVE = "interactive"
    #: Somebody will look soon.
    NORMAL = "normal"
    #: Whenever there is room.
    BATCH = "batch"


class Frozen(BaseModel):
    """A value: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(Frozen):
    """How far a job is."""

    #: Amount done, in *unit*.
    done: float = 0.0
    #: Amount in all, in *unit*; None while unknown.
    total: float | None = None
    #: "tokens", "s" (seconds of audio), "items", "bytes", "steps", ...
    unit: str = ""
    #: A short phrase for people ("loading demo:lm", "page 3 of 9").
    message: str = ""
    #: Units a second, as last measured; for audio this is the multiple of real time.
    rate: float | None = None


class ErrorInfo(Frozen):
    """Why a job failed, is blocked or is quarantined."""

    #: The error's stable name: ``MlxdError.slug``.
    type: str
    #: A sentence that says what happened and what to do.
    message: str
    #: Machine-readable details.
    facts: dict[str, Any] = Field(default_factory=dict)


class Source(Frozen):
    """Where a job came from."""

    #: "cli", "api", "folder", "schedule", "retry", "demo".
    kind: str = "api"
    #: The input file that a folder rule took, or another detail for people.
    detail: str | None = None
    #: Name of the folder rule, schedule or client.
    rule: str | None = None


class After(StrEnum):
    """What becomes of the input file when its job succeeded."""

    LEAVE = "leave"
    #: Move it into ``done/`` beside it.
    DONE = "done"
    DELETE = "delete"


class Placement(Frozen):
    """Where a job's result files go."""

    #: Absolute folder; None means the job's own folder under the home's ``results``.
    directory: Path | None = None
    #: File name without suffix that outputs are named after; None lets the task choose.
    stem: str | None = None
    #: The watched input to settle afterwards (move, delete, error sidecar), if there is one.
    input: Path | None = None
    #: What becomes of that input on success.
    after: After = After.LEAVE
    #: The watched folder. Below it no link is followed to read the input, to put it away or to write outputs: who may
    #: put files there could swap a folder for a link at any moment.
    root: Path | None = None


class OutputFile(Frozen):
    """One file a job wrote."""

    #: Absolute path.
    path: Path
    #: Bytes.
    size: int
    #: Hexadecimal SHA-256 of the content.
    sha256: str


class NewJob(Frozen):
    """What a submitter says; everything else about a job is the ledger's to decide."""

    #: Name of a task, as plugins register it.
    task: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: The task's parameters as JSON; the task's own model validates them.
    params: dict[str, Any] = Field(default_factory=dict)
    lane: Lane = Lane.NORMAL
    #: Within a lane higher runs first.
    priority: int = Field(default=0, ge=-100, le=100)
    #: Submitting the same key again gives the same job.
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    #: The job this one belongs to or repeats.
    parent: str | None = None
    source: Source = Source()
    placement: Placement = Placement()
    #: How many failed attempts are allowed before the job fails (crashes are counted apart).
    max_failures: int = Field(default=3, ge=1, le=100)
    #: Not before this time.
    not_before: AwareDatetime | None = None
    #: Whether the recorded result of the same work may stand for this job's own; None: as the configuration says.
    reuse: bool | None = None
    #: Whether a ``.mlxd.json`` is put beside each output; None: as the configuration says.
    provenance: bool | None = None


class Job(NewJob):
    """A job as the ledger has it."""

    id: str
    #: Order of acceptance; unique, growing.
    seq: int
    state: State = State.QUEUED
    #: Claims so far; a drained or orphaned attempt is given back.
    attempts: int = 0
    #: Attempts that ended in a retryable error.
    failures: int = 0
    #: Attempts that ended with the runner's death.
    crashes: int = 0
    #: Grows with each claim; every write of a running job carries it.
    fence: int = 0
    #: Which daemon process holds the claim.
    owner: str | None = None
    cancel_requested: bool = False
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    progress: Progress | None = None
    #: What the task returned, JSON; ``result["text"]`` is the text, if there is one.
    result: dict[str, Any] | None = None
    error: ErrorInfo | None = None
    outputs: tuple[OutputFile, ...] = ()
    #: Why a queued job is held back, and until when. Not written down: the daemon says it when it is asked.
    waiting: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether this state is final."""
        return self.state in TERMINAL

    @property
    def log_context(self) -> dict[str, Any]:
        """What log lines say about a job: never its parameters or its result."""
        return {"job": self.id, "task": self.task, "state": self.state.value, "attempt": self.attempts}


def new_job_id() -> str:
    """Return a fresh id: 50 random bits as ten characters (the ledger refuses the odd twin)."""
    number = secrets.randbits(_BITS)  # all at once: each request for random bits is one to the kernel
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, _BITS, 5))


def allowed(before: State, after: State) -> bool:
    """Return whether *after* may follow *before*."""
    return after in TRANSITIONS[before]
