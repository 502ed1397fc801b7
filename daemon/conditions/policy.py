"""May a lane's jobs run? Facts in, a verdict with its reasons out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Final

from daemon.conditions.hours import next_change, within
from daemon.config.lanes import LaneConfig


class Fact(StrEnum):
    """What a condition may want to know of the machine; the value is the condition's key in the configuration."""

    POWER = "power"
    LOW_POWER = "low_power"
    HEAT = "thermal"
    IDLE = "idle_for"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found out about the machine; None: it could not be read, or nobody asked."""

    #: Whether it runs on mains power.
    mains: bool | None = None
    #: Charge of the battery, per cent.
    battery: int | None = None
    #: Whether Low Power Mode or the power saver is on.
    low_power: bool | None = None
    #: Whether the system slows itself down because of heat.
    hot: bool | None = None
    #: Seconds since keyboard or mouse were used.
    idle_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a lane is open, and if not, why and until when."""

    #: One for each condition that does not hold: ``on battery (34 %), goes on at mains power``.
    reasons: tuple[str, ...] = ()
    #: When the verdict will be another, if only the clock stands in the way.
    until: datetime | None = None
    #: Conditions that could not be looked at, and so count as fulfilled.
    unread: frozenset[Fact] = field(default_factory=frozenset)

    @property
    def open(self) -> bool:
        """Whether the lane's jobs may run."""
        return not self.reasons

    @property
    def reason(self) -> str | None:
        """Why not, as one sentence; None if they may."""
        return "; ".join(self.reasons) or None


#: Nothing stands in the way.
OPEN: Final = Verdict()

_VALUES: Final = {Fact.POWER: "mains", Fact.LOW_POWER: "low_power", Fact.HEAT: "hot", Fact.IDLE: "idle_s"}


def needs(lane: LaneConfig) -> frozenset[Fact]:
    """Return what *lane*'s conditions want to know; the clock is always at hand."""
    wanted = {
        Fact.POWER: lane.power == "mains",
        Fact.LOW_POWER: lane.low_power == "avoid",
        Fact.HEAT: lane.thermal == "cool",
        Fact.IDLE: lane.idle_for is not None,
    }
    return frozenset(fact for fact, want in wanted.items() if want)


def judge(lane: LaneConfig, facts: Facts, now: datetime, zone: tzinfo | None = None) -> Verdict:
    """Say whether *lane*'s jobs may run at *now* (aware). *zone* None is the machine's own.

    What could not be read counts as fulfilled, and is named in the verdict.
    """
    wanted = needs(lane)
    unread = frozenset(fact for fact in wanted if getattr(facts, _VALUES[fact]) is None)
    reasons = [reason for fact in Fact if fact in wanted and (reason := _objection(fact, lane, facts))]
    if lane.between is None or within(lane.between, now, zone):
        return Verdict(reasons=tuple(reasons), unread=unread)
    until = None if reasons else next_change(lane.between, now, zone)
    outside = f"it is not between {lane.between.begin:%H:%M} and {lane.between.end:%H:%M}"
    return Verdict(reasons=(*reasons, f"{outside}, goes on at {lane.between.begin:%H:%M}"), until=until, unread=unread)


def _objection(fact: Fact, lane: LaneConfig, facts: Facts) -> str | None:
    """Return what *fact* has against running, if anything."""
    match fact:
        case Fact.POWER if facts.mains is False:
            charge = f" ({facts.battery} %)" if facts.battery is not None else ""
            return f"on battery{charge}, goes on at mains power"
        case Fact.LOW_POWER if facts.low_power:
            return "in low power mode, goes on when it is switched off"
        case Fact.HEAT if facts.hot:
            return "the machine is hot, goes on when it has cooled down"
        case Fact.IDLE if facts.idle_s is not None and lane.idle_for and facts.idle_s < lane.idle_for:
            return f"somebody is at the machine, goes on after {_words(lane.idle_for)} without keyboard and mouse"
    return None


def _words(seconds: float) -> str:
    """Return a duration as it would stand in the configuration."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:g} s"
