"""Which models stay, who waits, who is evicted. Pure: facts in, a decision out; no clock, no lock, no process.

The decision for the request at the head of the line (`decide`), numbered as in the body:

1. Its model is resident and ready, and no request ahead of it waits for that model's place: **serve**.
2. Its model is being loaded: **wait** for that one load, however many ask.
3. Its model is on its way out, or its place is promised to a request ahead: **wait**.
4. It cannot fit even with everything unpinned evicted: **refuse**, with the numbers.
5. There is room: **load**.
6. Evicting idle, unpinned models, least recently used first, makes room: **evict** them; load when they are gone.
7. Only models in use could make room: **wait** for their leases to end, and promise their places to this request, so
   that an endless stream of requests on a resident model cannot starve one for another model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from jobs.model import Lane

_RANK: Final = {Lane.INTERACTIVE: 0, Lane.NORMAL: 1, Lane.BATCH: 2}

#: Seconds of waiting that lift a request one lane: nobody waits for ever behind a busy lane.
PATIENCE_S: Final = 30.0


class Phase(Enum):
    """Where a resident model stands."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(frozen=True, kw_only=True)
class Resident:
    """One model that takes memory."""

    key: str
    phase: Phase
    #: Requests and tasks that hold it.
    leases: int = 0
    pinned: bool = False
    #: When a lease last began or ended, seconds on the scheduler's clock.
    last_used: float = 0.0
    #: Seconds it stays after its last use; None: for ever.
    keep_alive: float | None = None
    #: Bytes: what its runner reported, before that what was estimated.
    memory: int = 0

    @property
    def idle(self) -> bool:
        """Whether it may be unloaded without hurting anybody."""
        return self.phase is Phase.READY and self.leases == 0


@dataclass(frozen=True, kw_only=True)
class Request:
    """Somebody who waits for a model."""

    key: str
    lane: Lane
    #: Order of arrival.
    seq: int
    #: When it arrived, seconds on the scheduler's clock.
    since: float
    #: Bytes its model will need.
    need: int


class Verdict(Enum):
    """What to do with a request."""

    SERVE = "serve"
    WAIT = "wait"
    LOAD = "load"
    EVICT = "evict"
    REFUSE = "refuse"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict and what it concerns."""

    verdict: Verdict
    #: Number of the case in the module's docstring.
    case: int
    #: EVICT: models to unload now. WAIT in case 7: models whose place is promised to this request.
    victims: tuple[str, ...] = ()
    #: REFUSE: bytes that could be had at most.
    available: int = 0


def line_up(requests: Iterable[Request], now: float) -> list[Request]:
    """Return *requests* in the order they are served: by lane, waiting lifts, first come first served within."""
    return sorted(requests, key=lambda one: (_RANK[one.lane] - int((now - one.since) // PATIENCE_S), one.seq))


def decide(  # noqa: PLR0911 - one return for each numbered case
    request: Request, residents: Collection[Resident], budget: int, promised: Collection[str] = ()
) -> Decision:
    """Decide about *request*, whose predecessors in the line hold the places in *promised*."""
    mine = next((one for one in residents if one.key == request.key), None)
    if mine is not None:
        if mine.phase is Phase.READY and mine.key not in promised:  # 1
            return Decision(verdict=Verdict.SERVE, case=1)
        case = 2 if mine.phase is Phase.LOADING else 3
        return Decision(verdict=Verdict.WAIT, case=case)
    available = budget - sum(one.memory for one in residents if one.pinned)
    if request.need > available:  # 4
        return Decision(verdict=Verdict.REFUSE, case=4, available=available)
    missing = request.need - (budget - sum(one.memory for one in residents))
    if missing <= 0:  # 5
        return Decision(verdict=Verdict.LOAD, case=5)
    leaving = sum(one.memory for one in residents if one.phase is Phase.UNLOADING)
    if leaving >= missing:  # 3: what is on its way out will do
        return Decision(verdict=Verdict.WAIT, case=3)
    spare = [one for one in residents if one.idle and not one.pinned and one.key not in promised]
    if victims := _enough(spare, missing - leaving):  # 6
        return Decision(verdict=Verdict.EVICT, case=6, victims=victims)
    anybody = [one for one in residents if not one.pinned and one.phase is not Phase.UNLOADING]
    return Decision(verdict=Verdict.WAIT, case=7, victims=_enough(anybody, missing - leaving))  # 7


def overflow(residents: Collection[Resident], budget: int) -> tuple[str, ...]:
    """Return the idle models to unload because the runners turned out to take more than *budget* together."""
    missing = sum(one.memory for one in residents if one.phase is not Phase.UNLOADING) - budget
    spare = [one for one in residents if one.idle and not one.pinned]
    return _enough(spare, missing) or tuple(one.key for one in spare) if missing > 0 else ()


def expired(residents: Collection[Resident], now: float) -> tuple[str, ...]:
    """Return the idle models whose keep-alive has run out."""
    return tuple(one.key for one in residents if (at := deadline(one)) is not None and at <= now)


def deadline(resident: Resident) -> float | None:
    """Return when *resident* is to be unloaded if nobody uses it, or None."""
    if not resident.idle or resident.pinned or resident.keep_alive is None:
        return None
    return resident.last_used + resident.keep_alive


def _enough(candidates: Sequence[Resident], missing: int) -> tuple[str, ...]:
    """Return the least recently used idle-first *candidates* that free *missing* bytes; () if all together do not."""
    victims, freed = [], 0
    for one in sorted(candidates, key=lambda one: (one.leases > 0, one.last_used, one.key)):
        if freed >= missing:
            break
        victims.append(one.key)
        freed += one.memory
    return tuple(victims) if freed >= missing else ()
