"""When a schedule fires: pure functions of a moment, a rule and a time zone.

The rules at a change of the clocks are those of Debian's cron (crontab(5)):

1. A *fixed* time of day (neither the minute nor the hour begins with ``*``) happens exactly once a day: when the clocks
   skip it, right after the skip; when they repeat it, the first time.
2. With a ``*`` in minute or hour the expression follows the clock on the wall: what is skipped does not happen, what
   is repeated happens twice, so that "every quarter of an hour" stays that.
3. Intervals count elapsed time and know nothing of clocks on walls.

cronsim finds the matching times of a calendar without a time zone; what they are in a zone is decided here, because
cronsim's own arithmetic assumes that clocks change by whole hours (not so on Lord Howe Island).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from types import MappingProxyType
from typing import Final, Protocol

from cronsim import CronSim, CronSimError

#: Short names for common expressions, as crontab(5) has them.
MACROS: Final = MappingProxyType(
    {
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
        "@monthly": "0 0 1 * *",
        "@weekly": "0 0 * * 0",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@hourly": "0 * * * *",
    }
)
_FIELDS: Final = 5
_SECOND: Final = timedelta(seconds=1)
#: No time zone changes its clocks twice within this time.
_STRIDE: Final = timedelta(days=1)


class Timing(Protocol):
    """Says when something happens."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time later than the aware *moment*, in UTC; None if there is none."""


@dataclass(frozen=True)
class Cron:
    """The times of the cron *expression* as the clocks of *zone* show them."""

    expression: str
    zone: tzinfo

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the expression cannot be understood."""
        spelled(self.expression)

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time later than *moment*; None if it does not come within 50 years."""
        text = spelled(self.expression)
        minute, hour = text.split()[:2]
        fixed = not minute.startswith("*") and not hour.startswith("*")
        return self._fixed(text, moment) if fixed else self._flowing(text, moment)

    def _fixed(self, text: str, moment: datetime) -> datetime | None:
        for local in CronSim(text, _wall(moment, self.zone)):
            if (found := instant(local, self.zone)) > moment:
                return found
        return None

    def _flowing(self, text: str, moment: datetime) -> datetime | None:
        """Go from one change of the clocks to the next; between two of them the wall clock is just an offset."""
        wall, limit = _wall(moment, self.zone), moment
        while (local := next(CronSim(text, wall), None)) is not None:
            found = (local - _offset(limit, self.zone)).replace(tzinfo=UTC)
            change = _next_change(limit, found, self.zone)
            if change is None:
                return found
            limit, wall = change, _wall(change, self.zone) - _SECOND
        return None


@dataclass(frozen=True)
class Every:
    """Every *period* since *anchor*, which itself does not count."""

    period: timedelta
    anchor: datetime

    def after(self, moment: datetime) -> datetime:
        """Return the first time later than *moment*."""
        return self.anchor + max(1, (moment - self.anchor) // self.period + 1) * self.period


@dataclass(frozen=True)
class Once:
    """One time only."""

    time: datetime

    def after(self, moment: datetime) -> datetime | None:
        """Return the time, if it is later than *moment*."""
        return self.time if self.time > moment else None


def spelled(expression: str) -> str:
    """Return *expression* with five fields, ``@daily`` and its like spelled out.

    Raises:
        ValueError: it cannot be understood, or never comes true.

    """
    text = MACROS.get(expression.strip().lower(), expression)
    if len(text.split()) != _FIELDS:
        raise ValueError(
            "a cron expression with five fields: minute, hour, day of month, month, day of week "
            '("0 3 * * MON-FRI"), or @hourly, @daily, @weekly, @monthly, @yearly'
        )
    try:
        if next(CronSim(text, datetime(2024, 1, 1)), None) is None:  # noqa: DTZ001 - a calendar without a zone
            raise ValueError("a cron expression that comes true some day; this one never does")
    except CronSimError as error:
        raise ValueError(f"a cron expression ({str(error)[0].lower()}{str(error)[1:]})") from None
    return text


def times(timing: Timing, start: datetime, end: datetime | None = None) -> Iterator[datetime]:
    """Yield the times later than *start*, up to and with *end*."""
    moment = timing.after(start)
    while moment is not None and (end is None or moment <= end):
        yield moment
        moment = timing.after(moment)


def latest(timing: Timing, start: datetime, end: datetime, most: int) -> list[datetime]:
    """Return the last *most* times that are later than *start* and not later than *end*.

    Does not walk through all of them: after a year off, a schedule by the minute has half a million.
    """
    back = timedelta(hours=1)
    while True:
        begin = max(start, end - back)
        found = list(islice(times(timing, begin, end), 2 * most + 2))
        if len(found) <= 2 * most and (len(found) >= most or begin == start):
            return found[-most:]
        if len(found) > 2 * most:
            return _last_of_many(timing, begin, end, most)
        back *= 2


def _last_of_many(timing: Timing, begin: datetime, end: datetime, most: int) -> list[datetime]:
    """Return the last *most* times in a span that holds too many: halve it for as long as enough are left."""
    while (end - begin) > _SECOND:
        middle = begin + (end - begin) / 2
        if len(list(islice(times(timing, middle, end), most))) < most:
            break
        begin = middle
    return list(times(timing, begin, end))[-most:]


def delay(name: str, moment: datetime, jitter: timedelta) -> timedelta:
    """Return how long after *moment* the schedule *name* really fires: 0 to *jitter*, always the same for the same."""
    if not jitter:
        return timedelta()
    digest = hashlib.sha256(f"{name}\0{moment.astimezone(UTC).isoformat()}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return timedelta(seconds=int(jitter.total_seconds() * share))


def instant(local: datetime, zone: tzinfo) -> datetime:
    """Return when the clocks of *zone* show *local*: the first time if twice, right after the skip if never."""
    aware = local.replace(tzinfo=zone, fold=0)
    found = aware.astimezone(UTC)
    if _wall(found, zone) == local:
        return found
    before = aware.replace(fold=1).astimezone(UTC)
    return _change_between(before, found, zone)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101 - every aware time has one
    return offset


def _next_change(start: datetime, end: datetime, zone: tzinfo) -> datetime | None:
    """Return the first moment in (*start*, *end*] at which the clocks of *zone* change."""
    low = start
    while low < end:
        high = min(low + _STRIDE, end)
        if _offset(low, zone) != _offset(high, zone):
            return _change_between(low, high, zone)
        low = high
    return None


def _change_between(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """Return the second in (*low*, *high*] at which the clocks change; they do between the two."""
    low, high = low.astimezone(UTC), high.astimezone(UTC)
    before = _offset(low, zone)
    first, last = int(low.timestamp()), -(-high.timestamp() // 1)
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), zone) == before:
            first = int(middle)
        else:
            last = middle
    return datetime.fromtimestamp(last, UTC)
