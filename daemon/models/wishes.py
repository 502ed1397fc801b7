"""What queued jobs wish for: models that no worker is held for; and what their line may know of those that are here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from daemon.models.references import ResolvedModel
from daemon.models.residency import rank
from jobs.model import Lane

#: A place that is promised to nobody: every lane comes before it.
NOBODYS: Final = math.inf


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A model that jobs of one lane wait for."""

    model: ResolvedModel
    lane: Lane
    #: Bytes it will need.
    need: int
    #: Seconds on the scheduler's clock: since when it is due, or since when it is waited for.
    since: float
    #: Whether a model of the same lane is given up for it; if not, only one that nobody as urgent waits for.
    due: bool


class Line(Protocol):
    """The jobs that wait, as the scheduler sees them; asked on its thread, must not wait."""

    def wishes(self) -> Sequence[Wish]:
        """Return the models that are waited for, of each lane the most deserving first."""

    def demand(self) -> Mapping[str, Lane]:
        """Return of each model, by its key, the most urgent lane that has jobs for it: waiting, or just begun."""


class NoLine:
    """Nobody waits."""

    def wishes(self) -> Sequence[Wish]:
        """Return nothing."""
        return ()

    def demand(self) -> Mapping[str, Lane]:
        """Return nothing."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Which models jobs can be started on."""

    #: Key of each model that is ready -> the urgency of whoever its place is promised to.
    ready: Mapping[str, float] = field(default_factory=dict)
    #: Keys of models that will not be had by waiting: the job itself has to ask, and is told why.
    hopeless: frozenset[str] = frozenset()

    def opened(self, key: str, lane: Lane) -> bool:
        """Tell whether a job of *lane* on the model *key* need not wait in the line."""
        return key in self.hopeless or rank(lane) < self.ready.get(key, -math.inf)
