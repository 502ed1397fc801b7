"""When a runner without a model is kept ready (`daemon.models.spares`); decided on the scheduler's thread.

1. `DELAY_S` after a model was loaded, when its first request has the machine no longer to itself, one is started.
2. It is ended when memory is short, or when nothing has been loaded for `LONELY_S`: an idle daemon stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from daemon.models.references import ResolvedModel
from daemon.models.residency import Phase
from daemon.models.resident import Model
from plugins.estimate import PROCESS

DELAY_S: Final = 2.0
LONELY_S: Final = 60.0


class Keeper(Protocol):
    """What keeps the spare."""

    @property
    def pid(self) -> int | None:
        """The process that waits, None if there is none."""

    def keep(self, model: ResolvedModel) -> None:
        """Have a spare that could load models like *model*; may take a while."""

    def end(self) -> None:
        """End the spare, if there is one."""

    def close(self) -> None:
        """End it before this returns, and keep none any more."""


class Nobody:
    """Keeps no spare."""

    pid: int | None = None

    def keep(self, model: ResolvedModel) -> None:
        """Keep nothing."""

    def end(self) -> None:
        """End nothing."""

    def close(self) -> None:
        """Close nothing."""


class Sparing:
    """*models* are those that take memory; *background* runs what takes long."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        models: Callable[[], Iterable[Model]],
        clock: Callable[[], float],
        background: Callable[[Callable[[], None]], None],
    ) -> None:
        self.keeper = keeper
        self._models = models
        self._clock = clock
        self._background = background
        self._kept_for: Model | None = None
        self._lonely_since: float | None = None

    def due(self) -> float | None:
        """Return when there is something to decide, on the clock; None: when something happens."""
        if (newest := self._newest()) is not None and newest is not self._kept_for:
            return newest.since + DELAY_S
        if self._lonely_since is not None and self.keeper.pid is not None:
            return self._lonely_since + LONELY_S
        return None

    def look(self, *, short: bool, room: int) -> None:
        """Start or end the spare; *short* says that memory is, *room* how many bytes of the budget nobody has."""
        now, newest = self._clock(), self._newest()
        self._lonely_since = None if any(True for _ in self._models()) else self._lonely_since or now
        lonely = self._lonely_since is not None and now >= self._lonely_since + LONELY_S
        if (short or lonely) and self.keeper.pid is not None:
            self.keeper.end()
        elif newest is not None and newest is not self._kept_for and now >= newest.since + DELAY_S:
            self._kept_for = newest
            if not short and room >= PROCESS:
                self._background(lambda: self.keeper.keep(newest.resolved))

    def _newest(self) -> Model | None:
        ready = (model for model in self._models() if model.phase is Phase.READY)
        return max(ready, key=lambda model: model.since, default=None)
