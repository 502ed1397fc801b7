"""Parts of the day: right across midnight and on the days when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daemon.conditions.hours import next_change, within
from daemon.config.lanes import Span

BERLIN = ZoneInfo("Europe/Berlin")
#: Changes of the clock by an hour in both hemispheres, by half an hour, at midnight, and none at all.
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "UTC"]
MINUTE = timedelta(minutes=1)

times = st.builds(time, st.integers(0, 23), st.integers(0, 59))
spans = st.builds(Span, times, times).filter(lambda span: span.begin != span.end)
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.integers(0, 730 * 86400).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
#: Within a day and a half of a change of the clock in one of the zones.
CHANGES = ["2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00"]
near_changes = st.builds(
    lambda change, hours: datetime.fromisoformat(change).replace(tzinfo=UTC) + timedelta(hours=hours),
    st.sampled_from(CHANGES),
    st.floats(-36, 36),
)


def minutes(moment: time) -> int:
    return moment.hour * 60 + moment.minute


@settings(deadline=None)
@given(spans, moments | near_changes, zones)
def test_within_is_what_the_clock_shows(span: Span, now: datetime, zone: ZoneInfo) -> None:
    """A moment is within when the minutes shown since the span's begin are fewer than the span is long."""
    shown = now.astimezone(zone)
    since = (minutes(shown.time()) - minutes(span.begin)) % 1440
    assert within(span, now, zone) is (since < (minutes(span.end) - minutes(span.begin)) % 1440)


@settings(max_examples=60, deadline=None)
@given(spans, moments | near_changes, zones)
def test_next_change_is_the_first(span: Span, now: datetime, zone: ZoneInfo) -> None:
    """Until the next change nothing changes, and there it does, on every day of the year in every zone."""
    state = within(span, now, zone)
    change = next_change(span, now, zone)
    assert change is not None
    assert change > now
    assert within(span, change, zone) is not state
    assert within(span, change - timedelta(microseconds=1), zone) is state
    looked = now
    while (looked := looked + 7 * MINUTE) < change:
        assert within(span, looked, zone) is state


@settings(max_examples=60, deadline=None)
@given(spans, moments)
def test_in_and_out_make_a_day(span: Span, now: datetime) -> None:
    """Where the clocks never change, a span lasts as long as it says and begins a day after it began."""
    assume(not within(span, now, UTC))
    begin = next_change(span, now, UTC)
    assert begin is not None
    end = next_change(span, begin, UTC)
    assert end is not None
    assert (end - begin) // MINUTE == (minutes(span.end) - minutes(span.begin)) % 1440
    assert next_change(span, end, UTC) == begin + timedelta(days=1)


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 8), ("2026-10-24", 10), ("2026-06-01", 9)], ids=["spring", "autumn", "summer"]
)
def test_a_night_across_the_change(day: str, hours: int) -> None:
    """In Berlin, 22:00 to 07:00 has eight hours in the night of spring, ten in that of autumn, nine in others."""
    span = Span(time(22), time(7))
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=BERLIN)
    begin = next_change(span, noon, BERLIN)
    assert begin is not None
    end = next_change(span, begin, BERLIN)
    assert end is not None
    assert begin.astimezone(BERLIN).time() == time(22)
    assert end.astimezone(BERLIN).time() == time(7)
    assert end - begin == timedelta(hours=hours)


def test_a_begin_that_no_clock_shows() -> None:
    """Where 02:30 is skipped, a span that begins then begins with the jump."""
    before = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    assert next_change(Span(time(2, 30), time(5)), before, BERLIN) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_without_a_zone_it_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own zone counts when none is given."""
    import time as clock

    now = datetime(2026, 7, 1, 20, 30, tzinfo=UTC)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock.tzset()
    try:
        assert within(Span(time(22), time(7)), now)
        assert next_change(Span(time(22), time(7)), now) == datetime(2026, 7, 2, 5, 0, tzinfo=UTC)
    finally:
        monkeypatch.delenv("TZ")
        clock.tzset()
