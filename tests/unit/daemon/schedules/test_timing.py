"""When a schedule fires, against a slow reference that looks at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from fakes_schedules import utc
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.schedules.timing import Cron, Every, Once, delay, instant, latest, spelled, times

MINUTE = timedelta(minutes=1)
#: Days around which the clocks of these zones change, forward and back.
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "Asia/Kathmandu": ("2026-06-01",),
}


def reference(text: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Walk through every real minute; for fixed times of day mend what the clocks skipped or repeated."""
    minute, hour = text.split()[:2]
    fixed = not minute.startswith("*") and not hour.startswith("*")
    fields = CronSim(text, datetime(2026, 1, 1))  # noqa: DTZ001 - only what it parsed

    def matches(wall: datetime) -> bool:
        clock = wall.minute in fields.minutes and wall.hour in fields.hours
        return clock and fields.match_day(wall.date())

    found, moment, last = [], start, start.astimezone(zone).replace(tzinfo=None, fold=0)
    seen = {last}
    while (moment := moment + MINUTE) <= end:
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        hit = matches(wall)
        if fixed:
            repeated = wall in seen or moment.astimezone(zone).fold == 1
            hit = hit and not repeated
            skipped = (wall - last) // MINUTE
            hit = hit or any(matches(last + step * MINUTE) for step in range(1, skipped))
        if hit:
            found.append(moment)
        last = wall
        seen.add(wall)
    return found


minutes = st.one_of(
    st.just("*"), st.integers(0, 59).map(str), st.sampled_from(["*/7", "*/15", "0,30", "10-20/5", "59", "5/20"])
)
hours = st.one_of(st.just("*"), st.integers(0, 4).map(str), st.sampled_from(["*/2", "1-3", "2,3", "0,12", "1/3"]))
days = st.sampled_from(["*", "*", "*", "1,4,5,8,25,29", "L", "*/2"])
weekdays = st.sampled_from(["*", "*", "*", "SUN", "MON-FRI", "0", "7", "SUN#1", "5L"])


@settings(max_examples=150, deadline=None)
@given(
    fields=st.tuples(minutes, hours, days, weekdays),
    where=st.sampled_from([(zone, day) for zone, found in CHANGES.items() for day in found]),
    begin=st.integers(0, 26 * 60),
)
def test_cron_is_what_every_minute_says(fields: tuple[str, str, str, str], where: tuple[str, str], begin: int) -> None:
    """Around both changes of the clocks, by whole and by half hours, cron agrees with looking at each minute."""
    minute, hour, day, weekday = fields
    text, zone = f"{minute} {hour} {day} * {weekday}", ZoneInfo(where[0])
    start = instant(datetime.fromisoformat(where[1]), zone) - timedelta(hours=20) + begin * MINUTE
    end = start + timedelta(hours=30)

    assert list(times(Cron(text, zone), start, end)) == reference(text, zone, start, end)


@settings(max_examples=100, deadline=None)
@given(
    text=st.sampled_from(["30 2 * * *", "0 3 1 * *", "@hourly", "*/20 * * * *", "15 4 * * MON", "0 0 29 2 *"]),
    zone=st.sampled_from(list(CHANGES)),
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_after_is_later_and_steady(text: str, zone: str, moment: datetime) -> None:
    """The next time is later; asked from any moment before it, the answer is the same; times only grow."""
    timing = Cron(text, ZoneInfo(zone))
    found = timing.after(moment)

    assert found is not None
    assert found > moment
    assert timing.after(moment + (found - moment) / 2) == found
    assert timing.after(found - timedelta(microseconds=1)) == found
    assert all(one < other for one, other in pairwise(islice(times(timing, moment), 5)))


@pytest.mark.parametrize(
    ("zone", "text", "start", "wanted"),
    [
        # Forward: 2:30 does not exist; right after the skip. Back: 2:30 comes twice; the first.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00", ["2026-03-08T07:00", "2026-03-09T06:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        # Half an hour: 2:00 becomes 2:30, and 2:00 becomes 1:30.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
        # With a star the schedule follows the clock on the wall.
        ("Europe/Berlin", "30 * * * *", "2026-03-28T23:45", ["2026-03-29T00:30", "2026-03-29T01:30"]),
        ("Europe/Berlin", "30 */2 * * *", "2026-10-25T00:00", ["2026-10-25T00:30", "2026-10-25T01:30"]),
        ("Australia/Lord_Howe", "*/30 3 * * *", "2026-10-03T15:40", ["2026-10-03T16:00", "2026-10-03T16:30"]),
    ],
)
def test_changes_of_the_clocks(zone: str, text: str, start: str, wanted: list[str]) -> None:
    """A fixed time of day happens once a day; a starred one follows the wall."""
    found = islice(times(Cron(text, ZoneInfo(zone)), utc(start)), 2)
    assert list(found) == [utc(time) for time in wanted]


@given(
    period=st.integers(1, 100_000),
    anchor=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    offset=st.integers(-200_000, 2_000_000),
)
def test_intervals_stay_on_their_grid(period: int, anchor: datetime, offset: int) -> None:
    """The next time is the first of anchor + n periods, n at least 1, that is later."""
    moment = anchor + timedelta(seconds=offset)
    wanted = anchor + timedelta(seconds=max(1, offset // period + 1) * period)
    assert Every(timedelta(seconds=period), anchor).after(moment) == wanted


def test_a_single_time() -> None:
    """It comes once."""
    assert list(times(Once(utc("2027-01-01")), utc("2026-01-01"))) == [utc("2027-01-01")]
    assert Once(utc("2027-01-01")).after(utc("2027-01-01")) is None


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from(["* * * * *", "*/7 * * * *", "0 3 * * *", "30 2 * * SUN", "0 0 1 * *"]),
    hours_=st.integers(0, 24 * 40),
    most=st.integers(1, 20),
)
def test_latest_is_the_end_of_all(text: str, hours_: int, most: int) -> None:
    """It gives what listing every time and taking the last ones gives."""
    timing, start = Cron(text, ZoneInfo("Europe/Berlin")), utc("2026-03-01T00:00")
    end = start + timedelta(hours=hours_)
    every = list(islice(times(timing, start, end), 70_000)) if text != "* * * * *" or hours_ < 100 else None
    found = latest(timing, start, end, most)

    assert len(found) <= most
    assert every is None or found == every[-most:]


def test_latest_after_a_year_is_quick() -> None:
    """Half a million times are not walked through: a few thousand steps suffice for the last ten."""
    steps = 0

    class Counted:
        def after(self, moment: datetime) -> datetime:
            nonlocal steps
            steps += 1
            return Every(timedelta(seconds=1), utc("2020-01-01")).after(moment)

    end = utc("2021-01-01")
    assert latest(Counted(), utc("2020-01-01"), end, 10) == [end - timedelta(seconds=n) for n in range(9, -1, -1)]
    assert steps < 2000


@given(seconds=st.integers(0, 86_400), hour=st.integers(0, 10_000))
def test_jitter_is_bounded_and_the_same_again(seconds: int, hour: int) -> None:
    """The delay lies within the jitter, and depends on nothing but name and time."""
    time, jitter = utc("2026-01-01") + timedelta(hours=hour), timedelta(seconds=seconds)
    found = delay("a", time, jitter)
    assert timedelta() <= found <= jitter
    assert found == delay("a", time.astimezone(ZoneInfo("Asia/Tokyo")), jitter)


def test_jitter_spreads() -> None:
    """Different names at the same time get different delays."""
    assert len({delay(f"s{n}", utc("2026-01-01"), timedelta(hours=1)) for n in range(20)}) > 15


@pytest.mark.parametrize(
    "text", ["", "x", "61 * * * *", "* * * *", "* * * * * *", "@reboot", "0 0 30 2 *", "* * * FOO *"]
)
def test_nonsense_is_refused(text: str) -> None:
    """What is no cron expression, or never comes true, says what is wanted."""
    with pytest.raises(ValueError, match="cron expression"):
        Cron(text, UTC)


def test_macros_are_spelled_out() -> None:
    """@daily and its like, in any case."""
    assert (spelled("@daily"), spelled("@Weekly")) == ("0 0 * * *", "0 0 * * 0")
