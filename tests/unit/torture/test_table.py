"""What a campaign says at its end."""

from __future__ import annotations

from typing import Any

from torture.row import Control, Outcome
from torture.rows.poison import ROW
from torture.table import record, summary


def _found(**changes: Any) -> dict[str, Any]:
    control = Control(name="no fence", caught=True, evidence="4 doubled")
    return record(ROW, Outcome(**{"tries": 1, "controls": [control], **changes}), seconds=1.0, seed=1)


def test_all_held() -> None:
    """One line is enough where every row held."""
    assert summary([_found(), _found()]) == "2 of 2 rows held."


def test_each_breach_is_named_at_the_end() -> None:
    """Who reads the last lines alone knows which row broke and by what."""
    uncaught = Control(name="no fence", caught=False, evidence="")
    told = summary(
        [_found(), _found(lost=2, doubled=1, broken=["it hung"]), _found(controls=[uncaught]), _found(tries=0)]
    )
    assert told.splitlines() == [
        "1 of 4 rows held.",
        "BROKEN: poison: 2 lost; 1 doubled; it hung",
        "BROKEN: poison: not caught: no fence",
        "BROKEN: poison: nothing was tried, or no control",
    ]
