"""Looks after the memory of the machine while models are loaded, and gives some back when it gets short.

Owned by the scheduler's thread, like the residents. Nothing is looked at while nothing is loaded and nothing is wrong:
an idle daemon sleeps. While somebody works on a model it looks every `WORKING_S` seconds, otherwise every `RESTING_S`.

1. **warn**: every runner gives back what it keeps for speed alone and begins nothing new of the batch lane beside
   other work; no further job of the batch lane begins. If it is our own footprint that is too much, what has been idle
   longest is unloaded.
2. **critical**: every idle model is unloaded, pinned ones too, and the batch lane's jobs step aside: they go back into
   the queue at no cost.
3. A warning that outlasts `PATIENCE_S` holds the lane no longer: it is not us who could cure it, and nobody starves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Protocol

from daemon.models.footprint import tree_footprint
from daemon.models.pressure import kernel_level
from daemon.models.residency import Phase
from daemon.models.watermarks import RELAXED, Level, Marks, Sample, Strain, judge
from jobs.model import Lane

if TYPE_CHECKING:
    from daemon.models.residents import Residents
    from daemon.models.sparing import Keeper

log = logging.getLogger(__name__)

#: Seconds between two looks while a model is in use, and while models are only loaded or memory is short.
WORKING_S: Final = 1.0
RESTING_S: Final = 5.0
#: Seconds after which a warning, by itself, holds the batch lane no longer.
PATIENCE_S: Final = 600.0


class Loaded(Protocol):
    """What relief needs of the residents."""

    def pids(self) -> Collection[int]:
        """Return the processes that hold models, or wait to."""

    def in_use(self) -> bool:
        """Whether somebody has a lease."""

    def trim(self) -> None:
        """Let every runner give back what it keeps for speed alone."""

    def pause(self, lanes: Collection[Lane]) -> None:
        """Let the runners begin nothing new of *lanes* beside other work; none: go on."""

    def unload_idle(self, *, excess: int | None) -> int:
        """Unload idle models that free *excess* bytes, None: all, pinned ones too; return how many."""


class LoadedModels:
    """The residents as `Relief` sees them."""

    def __init__(self, residents: Residents, *, spare: Keeper) -> None:
        self._residents = residents
        self._spare = spare
        self.trim = residents.memory.trim
        self.pause = residents.memory.pause
        self.unload_idle = residents.unload_idle

    def pids(self) -> Collection[int]:
        """Return the runners' processes."""
        pids = [model.engine.pid for model in self._residents.models.values()]
        return [pid for pid in [*pids, self._spare.pid] if pid is not None]

    def in_use(self) -> bool:
        """Whether somebody has a lease, or a model is coming or going."""
        return any(model.leases or model.phase is not Phase.READY for model in self._residents.models.values())


def unlimited() -> Marks:
    """Return watermarks that nothing reaches."""
    return Marks(soft=1 << 60, hard=1 << 60)


class Relief:
    """*marks* tells the watermarks, *on_change* hears of each new level, on the scheduler's thread."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        marks: Callable[[], Marks],
        clock: Callable[[], float],
        on_change: Callable[[Strain], None] = lambda _strain: None,
        footprint: Callable[..., int] = tree_footprint,
        kernel: Callable[[], Level] = kernel_level,
    ) -> None:
        self._loaded = loaded
        self._marks = marks
        self._clock = clock
        self._on_change = on_change
        self._footprint = footprint
        self._kernel = kernel
        self._looked = float("-inf")
        self._raised = 0.0
        self._lock = threading.Lock()  # others read the strain
        self._strain = RELAXED

    @property
    def strain(self) -> Strain:
        """Return how things stand; any thread may ask."""
        with self._lock:
            return self._strain

    def holds(self, lane: Lane) -> str | None:
        """Return why no job of *lane* should begin now, None if it may; any thread may ask."""
        strain = self.strain
        if lane is not Lane.BATCH or strain.level is Level.NORMAL:
            return None
        if strain.level is Level.WARN and self._clock() - self._raised > PATIENCE_S:
            return None
        return f"memory is short ({strain.reason}), goes on when there is enough"

    def stops(self, lane: Lane) -> bool:
        """Tell whether running jobs of *lane* have to step aside; any thread may ask."""
        return lane is Lane.BATCH and self.strain.level is Level.CRITICAL

    def due(self) -> float | None:
        """Return when to look next, on the clock; None while there is nothing to look after."""
        if not self._loaded.pids() and self._strain.level is Level.NORMAL:
            return None
        return self._looked + (WORKING_S if self._loaded.in_use() else RESTING_S)

    def look(self) -> None:
        """Look, if it is time, and do what has to be done."""
        due, now = self.due(), self._clock()
        if due is None or now < due:
            return
        self._looked = now
        marks, pids = self._marks(), self._loaded.pids()
        sample = Sample(footprint=self._footprint(pids, beyond=marks.soft) if pids else 0, kernel=self._kernel())
        before = self._strain
        strain = judge(before, sample, marks, now)
        with self._lock:
            self._strain = strain
        self._act(before, strain, excess=sample.footprint - marks.soft)
        if strain.level is not before.level:
            self._tell(before, strain, now)

    def _act(self, before: Strain, strain: Strain, *, excess: int) -> None:
        if strain.level > before.level:
            self._loaded.trim()
        if (strain.level is Level.NORMAL) is not (before.level is Level.NORMAL):
            self._loaded.pause([] if strain.level is Level.NORMAL else [Lane.BATCH])
        if strain.level is Level.CRITICAL:
            self._loaded.unload_idle(excess=None)
        elif excess > 0:
            self._loaded.unload_idle(excess=excess)

    def _tell(self, before: Strain, strain: Strain, now: float) -> None:
        if before.level is Level.NORMAL:
            self._raised = now
        context = {"action": "memory.level", "level": strain.level.name.lower(), "footprint": strain.footprint}
        if strain.level > before.level:
            log.warning("Memory is short: %s.", strain.reason, extra=context)
        else:
            log.info("Memory is less short than it was.", extra=context)
        self._on_change(strain)
