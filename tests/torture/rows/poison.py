"""One job in a hundred always kills its runner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torture.poison_run import BLAMING, PoisonRun, Result, poisoned
from torture.row import Control, Outcome, Say, Tier


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many loads there are, how many jobs in each, how many of them a second (None: as fast as they are taken)."""

    loads: int
    jobs: int
    rate: float | None
    #: Longest time for one load, seconds.
    patience_s: float


#: Half of what two cores do without poison, so that what is missing at the end is the poison's doing.
SIZES = {
    Tier.SHORT: Size(loads=1, jobs=200, rate=None, patience_s=90.0),
    Tier.LONG: Size(loads=3, jobs=2000, rate=25.0, patience_s=400.0),
}
#: With every worker busy all the time: only measured.
SATURATED = Size(loads=1, jobs=600, rate=None, patience_s=200.0)
#: What a job takes, seconds from and to.
SECONDS = (0.1, 0.3)
SHARE = 0.01
_THROUGHPUT = (
    "With every worker busy, three deaths in a hundred jobs of 0.2 s cost three starts of a runner and the work that "
    "was aboard, and suspects run alone: 90 % of the clean throughput cannot be reached then, and is only measured."
)


class Poison:
    """Row 7."""

    number, name = 7, "poison"
    fault = "one job in a hundred always kills its runner"
    promise = "quarantined at the third death, with the reason and how to release it; all others are done"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Run the loads with poison in them; then without a budget, and with blame for everybody aboard."""
        size = SIZES[tier]
        found = [_load(folder / f"run-{one}", SHARE, size, f"{seed}-{one}") for one in range(size.loads)]
        say(f"{sum(one.poison for one in found)} poison jobs in {sum(one.good for one in found)} others")
        with ThreadPoolExecutor() as pool:  # their timing is of no account
            controls = list(pool.map(lambda one: one(folder, seed), (_no_budget, _shared_blame)))
        compared = _compare(folder, size, found, seed) if tier is Tier.LONG else {}
        verdicts = [one.verdict for one in found]
        return Outcome(
            tries=sum(one.poison for one in found),
            acknowledged=sum(one.promised for one in verdicts),
            lost=sum(one.lost for one in verdicts),
            doubled=sum(one.doubled for one in verdicts),
            broken=[sentence for one in found for sentence in (*one.verdict.sentences, *one.broken)],
            controls=controls,
            notes=[_THROUGHPUT] if compared else [],
            measured={
                "demo_jobs": sum(one.demo for one in found),
                "jobs_per_s": [round(one.rate, 1) for one in found],
                "innocent_jobs_tried_alone": [len(one.blamed) for one in found],
                "deaths_of_an_innocent_at_most": max((max(one.blamed, default=0) for one in found), default=0),
                **compared,
            },
        )


def _compare(folder: Path, size: Size, found: list[Result], seed: int) -> dict[str, float]:
    """Return the throughput as a share of that without poison: at the rate of *size*, and with all workers busy."""
    clean = _load(folder / "clean", 0.0, size, f"{seed}-clean")
    busy_clean, busy = (_load(folder / f"busy-{share}", share, SATURATED, f"{seed}-busy") for share in (0.0, SHARE))
    return {
        "throughput_share": round(min(one.rate for one in found) / clean.rate, 2),
        "saturated_clean_jobs_per_s": round(busy_clean.rate, 1),
        "saturated_throughput_share": round(busy.rate / busy_clean.rate, 2),
    }


def _load(folder: Path, share: float, size: Size, seed: str) -> Result:
    mix = poisoned(share, seconds=SECONDS, demo=True)
    run = PoisonRun(folder)
    return run.run(mix, size.jobs, seed=seed, patience_s=size.patience_s, rate=size.rate, batch=share > 0)


def _no_budget(folder: Path, seed: int) -> Control:
    mix = poisoned(1 / 20, seconds=(0.0, 0.0))
    result = PoisonRun(folder / "endless", limit=10_000).run(mix, 20, seed=f"{seed}-endless", patience_s=60.0)
    signs = [one for one in result.broken if "were not through; one has" in one]
    return Control(name="max_crashes = 10000", caught=bool(signs), evidence=signs[0] if signs else "it ended by itself")


def _shared_blame(folder: Path, seed: int) -> Control:
    mix = poisoned(1 / 10, seconds=SECONDS)
    result = PoisonRun(folder / "blame", plugin=BLAMING).run(mix, 40, seed=f"{seed}-blame", patience_s=40.0)
    signs = [one for one in result.verdict.sentences if "is quarantined instead of succeeded" in one]
    evidence = f"{result.verdict.lost} of {result.good} innocent jobs were quarantined"
    return Control(name="a death counts against every job aboard", caught=bool(signs), evidence=evidence)


ROW = Poison()
