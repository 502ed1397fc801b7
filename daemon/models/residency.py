"""Which models stay, who waits, who is evicted. Pure: facts in, a decision out; no clock, no lock, no process.

The decision for each request in the line (`decide`), numbered as in the body:

1. Its model is resident and ready, and its place is not promised to a request ahead: **serve**.
2. Its model is being loaded: **wait** for that one load, however many ask.
3. Its model, or enough of the others, is on the way out or promised away, or somebody ahead has room made for the same
   model: **wait** for that.
4. It cannot fit even with everything unpinned evicted: **refuse**, with the numbers.
5. There is room that nobody ahead counts on: **load**.
6. Evicting idle, unpinned models, least recently used first, makes room: **evict** them; load when they are gone. Not
   those that have just come for queued jobs that are ahead: a free worker has to have the time to take one of these.
7. Only models in use could make room: **wait** for their leases to end, and promise their places to this request, so
   that an endless stream of requests on a resident model cannot starve one for another model.
8. It is polite (nobody of its lane is to be disturbed for it), and only models could make room that its own lane, or a
   more urgent one, has jobs for: **wait**, and count on nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from types import MappingProxyType
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
    #: Whether it was loaded for jobs of which none has used it yet: not even for want of memory is it unloaded before.
    reserved: bool = False
    #: Whether jobs wait for it: it is not unloaded for idleness.
    wanted: bool = False
    #: When it became ready, seconds.
    since: float = 0.0
    #: Bytes: what its runner reported, before that what was estimated.
    memory: int = 0

    @property
    def idle(self) -> bool:
        """Whether it may be unloaded without hurting anybody."""
        return self.phase is Phase.READY and self.leases == 0


class Claim(IntEnum):
    """How strong a request is among equally urgent ones."""

    #: A running job, which holds a worker, waits.
    RUNNING = 0
    #: Queued jobs have waited long enough.
    DUE = 1
    #: Queued jobs wait, and nobody of their lane is to be disturbed for them.
    POLITE = 2


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
    claim: Claim = Claim.RUNNING

    def urgency(self, now: float) -> int:
        """Return its place in the line; the lower goes first. Waiting does not lift who is polite."""
        return urgency(self.lane, now if self.claim is Claim.POLITE else self.since, now)


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


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What requests that wait ahead in the line count on."""

    #: Models whose place is promised to them: nobody behind is served on these.
    promised: frozenset[str] = frozenset()
    #: Bytes they need together.
    need: int = 0
    #: The models that this room is for: it is counted once, however many ask for one of them.
    coming: frozenset[str] = frozenset()
    #: Models that came for queued jobs, of which none has begun yet: nobody behind makes room of these.
    kept: frozenset[str] = frozenset()

    def behind(self, request: Request, decision: Decision) -> Ahead:
        """Return what the next in the line finds ahead when *request* has to wait for room."""
        if decision.verdict is Verdict.EVICT or (decision.verdict is Verdict.WAIT and decision.case not in _MODEST):
            need = 0 if request.key in self.coming else request.need
            promised, coming = self.promised | set(decision.victims), self.coming | {request.key}
            return replace(self, promised=promised, need=self.need + need, coming=coming)
        return self

    def keeping(self, key: str) -> Ahead:
        """Return what the next in the line finds when the model *key* is there for the jobs of a request ahead."""
        return replace(self, kept=self.kept | {key})


#: Case 2: the room is already taken by the load under way.
LOADING_CASE: Final = 2
POLITE_CASE: Final = 8
#: Waiting in these cases counts on no room.
_MODEST: Final = frozenset({LOADING_CASE, POLITE_CASE})
NOBODY: Final = Ahead()


def line_up(requests: Iterable[Request], now: float) -> list[Request]:
    """Return *requests* in the order they are served: by lane, waiting lifts, first come first served within.

    Queued jobs are not lifted while a running one of their lane waits: its worker may be the one they would need.
    """
    line = list(requests)
    running = {one.lane for one in line if one.claim is Claim.RUNNING}

    def place(one: Request) -> tuple[int, Claim, int]:
        behind = one.claim is not Claim.RUNNING and one.lane in running
        return rank(one.lane) if behind else one.urgency(now), one.claim, one.seq

    return sorted(line, key=place)


def rank(lane: Lane) -> int:
    """Return the urgency of *lane*; the lower goes first."""
    return _RANK[lane]


def urgency(lane: Lane, since: float, now: float) -> int:
    """Return the place of a request of *lane* that waits *since*, seconds; the lower goes first."""
    return _RANK[lane] - int((now - since) // PATIENCE_S)


def decide(  # noqa: PLR0911 - one return for each numbered case
    request: Request,
    residents: Collection[Resident],
    budget: int,
    ahead: Ahead = NOBODY,
    demand: Mapping[str, Lane] = MappingProxyType({}),
) -> Decision:
    """Decide about *request*; *ahead* is what the requests before it in the line count on.

    *demand* is the most urgent lane that has jobs for a model, by its key.
    """
    mine = next((one for one in residents if one.key == request.key), None)
    if mine is not None:
        if mine.phase is Phase.READY and mine.key not in ahead.promised:  # 1
            return Decision(verdict=Verdict.SERVE, case=1)
        return Decision(verdict=Verdict.WAIT, case=2 if mine.phase is Phase.LOADING else 3)
    if request.key in ahead.coming:  # 3
        return Decision(verdict=Verdict.WAIT, case=3)
    available = budget - _memory(one for one in residents if one.pinned)
    if request.need > available:  # 4
        return Decision(verdict=Verdict.REFUSE, case=4, available=available)
    free = budget - _memory(residents)
    coming = _memory(one for one in residents if one.phase is Phase.UNLOADING or one.key in ahead.promised)
    if request.need <= free - max(0, ahead.need - coming):  # 5
        return Decision(verdict=Verdict.LOAD, case=5)
    missing = request.need + ahead.need - free - coming
    if missing <= 0:  # 3
        return Decision(verdict=Verdict.WAIT, case=3)
    taken = ahead.promised | ahead.kept
    others = [one for one in residents if not (one.pinned or one.phase is Phase.UNLOADING or one.key in taken)]
    if request.claim is Claim.POLITE:
        others = [one for one in others if one.key not in demand or rank(request.lane) < rank(demand[one.key])]
    if victims := _enough([one for one in others if one.idle], missing):  # 6
        return Decision(verdict=Verdict.EVICT, case=6, victims=victims)
    victims = _enough(others, missing)
    if request.claim is Claim.POLITE and not victims:  # 8
        return Decision(verdict=Verdict.WAIT, case=POLITE_CASE)
    return Decision(verdict=Verdict.WAIT, case=7, victims=victims)  # 7


def _memory(residents: Iterable[Resident]) -> int:
    return sum(one.memory for one in residents)


def overflow(residents: Collection[Resident], budget: int) -> tuple[str, ...]:
    """Return the idle models to unload because the runners turned out to take more than *budget* together."""
    missing = _memory(one for one in residents if one.phase is not Phase.UNLOADING) - budget
    spare = [one for one in residents if one.idle and not (one.pinned or one.reserved)]
    return _enough(spare, missing) or tuple(one.key for one in spare) if missing > 0 else ()


def expired(residents: Collection[Resident], now: float) -> tuple[str, ...]:
    """Return the idle models whose keep-alive has run out."""
    return tuple(one.key for one in residents if (at := deadline(one)) is not None and at <= now)


def deadline(resident: Resident) -> float | None:
    """Return when *resident* is to be unloaded if nobody uses it, or None."""
    stays = resident.pinned or resident.reserved or resident.wanted
    if not resident.idle or stays or resident.keep_alive is None:
        return None
    return resident.last_used + resident.keep_alive


def _enough(candidates: Sequence[Resident], missing: int) -> tuple[str, ...]:
    """Return those of *candidates* that free *missing* bytes; () if all together do not.

    Idle ones come first, the least recently used of them; of those in use the one that has had its place the longest.
    """
    victims, freed = [], 0
    for one in sorted(candidates, key=_expendability):
        if freed >= missing:
            break
        victims.append(one.key)
        freed += one.memory
    return tuple(victims) if freed >= missing else ()


def _expendability(resident: Resident) -> tuple[bool, float, float, str]:
    used = resident.leases > 0
    return used, resident.since if used else resident.last_used, resident.last_used, resident.key
