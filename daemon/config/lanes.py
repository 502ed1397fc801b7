"""Lanes in the configuration: ``[lanes.<lane>]``, when the jobs of a lane run, and what share of a model they get."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator

from daemon.config.folders import Switch
from daemon.config.units import Seconds
from jobs.model import Frozen, Lane
from plugins.lm_turns import LEAST, ONE_STEP_IN

_SPAN: Final = re.compile(r"(\d{1,2}):(\d{2}) ?- ?(\d{1,2}):(\d{2})")


class Span(NamedTuple):
    """A part of the day by the clock on the wall, *begin* included, *end* not; it may go across midnight."""

    begin: time
    end: time

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"


def span(value: Any) -> Span:
    """Return the part of the day that *value* means: text such as ``"22:00-07:00"``.

    Raises:
        ValueError: it is none.

    """
    if isinstance(value, Span):
        return value
    if isinstance(value, str) and (match := _SPAN.fullmatch(value.strip())):
        begin, end = (_clock(int(match[at]), int(match[at + 1])) for at in (1, 3))
        if begin is not None and end is not None and begin != end:
            return Span(begin, end)
    raise ValueError('a part of the day from one time to another: "22:00-07:00"')


def _clock(hour: int, minute: int) -> time | None:
    """Return the time of day, ``24:00`` being the midnight that ends it."""
    if (hour, minute) == (24, 0):
        return time(0)
    return time(hour, minute) if hour < 24 and minute < 60 else None  # noqa: PLR2004 - a day's hours, an hour's minutes


Between = Annotated[Span, PlainValidator(span), PlainSerializer(str, return_type=str)]


class LaneConfig(Frozen):
    """``[lanes.<lane>]``: when the jobs of a lane may run (everything that is said must hold), and how often."""

    #: "mains": only while the machine is not on battery.
    power: Literal["any", "mains"] = "any"
    #: "avoid": not while Low Power Mode (Linux: the power saver) is on.
    low_power: Literal["any", "avoid"] = "any"
    #: "cool": not while the system slows itself down because of heat.
    thermal: Literal["any", "cool"] = "any"
    #: Only in this part of the day, local time.
    between: Between | None = None
    #: Only when keyboard and mouse have not been used for this long.
    idle_for: Annotated[Seconds, Field(gt=0)] | None = None
    #: Whether running jobs step aside, too, when a condition ends; they go on later where they were.
    stop: Switch = False
    #: Of this many steps of a language model in a row at least one is for the lane's answers, as long as there are any,
    #: however many more urgent ones there are. Not for the interactive lane, which goes first.
    one_step_in: Annotated[int, Field(strict=True, ge=LEAST, le=1000)] = ONE_STEP_IN
    #: Whether the machine is kept from falling asleep by itself while a job of the lane runs.
    keep_awake: Switch = False

    @property
    def conditional(self) -> bool:
        """Whether jobs may have to wait for something."""
        states = (self.power, self.low_power, self.thermal)
        return any(state != "any" for state in states) or self.between is not None or self.idle_for is not None


def _first_goes_first(lanes: dict[Lane, LaneConfig]) -> dict[Lane, LaneConfig]:
    if (first := lanes.get(Lane.INTERACTIVE)) is not None and first.one_step_in != ONE_STEP_IN:
        raise ValueError("one_step_in for normal and batch only: the interactive lane goes before them")
    return lanes


#: Lane -> what is said of it.
Lanes = Annotated[dict[Lane, LaneConfig], AfterValidator(_first_goes_first)]


def turns(lanes: Mapping[Lane, LaneConfig]) -> dict[str, int]:
    """Return the lanes' numbers as the runtimes for text and speech take them in their option ``one_step_in``."""
    return {lane.value: one.one_step_in for lane, one in lanes.items() if lane is not Lane.INTERACTIVE}
