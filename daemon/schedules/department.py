"""Puts the parts about schedules together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from daemon.schedules.desk import ScheduleDesk
from daemon.schedules.keeper import NAP_S, Keeper
from daemon.schedules.office import Doors, ScheduleOffice
from daemon.schedules.roster import Roster
from jobs.ledger import Ledger
from jobs.schedules import ScheduleBook


@dataclass(frozen=True)
class Schedules:
    """The schedules of a daemon: who keeps them, and whom to ask."""

    keeper: Keeper
    desk: ScheduleDesk


def schedules(
    ledger: Ledger,
    doors: Doors,
    *,
    results: Path,
    limit: Callable[[], int],
    stop: Callable[[str], object],
    on_wake: tuple[Callable[[], object], ...],
    clock: Callable[[], datetime],
    monotonic: Callable[[], float] = time.monotonic,
    nap_s: float = NAP_S,
) -> Schedules:
    """Make the parts; nothing runs before ``keeper.start``. See `ScheduleOffice` for the arguments."""
    book = ScheduleBook(ledger)
    roster = Roster(book, clock)
    office = ScheduleOffice(doors, results=results, limit=limit, stop=stop, on_wake=on_wake)
    keeper = Keeper(book, roster, office, clock=clock, monotonic=monotonic, nap_s=nap_s)
    return Schedules(keeper, ScheduleDesk(book, roster, office, keeper, clock=clock))
