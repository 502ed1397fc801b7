"""The clock is set, slewed, changed for summer; the machine sleeps; everything is stopped for minutes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from jobs import claims
from torture.clock_freeze import SILENCE_S, Freeze
from torture.clock_year import Year, delays
from torture.row import Control, Outcome, Say, Tier

#: Calendars around a change of the clocks, and what happens in each.
_YEARS = {Tier.SHORT: (2, 2), Tier.LONG: (60, 4)}
#: Seconds for which a whole daemon with its runner is stopped, one after the other.
_PAUSES = {Tier.SHORT: [4.0], Tier.LONG: [4.0] * 12 + [8.0] * 4 + [150.0]}
_JUMPS = tuple(timedelta(hours=hours) for hours in (-24, -1, 1, 24))
_NOTE = (
    "Sleeps, clocks that are set and changes for summer are injected: both clocks of the real keeper, roster, book, "
    "ledger and executor are replaced. Nobody's machine is set to another time."
)


class Clock:
    """Row 10."""

    number = 10
    name = "clock"
    fault = "stopped for minutes, wall clock set by an hour and a day both ways, slewed, clocks changed in three zones"
    promise = "no double run, no rescue of a living job, each schedule fires as its catch-up says, no retry waits a day"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Live through the changes of the clocks, then do it again with things broken on purpose."""
        logging.disable(logging.CRITICAL)
        years, events = _YEARS[tier]
        broken: list[str] = []
        faults = 0
        for number in range(years):
            year = Year(folder / f"year-{number}", number + seed, f"{seed}-clock")
            year.run(events)
            broken += year.broken
            faults += year.faults + 1
            if number % 10 == 0:
                say(f"year {number + 1} of {years}")
        for jump in _JUMPS:
            broken += delays(folder / f"delays-{jump.total_seconds():.0f}", jump)
        with ThreadPoolExecutor() as pool:
            blaming = pool.submit(_freeze_control, folder, seed)
            freeze = Freeze(folder / "home", _PAUSES[tier], f"{seed}")
            verdict = freeze.run()
            controls = [_year_control(folder, one) for one in _SABOTAGE] + [_late_control(folder), blaming.result()]
        return Outcome(
            tries=faults + len(_JUMPS) + len(freeze.pauses),
            acknowledged=verdict.promised,
            lost=verdict.lost + verdict.unfinished,
            doubled=verdict.doubled,
            recoveries=freeze.recoveries,
            broken=[*broken, *freeze.broken, *verdict.sentences],
            controls=controls,
            measured={
                "clock_changes": years,
                "clock_events": faults - years,
                "pauses": len(freeze.pauses),
                "pauses_mid_demo": freeze.mid_demo,
                "longest_pause_s": max(freeze.pauses),
                "silence_timeout_s": SILENCE_S,
            },
            notes=[_NOTE],
        )


_SABOTAGE = {"no-memory": "what fired before is forgotten", "no-zone": "the schedule's zone does not count"}


def _year_control(folder: Path, sabotage: str) -> Control:
    found: list[str] = []
    for number in range(6):
        year = Year(folder / f"{sabotage}-{number}", number, sabotage, sabotage)
        year.run(2)
        found = year.broken
        if found:
            break
    return Control(name=_SABOTAGE[sabotage], caught=bool(found), evidence=found[0] if found else "nothing was noticed")


def _freeze_control(folder: Path, seed: int) -> Control:
    freeze = Freeze(folder / "blaming", _PAUSES[Tier.SHORT], f"{seed}", blaming=True)
    verdict = freeze.run()
    found = [*freeze.broken, *verdict.sentences]
    return Control(
        name="silence counts the time in which mlxd was stopped",
        caught=bool(found),
        evidence=next(iter(found), "nothing"),
    )


def _late_control(folder: Path) -> Control:
    with _patient_retries():
        found = delays(folder / "late", timedelta(days=-1))
    return Control(
        name="a retry waits for the wall clock", caught=bool(found), evidence=found[0] if found else "nothing"
    )


@contextmanager
def _patient_retries() -> Iterator[None]:
    real = claims.RETRY_WITHIN
    claims.RETRY_WITHIN = timedelta(days=1000)  # type: ignore[misc]
    try:
        yield
    finally:
        claims.RETRY_WITHIN = real  # type: ignore[misc]


ROW = Clock()
