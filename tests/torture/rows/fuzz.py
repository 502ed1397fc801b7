"""Fuzzing of whatever reads a stranger's bytes; `tests/fuzz` has the targets, their oracles and their planted bugs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from torture.row import Control, Outcome, Say, Tier

#: Tier -> seconds for each target, and at most for each planted bug.
SECONDS = {Tier.SHORT: (1, 4), Tier.LONG: (60, 60)}
TESTS = Path(__file__).parents[2]


class Fuzz:
    """See `torture.row.Row`."""

    number = 19
    name = "fuzz"
    fault = "fuzzed messages, configurations, names, headers, front matter, jobs"
    promise = "refused in a sentence, or understood rightly; never a crash, a hang or a way out of a folder"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Fuzz every target and every planted bug."""
        seconds, control = SECONDS[tier]
        found = fuzzed(seconds, control, seed, say)
        real, planted = [one for one in found if not one["bug"]], [one for one in found if one["bug"]]
        for one in (one for one in real if one["failure"]):
            (folder / f"{one['target']}.culprit").write_bytes(one["culprit"].encode("latin-1"))
        idle = [f"{one['target']} was given nothing" for one in real if one["inputs"] == 0]
        return Outcome(
            tries=sum(one["inputs"] for one in real),
            broken=[f"{one['target']}: {one['failure']}, by {one['culprit']!r}" for one in real if one["failure"]]
            + idle,
            controls=[_control(one) for one in planted],
            measured={f"{one['target']}_inputs": one["inputs"] for one in real},
            notes=[]
            if importlib.util.find_spec("atheris")
            else ["no atheris here: hypothesis' bytes, guided by nothing"],
        )


def fuzzed(seconds: float, control: float, seed: int, say: Say) -> list[dict[str, Any]]:
    """Run ``python -m fuzz`` and return its lines.

    Raises:
        RuntimeError: it ended before it had tried everything.

    """
    command = [sys.executable, "-m", "fuzz", f"--seconds={seconds}", f"--control={control}", f"--seed={seed}"]
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TESTS.parent
    ) as child:
        done = child.communicate()
    found = [json.loads(line) for line in done[0].splitlines()]
    for one in found:
        say(f"{one['target']}{' with ' + one['bug'] if one['bug'] else ''}: {one['failure'] or 'nothing found'}")
    if not found or child.returncode not in (0, 1):
        raise RuntimeError(f"fuzzing ended with {child.returncode}: {done[1][-1000:]}")
    return found


def _control(one: dict[str, Any]) -> Control:
    evidence = f"{one['failure'] or 'nothing'} after {one['inputs']:,} inputs"
    return Control(name=f"{one['target']}: {one['bug']}", caught=bool(one["failure"]), evidence=evidence)


ROW = Fuzz()
