"""Power cuts on results: what jobs write, and the ledger beside it, cut anywhere, with any part of the rest there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from jobs.ledger import Ledger
from jobs.model import OutputFile
from jobs.outputs import OutputWriter
from torture.crash_cut import cut
from torture.crash_disk import Replay, rng
from torture.crash_outputs import Findings, Outputs
from torture.row import Control, Outcome, Say, Tier

#: Where the disks are: memory, if there is a file system in it. The path is in the ledger and may differ by run.
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of it."""

    seeds: int
    points: int


_PLANS = {Tier.SHORT: Plan(seeds=6, points=20), Tier.LONG: Plan(seeds=160, points=40)}
_CONTROLS = {Tier.SHORT: Plan(seeds=2, points=10), Tier.LONG: Plan(seeds=6, points=40)}


@dataclass
class Tally:
    """What came of the cuts of one build."""

    points: int = 0
    #: Cuts at which anything was wrong.
    bad: int = 0
    jobs: int = 0
    succeeded: int = 0
    unsynced: int = 0
    findings: Findings = field(default_factory=Findings)

    def add(self, found: Findings, where: str) -> None:
        """Count one cut."""
        self.points += 1
        self.bad += bool(found.sentences)
        for sentence in found.sentences:
            self.findings.say(f"{where}: {sentence}")
        self.findings.lost += found.lost
        self.findings.doubled += found.doubled


def attack(plan: Plan, tally: Tally, *, seed: object, deaf: str = "", cached: bool = False) -> None:
    """Let some jobs write, then cut the power of their disk at many moments."""
    with tempfile.TemporaryDirectory(prefix="mt-", dir=_MEMORY if _MEMORY.is_dir() else None) as root:
        life = Outputs(Path(root), rng(seed, "life"), cached=cached, deaf=deaf)
        tally.jobs += len(life.promised(len(life.disk.events))[0])
        replay, random_ = Replay(life.disk.events, cached=cached), rng(seed, "points")
        moments = range(life.first, len(life.disk.events) + 1)
        for number, at in enumerate(sorted(random_.choices(moments, k=plan.points))):
            replay.forward(at)
            tally.unsynced += replay.unsafe > 0
            tally.succeeded += len(life.promised(at)[1])
            found = life.examine(cut(replay, rng(seed, "cut", number)), at)
            tally.add(found, f"seed {seed}, cut {number} before event {at}")


def _write_plainly(self: OutputWriter, wanted: Path, content: bytes, folder: int) -> OutputFile:
    """Open the final name and write: what most programs do."""
    file = os.open(wanted.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
    os.write(file, content)
    os.close(file)
    return OutputFile(path=wanted, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _forget(*_: object) -> None:
    """Note no intent: a file that got its name just before the cut is taken for a stranger's."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A build that must not survive."""

    name: str
    deaf: str = ""
    #: What stands in for what: (class, name of a method, function).
    patch: tuple[type, str, Callable[..., Any]] = (OutputWriter, "write", OutputWriter.write)


_BROKEN = (
    Broken(name="the data is not synced", deaf="files"),
    Broken(name="the folder is not synced", deaf="folders"),
    Broken(name="the final path is opened and written", patch=(OutputWriter, "_write", _write_plainly)),
    Broken(name="no intent is noted", patch=(Ledger, "intend", _forget)),
)


def _control(broken: Broken, plan: Plan, seed: int) -> Control:
    tally = Tally()
    with mock.patch.object(*broken.patch):
        for number in range(plan.seeds):
            attack(plan, tally, seed=f"{seed}-{broken.name}-{number}", deaf=broken.deaf)
    first = tally.findings.sentences[0].split(": ", 1)[1] if tally.bad else "nothing was wrong"
    evidence = f"{tally.bad} of {tally.points} cuts: {first[:120]}"
    return Control(name=broken.name, caught=tally.bad > 0, evidence=evidence)


class PowerOutputs:
    """The row."""

    number = 4
    name = "power-outputs"
    fault = "power cut on outputs"
    promise = "a final path is absent or right, succeeded implies right, strangers' files and inputs are as they were"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Cut the power of disks on which jobs write, replace and go on, then go on on what is left."""
        plan, tally = _PLANS[tier], Tally()
        for number in range(plan.seeds):
            attack(plan, tally, seed=f"{seed}-{number}", cached=number % 2 == 1)
            if (number + 1) % 20 == 0:
                say(f"{number + 1} of {plan.seeds} seeds, {tally.points} cuts")
        return Outcome(
            tries=tally.points,
            acknowledged=tally.jobs,
            lost=tally.findings.lost,
            doubled=tally.findings.doubled,
            broken=tally.findings.sentences,
            controls=[_control(broken, _CONTROLS[tier], seed) for broken in _BROKEN],
            measured={
                "seeds": plan.seeds,
                "cuts_with_something_unsynced": tally.unsynced,
                "successes_looked_after": tally.succeeded,
            },
        )


ROW = PowerOutputs()
