"""Hints of the queue go wrong in every way, its file is attacked, its process is killed: every job one commit."""

from __future__ import annotations

import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torture.checker import Verdict, check
from torture.demo_jobs import demo_jobs, sprinkled
from torture.hint_siege import Siege
from torture.hint_vandal import Vandal
from torture.history import History
from torture.home import TortureHome
from torture.load import Load, mixed, wait_ready
from torture.row import Control, Outcome, Say, Tier, percentile

#: Episodes, jobs in each, every how many-th is killed, attacks on the file in each, period of looks in seconds.
_SIZES = {Tier.SHORT: (2, 120, 2, 5, 1.5), Tier.LONG: (50, 400, 3, 8, 2.0)}
#: Jobs that a spawned daemon takes while its queue's file is attacked, and how often it is killed meanwhile.
_SPAWNED = {Tier.SHORT: (60, 1), Tier.LONG: (1500, 15)}
#: Share of these for the demo models.
_DEMO = 0.05
#: Seconds between two looks of a broken house.
_CONTROL_PERIOD_S = 0.5
#: What is broken on purpose, and how the same storm has to give it away.
_CONTROLS = {
    "no-look": "the ledger is never compared with the queue",
    "no-cas": "a claim looks first and takes afterwards",
    "counting": "as many hints as jobs pass for a hint for each job",
}


class Hints:
    """Row 9."""

    number = 9
    name = "hints"
    fault = "queue hints lost, doubled, reordered, garbage; the queue's file deleted, cut, replaced, locked"
    promise = "every job exactly one commit, all done within twice the time between two looks"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Besiege a house, then houses that are broken on purpose."""
        logging.disable(logging.CRITICAL)
        siege, verdict = attack(folder / "real", tier, f"{seed}-hints", say)
        spawned = Spawned(folder / "home", f"{seed}-hints")
        with ThreadPoolExecutor() as pool:  # how long these take is of no account
            controls_to_come = pool.map(lambda name: control(folder, name, f"{seed}-{name}"), _CONTROLS)
            whole = spawned.run(*_SPAWNED[tier])
            controls = list(controls_to_come)
        say(f"{whole.promised} jobs of a spawned daemon")
        return Outcome(
            tries=siege.faults + spawned.attacks,
            acknowledged=verdict.promised + whole.promised,
            lost=verdict.lost + verdict.unfinished + whole.lost + whole.unfinished,
            doubled=verdict.doubled + whole.doubled + len(siege.verdict()),
            recoveries=siege.recoveries,
            broken=[*siege.broken, *siege.verdict(), *verdict.sentences, *whole.sentences],
            controls=controls,
            measured={
                "jobs": siege.jobs,
                "jobs_of_a_spawned_daemon": whole.promised,
                "demo_jobs": spawned.demo,
                "kills": siege.kills + _SPAWNED[tier][1],
                "file_attacks": sum(siege.vandal.deeds.values()) + spawned.attacks,
                "period_s": siege.period,
                "recovery_p50_s": round(percentile(siege.recoveries, 0.5), 2),
            },
        )


def attack(folder: Path, tier: Tier, seed: str, say: Say) -> tuple[Siege, Verdict]:
    """Let every episode of *tier* pass; return the siege and what the checker says."""
    episodes, count, every, strikes, period = _SIZES[tier]
    siege = Siege(folder, period, seed)
    try:
        for number in range(episodes):
            siege.episode(count, kill=number % every == every - 1, strikes=strikes)
            if number % 10 == 0:
                say(f"episode {number + 1} of {episodes}, {siege.jobs} jobs, {siege.faults} faults")
        siege.settle()
    finally:
        siege.close()
    return siege, judge(siege)


def judge(siege: Siege) -> Verdict:
    """Hold what was promised against what there is."""
    folder = siege.folder
    return check(
        folder / "history.jsonl",
        ledger=siege.ledger,
        executions=folder / "executions.log",
        results=folder / "results",
    )


def control(folder: Path, name: str, seed: str) -> Control:
    """Besiege a house that *name* broke: it has to lose or double something."""
    siege = Siege(folder / name, _CONTROL_PERIOD_S, seed, sabotage=name)
    try:
        for _ in range(2):
            siege.episode(100, kill=False, strikes=0)
    finally:
        siege.close()
    found = siege.verdict() if name == "no-cas" else siege.broken
    evidence = f"{len(found)} complaints, the first: {found[0]}" if found else "nothing was noticed"
    return Control(name=_CONTROLS[name], caught=bool(found), evidence=evidence)


@dataclass
class Spawned:
    """A whole daemon whose queue's file is attacked from outside while it works, and while it is dead."""

    folder: Path
    seed: str
    attacks: int = 0
    #: Jobs for the demo models.
    demo: int = 0

    def run(self, jobs: int, kills: int) -> Verdict:
        """Submit *jobs* during the attack; return what the checker says when all is done."""
        home, chance = TortureHome(self.folder), random.Random(f"{self.seed}-spawned")
        history = History(self.folder / "history.jsonl")
        vandal = Vandal(home.paths.queue, chance, self.folder / "trapped")
        with home.supervisor() as supervisor:
            wait_ready(home.socket)
            mix = sprinkled(mixed, _DEMO)
            load = Load(home, history, rate=30.0, seed=self.seed, mix=mix, limit=jobs)
            load.start()
            for _ in range(kills):
                for _ in range(5):
                    time.sleep(chance.uniform(0.05, 0.3))
                    vandal.ids = [row[0] for row in home.query("SELECT id FROM jobs ORDER BY seq DESC LIMIT 300")]
                    vandal.strike()
                supervisor.suspend()
                supervisor.kill()
                supervisor.wait_exit(len(supervisor.spawns))
                vandal.strike(vandal.plant, vandal.replace, vandal.obstruct, vandal.delete)
                supervisor.resume()
            load.join(jobs / 10 + 60)
            home.settle(60)
            vandal.close()
        self.demo = demo_jobs(history.path)
        self.attacks = sum(vandal.deeds.values()) + kills
        verdict = check(history.path, ledger=home.ledger, executions=home.executions, results=home.results)
        for complaint in load.complaints:
            verdict.add("wrong", complaint)
        if (self.folder / "trapped").exists():
            verdict.add("wrong", "a pickle of the queue's file was unpickled")
        return verdict


ROW = Hints()
