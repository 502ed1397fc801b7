"""Hints of the queue go wrong in every way, its file is attacked, its process is killed: every job one commit."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torture.checker import Verdict, check
from torture.hint_siege import Siege
from torture.row import Control, Outcome, Say, Tier, percentile

#: Episodes, jobs in each, every how many-th is killed, attacks on the file in each, period of looks in seconds.
_SIZES = {Tier.SHORT: (3, 120, 3, 4, 1.0), Tier.LONG: (50, 400, 3, 8, 2.0)}
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
        with ThreadPoolExecutor(len(_CONTROLS)) as pool:
            controls = list(pool.map(lambda name: control(folder, name, f"{seed}-{name}"), _CONTROLS))
        return Outcome(
            tries=siege.faults,
            acknowledged=verdict.promised,
            lost=verdict.lost + verdict.unfinished,
            doubled=verdict.doubled + len(siege.verdict()),
            recoveries=siege.recoveries,
            broken=[*siege.broken, *siege.verdict(), *verdict.sentences],
            controls=controls,
            measured={
                "jobs": siege.jobs,
                "kills": siege.kills,
                "file_attacks": sum(siege.vandal.deeds.values()),
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
    found: dict[str, Any] = {"stranded": siege.broken, "doubled": siege.verdict()}
    evidence = "; ".join(f"{kind}: {len(said)}, {said[0]}" for kind, said in found.items() if said)
    return Control(name=_CONTROLS[name], caught=bool(evidence), evidence=evidence or "nothing was noticed")


ROW = Hints()
