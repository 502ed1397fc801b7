"""What a lane's conditions make of the facts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from daemon.conditions.policy import Fact, Facts, judge, needs
from daemon.config.lanes import LaneConfig

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVERYTHING = {"power": "mains", "low_power": "avoid", "thermal": "cool", "idle_for": "10m", "between": "22:00-07:00"}
FINE = Facts(mains=True, battery=80, low_power=False, hot=False, idle_s=601.0)
BAD = Facts(mains=False, battery=34, low_power=True, hot=True, idle_s=3.0)


def lane(**said: Any) -> LaneConfig:
    return LaneConfig.model_validate(said)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"power": "mains"}, "on battery (34 %), goes on at mains power"),
        ({"low_power": "avoid"}, "in low power mode, goes on when it is switched off"),
        ({"thermal": "cool"}, "the machine is hot, goes on when it has cooled down"),
        ({"idle_for": "10m"}, "somebody is at the machine, goes on after 10 min without keyboard and mouse"),
        ({"idle_for": "1h"}, "somebody is at the machine, goes on after 1 h without keyboard and mouse"),
        ({"idle_for": 90}, "somebody is at the machine, goes on after 90 s without keyboard and mouse"),
        ({"between": "22:00-07:00"}, "it is not between 22:00 and 07:00, goes on at 22:00"),
    ],
)
def test_each_condition_says_why(said: dict[str, Any], sentence: str) -> None:
    """A condition that does not hold closes the lane with one sentence, and only the facts that matter are asked."""
    verdict = judge(lane(**said), BAD, NOON, UTC)
    assert (verdict.open, verdict.reason) == (False, sentence)
    at_night = NOON.replace(hour=23)
    assert judge(lane(**said), Facts(mains=True, low_power=False, hot=False, idle_s=3600), at_night, UTC).open


def test_all_must_hold() -> None:
    """With several conditions each one that fails is named, in a fixed order; when all hold the lane is open."""
    verdict = judge(lane(**EVERYTHING), BAD, NOON, UTC)
    assert verdict.reason is not None
    assert verdict.reason.count("goes on") == 5
    assert verdict.reason.startswith("on battery (34 %), goes on at mains power; in low power mode")
    assert judge(lane(**EVERYTHING), FINE, NOON.replace(hour=3), UTC).open


def test_what_cannot_be_read_counts_as_fulfilled() -> None:
    """Unknown facts hold nothing back, and are named; facts that no condition asks for are not."""
    verdict = judge(lane(power="mains", idle_for="5m"), Facts(low_power=True), NOON, UTC)
    assert (verdict.open, verdict.unread) == (True, {Fact.POWER, Fact.IDLE})


def test_only_what_is_asked_is_needed() -> None:
    """The clock needs no reading, and a lane without conditions none at all."""
    assert needs(lane()) == needs(lane(between="1:00-2:00", stop=True, keep_awake=True)) == frozenset()
    assert needs(lane(**EVERYTHING)) == set(Fact)
    assert judge(lane(), BAD, NOON, UTC).open
    assert not lane(stop=True, keep_awake=True).conditional


def test_until_is_told_when_only_the_clock_counts() -> None:
    """The end of the wait is known when only the time of day stands in the way, as an instant."""
    berlin = ZoneInfo("Europe/Berlin")
    verdict = judge(lane(between="22:00-07:00"), BAD, NOON, berlin)
    assert verdict.until == datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
    assert judge(lane(between="22:00-07:00", power="mains"), BAD, NOON, berlin).until is None


def test_a_battery_without_a_charge() -> None:
    """A battery whose charge is not known is named without it."""
    assert judge(lane(power="mains"), Facts(mains=False), NOON).reason == "on battery, goes on at mains power"


@pytest.mark.parametrize("wrong", ["22:00", "25:00-07:00", "07:00-07:00", "22:60-23:00", "", 7, "00:00-24:00"])
def test_wrong_spans_are_refused(wrong: object) -> None:
    """What is no part of the day is refused with what it should be."""
    with pytest.raises(ValueError, match="22:00-07:00"):
        LaneConfig.model_validate({"between": wrong})


@pytest.mark.parametrize(("said", "meant"), [("22:00-7:00", "22:00-07:00"), ("18:00 - 24:00", "18:00-00:00")])
def test_spans_as_people_write_them(said: str, meant: str) -> None:
    """Short hours, spaces and the midnight at the day's end are understood; the value reads back as text."""
    assert LaneConfig.model_validate({"between": said}).model_dump(mode="json")["between"] == meant
