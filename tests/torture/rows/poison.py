"""One job in a hundred always kills its runner."""

from __future__ import annotations

from pathlib import Path

from torture.poison_run import BLAMING, LIMIT, PoisonRun, Result, poisoned
from torture.row import Control, Outcome, Say, Tier

#: Loads, jobs in each, longest time for one, seconds.
SIZE = {Tier.SHORT: (1, 200, 60.0), Tier.LONG: (3, 2000, 300.0)}
#: What a job takes, seconds from and to.
SECONDS = (0.1, 0.3)
SHARE = 0.01
_THROUGHPUT = (
    "Throughput is measured with every worker busy all the time. Three deaths in a hundred jobs of 0.2 s cost three "
    "starts of a runner and the work that was aboard, and suspects run alone: 90 % cannot be reached then."
)


class Poison:
    """Row 7."""

    number, name = 7, "poison"
    fault = "one job in a hundred always kills its runner"
    promise = "quarantined at the third death, with the reason and how to release it; all others are done"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Run the load without poison, then with it; then without a budget, and with blame for everybody aboard."""
        loads, count, patience = SIZE[tier]
        clean = _load(folder / "clean", 0.0, count, f"{seed}-clean", patience)
        say(f"without poison {clean.rate:.1f} jobs/s")
        found = [_load(folder / f"run-{one}", SHARE, count, f"{seed}-{one}", patience) for one in range(loads)]
        verdicts = [one.verdict for one in (clean, *found)]
        return Outcome(
            tries=sum(one.poison for one in found),
            acknowledged=sum(one.promised for one in verdicts),
            lost=sum(one.lost for one in verdicts),
            doubled=sum(one.doubled for one in verdicts),
            broken=[sentence for one in (clean, *found) for sentence in (*one.verdict.sentences, *one.broken)],
            controls=[_no_budget(folder / "endless", seed), _shared_blame(folder / "blame", seed)],
            notes=[_THROUGHPUT],
            measured={
                "clean_jobs_per_s": round(clean.rate, 1),
                "poisoned_jobs_per_s": [round(one.rate, 1) for one in found],
                "throughput_share": round(min(one.rate for one in found) / clean.rate, 2),
                "innocent_jobs_tried_alone": [len(one.blamed) for one in found],
            },
        )


def _load(folder: Path, share: float, count: int, seed: str, patience: float) -> Result:
    mix = poisoned(share, seconds=SECONDS)
    return PoisonRun(folder).run(mix, count, seed=seed, patience_s=patience, batch=share > 0)


def _no_budget(folder: Path, seed: int) -> Control:
    mix = poisoned(1 / 20, seconds=(0.0, 0.0))
    result = PoisonRun(folder, limit=10_000).run(mix, 20, seed=f"{seed}-endless", patience_s=6.0)
    signs = [one for one in result.broken if f"after {LIMIT} deaths" not in one and "deaths, begun" in one]
    return Control(name="max_crashes = 10000", caught=bool(signs), evidence=signs[0] if signs else "it ended by itself")


def _shared_blame(folder: Path, seed: int) -> Control:
    mix = poisoned(1 / 10, seconds=SECONDS)
    result = PoisonRun(folder, plugin=BLAMING).run(mix, 60, seed=f"{seed}-blame", patience_s=40.0)
    signs = [one for one in result.verdict.sentences if "is quarantined instead of succeeded" in one]
    evidence = f"{result.verdict.lost} of {result.good} innocent jobs were quarantined"
    return Control(name="a death counts against every job aboard", caught=bool(signs), evidence=evidence)


ROW = Poison()
