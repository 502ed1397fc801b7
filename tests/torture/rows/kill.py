"""Kill -9 of the daemon at random instants, under load."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torture import rawhuey
from torture.checker import Verdict, check
from torture.demo_jobs import demo_jobs, sprinkled
from torture.history import History
from torture.home import TortureHome
from torture.killing import CONFIG, FileDropper, Killer, Recovery, recovery
from torture.launchsim import Supervisor, group
from torture.load import Load, Mix, mixed
from torture.row import Control, Outcome, Say, Tier, judged, percentile
from torture.withheld import Withheld, lengths

#: Seconds, at the 99th percentile: from a start to the first answer, from a kill to the next claim of a job.
READY_S, CLAIMED_S = 2.0, 5.0
_NOTE = "Whole times are judged; own_... is what remains of them without the time that the machine's host withheld."


@dataclass(frozen=True)
class Phase:
    """A load, and how often and how soon the daemon is killed under it."""

    name: str
    mix: Mix
    kills: int
    #: Jobs that have to be acknowledged before it ends.
    jobs: int
    #: Submissions a second.
    rate: float
    #: The longest life after the first answer, seconds. The demo models take that long to be loaded.
    life_s: float


WITH_DEMO = sprinkled(mixed, 0.1)
PHASES = {
    Tier.SHORT: (Phase("stub", mixed, 6, 60, 15.0, 0.6), Phase("demo", WITH_DEMO, 2, 40, 10.0, 3.0)),
    Tier.LONG: (
        Phase("stub", mixed, 975, 6_000, 30.0, 0.7),
        Phase("busy", mixed, 100, 13_000, 30.0, 10.0),  # long lives: more is under way when they end
        Phase("demo", WITH_DEMO, 25, 2_000, 10.0, 6.0),
    ),
}
CONTROL_KILLS = {Tier.SHORT: 4, Tier.LONG: 20}


class _Attack:
    """One home, killed through all phases."""

    def __init__(self, folder: Path, *, seed: int, say: Say) -> None:
        self.home = TortureHome(folder, config=CONFIG)
        self.history = History(folder / "history.jsonl")
        self.seed, self.say = seed, say
        self.broken: list[str] = []
        self.counts = {"unanswered": 0, "refused": 0, "files": 0, "kills": 0}

    def run(self, phases: Sequence[Phase]) -> None:
        """Run the phases, let everything become still, and stop the daemon."""
        files = FileDropper(self.home, self.history, rate=2.0, seed=f"{self.seed}-kill")
        with self.home.supervisor() as self.supervisor:
            self.killer = Killer(self.home, self.supervisor, random.Random(f"{self.seed}-kill"))
            self.supervisor.wait_spawn(1)
            files.start()
            for phase in phases:
                self._phase(phase)
            files.stop()
            if not files.settle(self.home, 60.0) or not self.home.settle(120.0):
                self.broken.append(
                    f"After the last kill {self.home.unfinished()} jobs were not done, and none in two minutes."
                )
            self.supervisor.stop()
            self._check_exits(self.supervisor)
        self.counts |= {"files": files.dropped}
        self.history.close()

    def _phase(self, phase: Phase) -> None:
        seed = f"{self.seed}-kill-{phase.name}"
        load = Load(self.home, self.history, clients=3, rate=phase.rate, seed=seed, mix=phase.mix, prefix=phase.name)
        load.start()
        kills = 0
        while kills < phase.kills or load.acknowledged < phase.jobs:
            self.history.event("kill", number=kills)
            self.killer.kill(life_s=phase.life_s)
            kills += 1
            if kills % 50 == 0:
                self.say(f"{phase.name}: {kills} kills, {load.acknowledged} jobs acknowledged")
        load.stop()
        self.counts["kills"] += kills
        self.counts["unanswered"] += load.unanswered
        self.counts["refused"] += load.refused
        self.broken += load.complaints

    def _check_exits(self, supervisor: Supervisor) -> None:
        """Every life but the last ended by our kill, the last by itself; and no runner outlived its daemon."""
        *killed, last = supervisor.exits
        died = [one.status for one in killed if one.status != -9]
        if died:
            self.broken.append(f"The daemon ended by itself, with {died}.")
        if last.status != 0 or last.by_kill_after_timeout:
            self.broken.append(f"The daemon was stopped at the end, and ended with {last.status}.")
        if left := group({one.pid for one in supervisor.exits}):
            self.broken.append(f"{len(left)} runners outlived their daemon.")

    def verdict(self) -> Verdict:
        """Hold what was promised against what there is."""
        home = self.home
        return check(self.history.path, ledger=home.ledger, executions=home.executions, results=home.results)


class Kill:
    """Row 1."""

    number, name = 1, "kill"
    fault = "kill -9 of the daemon at random instants under load"
    promise = "nothing acknowledged is lost or done twice; orphans are claimed within 5 s, ready within 2 s (p99)"
    timed: bool = True

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Kill it, check, and let stock huey go through the same."""
        attack = _Attack(folder / "home", seed=seed, say=say)
        with Withheld() as withheld:
            attack.run(PHASES[tier])
        verdict = attack.verdict()
        again = recovery(attack.home.executions, attack.supervisor.spawns, attack.supervisor.exits)
        return Outcome(
            tries=attack.counts["kills"],
            acknowledged=verdict.promised,
            lost=verdict.lost,
            doubled=verdict.doubled,
            recoveries=lengths(again.from_kill),
            broken=[*verdict.sentences, *attack.broken, *_late(attack.killer, again, judged(tier))],
            controls=[_control(folder / "huey", CONTROL_KILLS[tier], seed)],
            measured={
                "demo_jobs": demo_jobs(attack.history.path),
                **attack.counts,
                **_times("ready", lengths(attack.killer.ready)),
                **_times("claimed", lengths(again.from_start)),
                **_times("own_ready", withheld.own(attack.killer.ready)),
                **_times("own_recovery", withheld.own(again.from_kill)),
                "withheld_share": round(withheld.share, 3),
            },
            notes=[_NOTE, *_busy()],
        )


def _late(killer: Killer, again: Recovery, share: float) -> list[str]:
    by, found = f"({share:.0%} of the times)", []
    if (took := percentile(lengths(killer.ready), share)) > READY_S:
        found.append(f"The daemon was ready after {took:.2f} s {by}, which is more than {READY_S:g} s.")
    if (took := percentile(lengths(again.from_kill), share)) > CLAIMED_S:
        found.append(f"Orphans were claimed {took:.2f} s after the kill {by}, more than {CLAIMED_S:g} s.")
    return found


def _busy() -> list[str]:
    """Say that others wanted the processors too: then the times are theirs as much as ours."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return [f"The load average was {load:.0f} on {processors} processors."] if load > 2 * processors else []


def _times(name: str, seconds: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {f"{name}_{label}_s": round(percentile(seconds, share), 3) for label, share in shares.items()}


def _control(folder: Path, kills: int, seed: int) -> Control:
    """Stock huey deletes a task before it runs it: whatever its workers had in hand is gone."""
    verdict, accepted = rawhuey.attack(folder, kills=kills, chance=random.Random(f"{seed}-huey"))
    evidence = f"{verdict.lost} of {accepted} acknowledged tasks lost by {kills} kills of {rawhuey.WORKERS} workers"
    return Control(name="stock huey, no ledger", caught=0 < verdict.lost < accepted, evidence=evidence)


ROW = Kill()
