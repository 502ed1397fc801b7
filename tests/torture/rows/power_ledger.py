"""Power cuts on the ledger: SQLite's own writes and syncs, recorded, cut anywhere, with any part of the rest there."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torture.crash_cut import cut
from torture.crash_disk import Disk, Image, Op, Replay, rng
from torture.crash_ledger import Life
from torture.crash_verdict import Finding, examine, promised
from torture.row import Control, Outcome, Say, Tier

#: Where images are written: memory, if there is a file system in it.
_MEMORY = Path("/dev/shm")


@dataclass(kw_only=True)
class Plan:
    """How much of it."""

    seeds: int
    points: int
    steps: int = 120


_PLANS = {Tier.SHORT: Plan(seeds=6, points=84, steps=60), Tier.LONG: Plan(seeds=120, points=170)}
_CONTROLS = {Tier.SHORT: Plan(seeds=1, points=40, steps=60), Tier.LONG: Plan(seeds=6, points=50)}


@dataclass
class Tally:
    """What came of the cuts of one build."""

    points: int = 0
    acknowledged: int = 0
    lost: int = 0
    losing: int = 0
    corrupt: int = 0
    folded: int = 0
    pending: list[int] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)

    def add(self, found: Finding, where: str) -> None:
        """Count one cut."""
        self.points += 1
        self.lost += found.lost
        self.losing += bool(found.lost)
        self.corrupt += found.corrupt
        if found.sentence:
            self.sentences.append(f"{where}: {found.sentence}")


def attack(
    plan: Plan, tally: Tally, *, seed: object, cached: bool = False, heavy: bool = False, **pragmas: str
) -> None:
    """Record one life, cut it at many points; then the same with a life that begins on one of these disks."""
    start: Image = {}
    for life in range(2):
        start = _one_life(plan, tally, f"{seed}-{life}", start, cached=cached, heavy=heavy, **pragmas)


def _one_life(plan: Plan, tally: Tally, seed: str, start: Image, *, cached: bool, heavy: bool, **pragmas: str) -> Image:
    with _folder() as root, _folder() as place:
        disk = Disk()
        life = Life(root, disk, rng(seed, "life"), start=start, heavy=heavy, **pragmas)
        life.run(plan.steps)
        if rng(seed, "end").random() < 0.5:
            life.end()
        tally.folded += life.folded
        tally.acknowledged += len(life.states) - 1
        tally.kinds.update(event.op.value for event in disk.events)
        replay, promises = Replay(disk.events, cached=cached), promised(disk.events, life.first)
        points = _points(disk, life.first, plan.points // 2, seed)
        successor, chosen = start, rng(seed, "next").randrange(len(points))
        for number, at in enumerate(points):
            replay.forward(at)
            tally.pending.append(replay.unsafe)
            random_ = rng(seed, "cut", number)
            image = cut(replay, random_)
            found = examine(image, place, life.states, promises[at - life.first], random_)
            tally.add(found, f"seed {seed}, cut {number} before event {at}")
            if number <= chosen and not found.corrupt:
                successor = image
    return successor


def _points(disk: Disk, first: int, count: int, seed: str) -> list[int]:
    """Return moments in order: half of them anywhere, half around syncs, truncations, deletions and the main file."""
    random_ = rng(seed, "points")
    special = {Op.SYNC, Op.FULL_SYNC, Op.TRUNCATE, Op.NAMES}
    near = [
        min(max(number + near, first), len(disk.events))
        for number, event in enumerate(disk.events)
        if number >= first and event.op in special
        for near in (0, 1)
    ]
    anywhere = [random_.randint(first, len(disk.events)) for _ in range(count - count // 2)]
    return sorted(anywhere + random_.choices(near, k=count // 2))


class PowerLedger:
    """The row."""

    number = 3
    name = "power-ledger"
    fault = "power cut on the ledger"
    promise = "the ledger is sound, holds every acknowledged change and nothing that was never begun, and goes on"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Cut the power of ledgers at work, on a plain drive and on one with a cache of its own."""
        plan, tally = _PLANS[tier], Tally()
        for number in range(plan.seeds):
            attack(plan, tally, seed=f"{seed}-{number}", cached=number % 2 == 1, heavy=number % 24 in {4, 5})
            if (number + 1) % 10 == 0:
                say(f"{number + 1} of {plan.seeds} seeds, {tally.points} cuts")
        return Outcome(
            tries=tally.points,
            acknowledged=tally.acknowledged,
            lost=tally.lost,
            broken=tally.sentences,
            controls=[_control(broken, _CONTROLS[tier], seed) for broken in _BROKEN],
            measured=_figures(tally, plan),
        )


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A build that must not survive."""

    name: str
    pragmas: dict[str, str]
    caught: Callable[[Tally], bool]
    #: Whether the drive has a cache of its own.
    cached: bool = False


_BROKEN = (
    Broken(name="synchronous=NORMAL", pragmas={"synchronous": "NORMAL"}, caught=lambda tally: tally.losing > 0),
    Broken(
        name="synchronous=OFF",
        pragmas={"synchronous": "OFF"},
        caught=lambda tally: tally.corrupt > 0 or tally.losing > 0,
    ),
    Broken(
        name="fullfsync=OFF on a drive with a cache",
        pragmas={"fullfsync": "OFF"},
        caught=lambda tally: tally.losing > 0,
        cached=True,
    ),
)


def _control(broken: Broken, plan: Plan, seed: int) -> Control:
    tally = Tally()
    for number in range(plan.seeds):
        attack(plan, tally, seed=f"{seed}-{broken.name}-{number}", cached=broken.cached, **broken.pragmas)
    evidence = f"{tally.losing} of {tally.points} cuts lost acknowledged changes, {tally.corrupt} left a damaged ledger"
    return Control(name=broken.name, caught=broken.caught(tally), evidence=evidence)


def _figures(tally: Tally, plan: Plan) -> dict[str, object]:
    return {
        "seeds": plan.seeds,
        "cuts_with_something_unsynced": sum(pending > 0 for pending in tally.pending),
        "most_operations_unsynced": max(tally.pending),
        "folds_of_the_log_at_work": tally.folded,
        "damaged": tally.corrupt,
        "operations_recorded": dict(sorted(tally.kinds.items())),
    }


class _folder:  # noqa: N801 - used as a function
    """A folder for as long as it is used."""

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="mt-", dir=_MEMORY if _MEMORY.is_dir() else None))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path)


ROW = PowerLedger()
