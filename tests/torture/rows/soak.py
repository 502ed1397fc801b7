"""Mixed use for a long time."""

from __future__ import annotations

import os
from pathlib import Path

from torture.row import Control, Outcome, Say, Tier
from torture.soak_life import LEAKING, Limits, Soak

#: Minutes of the long run; the hour that is asked for is ``MLXD_SOAK_MINUTES=60``.
MINUTES = "MLXD_SOAK_MINUTES"
LIMITS = {Tier.SHORT: Limits(rss_kb_per_job=30.0), Tier.LONG: Limits(rss_kb_per_job=2.0)}


class LongUse:
    """Row 15."""

    number, name = 15, "soak"
    fault = "mixed jobs with model swaps, files, schedules, cancellations and guests who leave, for a long time"
    promise = "memory, descriptors, threads, log and write-ahead log are flat, the ledger grows by its jobs alone"
    timed: bool = True

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Use the daemon, then one with a task that leaks."""
        seconds = 15.0 if tier is Tier.SHORT else 60.0 * float(os.environ.get(MINUTES, "20"))
        warm, demo, turn = (5.0, 0.0, 15) if tier is Tier.SHORT else (min(180.0, seconds / 4), 0.01, 200)
        soaked = Soak(folder / "home", seed=seed, seconds=seconds, warm_s=warm, turn=turn).run(
            LIMITS[tier], demo_share=demo, say=say
        )
        return Outcome(
            tries=soaked.measured["jobs"],
            acknowledged=soaked.promised,
            lost=soaked.lost,
            doubled=soaked.doubled,
            broken=soaked.broken,
            controls=[_leak(folder / "leak", tier, seed, say)],
            measured=soaked.measured,
        )


def _leak(folder: Path, tier: Tier, seed: int, say: Say) -> Control:
    seconds = 8.0 if tier is Tier.SHORT else 60.0
    soak = Soak(folder, seed=seed, seconds=seconds, warm_s=seconds / 4, plugin=LEAKING)
    broken = soak.run(LIMITS[tier], demo_share=0.0, say=say).broken
    signs = {name: one for name in ("rss_kb_per_job", "fds_growth") for one in broken if one.startswith(name)}
    evidence = " ".join(signs.values()) or "nothing seemed to grow"
    return Control(
        name="a task that keeps 50 kB and a descriptor of each job", caught=len(signs) == 2, evidence=evidence
    )


ROW = LongUse()
