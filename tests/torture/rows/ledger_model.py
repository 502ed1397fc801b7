"""The ledger against a plain model of itself, and the same with many a mistake planted in it, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from hypothesis.strategies._internal.featureflags import FeatureFlags

from torture.ledger_machine_desk import WholeLedgerMachine
from torture.mutants import MUTANTS, Mutant
from torture.row import Control, Outcome, Say, Tier


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of it: examples, and steps in each."""

    examples: int
    steps: int
    #: Most examples that a mutant may survive.
    chances: int
    #: Words of which one is in a mutant's name; the other mutants take their time.
    mutants: tuple[str, ...] = ("",)


_PLANS = {
    Tier.SHORT: Plan(
        examples=10,
        steps=40,
        chances=250,
        mutants=(
            "does not look at the state",
            "fences",
            "given back",
            "costs an attempt",
            "has ended",
            "keys",
            "not remembered",
            "off by one",
            "shared death",
            "priorities",
            "its owner holds",
            "not_before",
        ),
    ),
    Tier.LONG: Plan(examples=1_200, steps=50, chances=500),
}


def drive(*, examples: int, steps: int, seed: int) -> int:
    """Run the machine and return how many examples were begun; raise what the first disagreement raises."""
    begun = 0

    class Counted(WholeLedgerMachine):
        def __init__(self) -> None:
            nonlocal begun
            begun += 1
            super().__init__()

    # No shrinking: that something is wrong is what counts here, and the seed finds it again.
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    # Hypothesis leaves half of the rules out of each example; a mistake that needs four of them would hide for long.
    every_rule = mock.patch.object(FeatureFlags, "is_enabled", return_value=True)
    try:
        with every_rule:
            run_state_machine_as_test(seeded(seed)(Counted), settings=how)
    except BaseException as error:
        error.add_note(f"in example {begun}")
        raise
    return begun


def killed(mutant: Mutant, plan: Plan, *, seed: int) -> Control:
    """Return whether the machine finds the mistake, and by what."""
    with mutant.planted():
        try:
            drive(examples=plan.chances, steps=plan.steps, seed=seed)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - however it shows: a disagreement, or an error of the database
            said = str(error).splitlines()[0][:80] if str(error) else ""
            where = [note for note in getattr(error, "__notes__", []) if note.startswith("in example")]
            return Control(name=mutant.name, caught=True, evidence=f"{type(error).__name__} {said} {where[-1]}")
    return Control(name=mutant.name, caught=False, evidence=f"{plan.chances} examples saw nothing")


class LedgerModel:
    """The row."""

    number = 13
    name = "ledger-model"
    fault = "any sequence of the ledger's verbs, with deaths and restarts"
    promise = "the ledger does what a plain model of it does, and every planted mistake is found out"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Drive the sound ledger, then every mutant."""
        plan, broken = _PLANS[tier], []
        examples = 0
        try:
            examples = drive(examples=plan.examples, steps=plan.steps, seed=seed)
        except (AssertionError, Flaky) as error:
            broken.append(f"{error} {getattr(error, '__notes__', '')}")
        mutants = [mutant for mutant in MUTANTS if any(word in mutant.name for word in plan.mutants)]
        say(f"{examples} examples of the sound ledger, now {len(mutants)} mutants")
        return Outcome(
            tries=examples,
            broken=broken,
            controls=[killed(mutant, plan, seed=seed) for mutant in mutants],
            measured={"steps_per_example": plan.steps, "mutants": len(mutants)},
        )


ROW = LedgerModel()
