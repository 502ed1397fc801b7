"""What a runtime plugin gives: one kind of model, held in memory and served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol


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


class Runtime(Protocol):
    """One kind of model."""

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
