"""Runners that die in seven ways and hang in three."""

from __future__ import annotations

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torture.checker import check
from torture.misfortunes import DEATHS, HANGS, IN_PROCESS, PLUGIN
from torture.row import Control, Outcome, Say, Tier, judged
from torture.runner_siege import Plan, Seen, Siege

TRIES = {Tier.SHORT: 12, Tier.LONG: 300}
_MEMORY = (
    "The memory limit is an RLIMIT_AS that the runner sets for itself: a memory cgroup belongs to whoever runs the "
    "machine. What its killer does is the row's SIGKILL."
)
CALM_S = {Tier.SHORT: 2.0, Tier.LONG: 20.0}
#: What befalls the demo model's runner besides: signals from outside, in the middle of its work.
DEMO = {
    Tier.SHORT: (signal.SIGSEGV,),
    Tier.LONG: (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL, signal.SIGBUS, signal.SIGSTOP) * 4,
}
#: Models whose runners are broken at a time.
VICTIMS = {Tier.SHORT: ("stub:a",), Tier.LONG: ("stub:a", "stub:c")}


def _misfortunes(count: int, seed: int) -> list[str]:
    """Return *count* of them, each way as often as the others, in a random order."""
    ways = [*DEATHS, *HANGS]
    found = [ways[number % len(ways)] for number in range(count)]
    random.Random(f"{seed}-misfortunes").shuffle(found)
    return found


class RunnerFaults:
    """Row 6."""

    number, name = 6, "runner-faults"
    fault = "runner dies (ABRT, SEGV, KILL, BUS, PIPE, memory limit, exit 1) or hangs (STOP, spinning, silent)"
    promise = "the daemon lives, its job is done by a new runner, other models' jobs notice nothing, nothing leaks"
    timed: bool = True

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Break runners, then do the same to a daemon that is its own runner, and to one that looks for no silence."""
        misfortunes = _misfortunes(TRIES[tier], seed)
        plan = Plan(
            calm_s=CALM_S[tier],
            misfortunes=misfortunes,
            victims=VICTIMS[tier],
            demo=DEMO[tier],
            share=judged(tier),
        )
        siege = Siege(folder / "home", plan, seed=seed, plugin=PLUGIN)
        seen = siege.run()
        say(f"{seen.hits} runners broken")
        with ThreadPoolExecutor() as pool:  # their timing is of no account
            controls = list(pool.map(lambda one: one(folder, seed), (_in_process, _deaf)))
        home = siege.home
        verdict = check(siege.history.path, ledger=home.ledger, executions=home.executions, results=home.results)
        return Outcome(
            tries=seen.hits,
            acknowledged=verdict.promised,
            lost=verdict.lost,
            doubled=verdict.doubled,
            recoveries=[*seen.after_death, *seen.after_hang],
            broken=[*verdict.sentences, *seen.broken],
            controls=controls,
            measured=seen.measured(),
            notes=[_MEMORY],
        )


def _in_process(folder: Path, seed: int) -> Control:
    plan = Plan(calm_s=0.2, misfortunes=["SIGSEGV", "SIGABRT"], patience_s=15.0)
    seen = Siege(folder / "own", plan, seed=seed, plugin=IN_PROCESS).run()
    return _control("requests served by the daemon itself", seen, "The daemon died")


def _deaf(folder: Path, seed: int) -> Control:
    plan = Plan(calm_s=0.2, misfortunes=["stop"], silence_s=600.0, patience_s=4.0)
    seen = Siege(folder / "deaf", plan, seed=seed, plugin=PLUGIN).run()
    return _control("silence_timeout_s = 600", seen, "was never tried again after stop")


def _control(name: str, seen: Seen, sign: str) -> Control:
    found = [sentence for sentence in seen.broken if sign in sentence]
    return Control(name=name, caught=bool(found), evidence=found[0] if found else "everything seemed to be in order")


ROW = RunnerFaults()
