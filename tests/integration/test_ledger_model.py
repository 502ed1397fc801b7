"""The ledger against a plain model of itself: any sequence of calls, deaths and openings; planted mistakes show."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from torture.ledger_machine_desk import WholeLedgerMachine
from torture.mutants import MUTANTS
from torture.rows.ledger_model import Plan, killed


class TestLedgerMachine(WholeLedgerMachine.TestCase):  # type: ignore[name-defined,misc]
    """Any sequence of calls leaves ledger and model agreed, also over closings and deaths."""

    settings = settings(
        max_examples=15,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@pytest.mark.parametrize("name", ["fences are not compared", "a released attempt is not given back"])
def test_the_machine_finds_mistakes(name: str) -> None:
    """A ledger with a mistake in it does not get through; the torture campaign tries all of them."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    found = killed(mutant, Plan(examples=1, steps=30, chances=60), seed=1)
    assert found.caught, found.evidence
