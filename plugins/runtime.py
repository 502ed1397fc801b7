"""What a runtime plugin gives: one kind of model, held in memory and served."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobs.model import Lane


class Estimate(NamedTuple):
    """Memory a model will need, in bytes."""

    #: The weights, as loaded.
    weights: int
    #: Everything else at the default load: caches, activations, the process itself.
    overhead: int

    @property
    def total(self) -> int:
        """Return weights and overhead together."""
        return self.weights + self.overhead


#: What a session tells: request id, kind, JSON data. The kinds ``done`` (data: the result) and ``error`` (data:
#: ``{"type", "message"}``) end the request; every other kind ("token", "segment", "progress") is passed on as it is.
Event = tuple[str, str, Mapping[str, Any]]


class Share(NamedTuple):
    """What a runner may occupy, in bytes, weights and everything else together."""

    #: Now.
    memory: int
    #: If every model were unloaded that can be.
    most: int
    #: Whether more is on its way: a model is being unloaded for it.
    coming: bool = False
    #: The `Memory.wanted` that this answers; 0: none.
    answers: int = 0
    #: What a token of context took beside what was reckoned, in earlier lives of the model; 1.0: as reckoned.
    factor: float = 1.0


class Session(Protocol):
    """A loaded model in a runner. Every method is called on the one thread that owns MLX."""

    #: JSON facts about what was loaded (context length, dtype, ...).
    info: Mapping[str, Any]

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""

    def submit(self, request_id: str, request: Mapping[str, Any]) -> None:
        """Take a request. A ``ValueError`` refuses this request alone."""

    def cancel(self, request_id: str) -> None:
        """Forget a request; unknown ids are ignored. Nothing more is told about it."""

    def step(self) -> Iterable[Event]:
        """Do one bounded unit of work (a token for the whole batch, a window) and tell what came of it."""

    def close(self) -> None:
        """Give everything back."""


class Memory(Protocol):
    """What a session may have as its attribute ``memory``: the machine is shared out by what requests really need.

    A session that stands still because its next request has no room yet says so by `wanted`, and is not `busy`.
    """

    @property
    def wanted(self) -> int:
        """Bytes the runner would have to have for its next request; 0 while it does not stand still."""

    @property
    def spare(self) -> int:
        """Bytes it keeps for speed alone, and could give back at once."""

    @property
    def ceiling(self) -> int | None:
        """Bytes that were too much: what it learned when memory ran out; None as long as it did not."""

    @property
    def factor(self) -> float:
        """What a token of context has taken, by what was reckoned: see `Share`."""

    def limit(self, share: Share) -> None:
        """Take a new share; what is under way goes on whatever it takes."""

    def trim(self) -> None:
        """Give back what is kept for speed alone."""

    def pause(self, lanes: Collection[Lane]) -> None:
        """Begin nothing new of *lanes* while anything else is under way; an empty collection: go on."""


class Runtime(Protocol):
    """One kind of model.

    It may have a method ``warm()``: called in a runner that waits for a model, to import what `load` will need.
    """

    #: Unique name: "lm", "whisper", ...
    name: str
    #: One line for people.
    summary: str

    def estimate(self, model: Path, options: Mapping[str, Any]) -> Estimate:
        """Say what *model* (a folder) will need. Runs in the daemon: reads headers, never imports MLX.

        Raises:
            ModelBroken: the folder is damaged or not allowed; the message says which file and why.

        """

    def load(self, model: Path, options: Mapping[str, Any]) -> Session:
        """Load *model*. Runs in the runner process, on the thread that will own it."""
