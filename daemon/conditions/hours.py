"""Parts of the day by the clock on the wall. Pure.

What counts is what a clock shows at the moment: where summer time begins or ends, a span is an hour shorter or longer,
and one that begins or ends within the hour that is shown twice holds whenever its times are shown.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from daemon.config.lanes import Span

_MINUTE: Final = timedelta(minutes=1)
#: Days whose minutes are looked at for a change: the longest span is a day, less a minute, and one hour more or less.
_HORIZON: Final = 2 * 24 * 60


def within(span: Span, now: datetime, zone: tzinfo | None = None) -> bool:
    """Tell whether the clock shows a time in *span* at *now* (aware). *zone* None is the machine's own."""
    shown = now.astimezone(zone).time()
    if span.begin < span.end:
        return span.begin <= shown < span.end
    return shown >= span.begin or shown < span.end


def next_change(span: Span, now: datetime, zone: tzinfo | None = None) -> datetime | None:
    """Return the first moment after *now* at which `within` changes, in UTC; None if there is none for two days.

    Looked for minute by minute: changes of the clock come in whole minutes too, and need no rule of their own.
    """
    state = within(span, now, zone)
    moment = now.astimezone(UTC).replace(second=0, microsecond=0)
    for _ in range(_HORIZON):
        moment += _MINUTE
        if within(span, moment, zone) is not state:
            return moment
    return None
