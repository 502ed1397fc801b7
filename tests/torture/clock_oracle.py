"""When a schedule should fire, found by looking at every minute: knows nothing of cron, only of clocks on walls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Change:
    """A change of the clocks, and a time of day that it skips or repeats."""

    zone: str
    #: The day in UTC around which it happens.
    day: datetime
    at: time


CHANGES = tuple(
    Change(zone, datetime.fromisoformat(day).replace(tzinfo=UTC), time.fromisoformat(at))
    for zone, day, at in (
        ("Europe/Berlin", "2026-03-29", "02:30"),
        ("Europe/Berlin", "2026-10-25", "02:30"),
        ("America/New_York", "2026-03-08", "02:30"),
        ("America/New_York", "2026-11-01", "01:30"),
        ("Australia/Lord_Howe", "2026-10-03", "02:15"),
        ("Australia/Lord_Howe", "2026-04-04", "01:45"),
    )
)


def daily(zone: str, at: time, start: datetime, end: datetime) -> list[datetime]:
    """Return when it is *at* each day: the first time if twice, right after the skip if never."""
    found: dict[object, datetime] = {}
    passed: set[object] = set()
    for moment, local in _minutes(zone, start, end):
        day = local.date()
        if day not in passed and local.time() >= at:
            passed.add(day)
            found[day] = moment
    # The first and the last day are not whole.
    return sorted(found.values())[1:]


def on_the_wall(zone: str, every: int, start: datetime, end: datetime) -> list[datetime]:
    """Return when the clocks show a minute that *every* divides: skipped ones never, repeated ones twice."""
    return [moment for moment, local in _minutes(zone, start, end) if local.minute % every == 0]


def _minutes(zone: str, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    clocks, moment = ZoneInfo(zone), start
    while moment <= end:
        yield moment, moment.astimezone(clocks).replace(tzinfo=None)
        moment += MINUTE


def caught_up(policy: str, limit: int, come: list[datetime], now: datetime) -> list[datetime]:
    """Return which of the times that *come* at once (oldest first) become jobs at *now*."""
    met = bool(come) and now - come[-1] <= MINUTE
    if policy == "once" or (met and len(come) == 1):
        return come[-1:]
    return come[-limit:] if policy == "all" else come[-1:] * met
