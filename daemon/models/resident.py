"""A model that takes memory, as the scheduler's thread keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from daemon.models.leases import EngineLike, Lease
from daemon.models.references import ResolvedModel
from daemon.models.residency import Phase, Resident


@dataclass(kw_only=True, eq=False)
class Model:
    """A model that takes memory; owned by the scheduler's thread."""

    resolved: ResolvedModel
    engine: EngineLike
    estimate: int
    pinned: bool
    keep_alive: float | None
    last_used: float
    phase: Phase = Phase.LOADING
    leases: int = 0
    memory: int | None = None
    #: Bytes it would have to have for its next request; 0: it does not stand still.
    wants: int = 0
    #: The bytes that it said were too much.
    ceiling: int | None = None
    doomed: bool = False
    refs: set[str] = field(default_factory=set)
    #: Whether it was loaded for queued jobs of which none has used it yet.
    reserved: bool = False
    #: Whether queued jobs wait for it.
    wanted: bool = False
    #: Leases that may be asked back.
    lent: list[Lease] = field(default_factory=list)
    #: When it became ready, on the scheduler's clock.
    since: float = 0.0
    loaded_at: datetime | None = None
    used_at: datetime | None = None

    def facts(self) -> Resident:
        """Return what the policy needs to know of it."""
        return Resident(
            key=self.resolved.key,
            phase=self.phase,
            leases=self.leases,
            pinned=self.pinned and not self.doomed,
            last_used=self.last_used,
            keep_alive=0.0 if self.doomed else self.keep_alive,
            memory=self.estimate if self.memory is None else self.memory,
            reserved=self.reserved and not self.doomed,
            wanted=self.wanted and not self.doomed,
            since=self.since,
        )
