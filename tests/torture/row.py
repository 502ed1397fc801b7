"""What a row of the campaign is, and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

#: Tells the person who watches how far a row is.
Say = Callable[[str], None]


class Tier(StrEnum):
    """How many tries: seconds a row for every change, or what the promises are stated by."""

    SHORT = "short"
    LONG = "long"


@dataclass(frozen=True, kw_only=True)
class Control:
    """The same attack on a deliberately broken build or setting; one that is not caught makes the row worthless."""

    #: What was broken, e.g. "synchronous=NORMAL".
    name: str
    caught: bool
    #: What gave it away, with numbers: "1513 of 2018 power cuts lost an acknowledged row".
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one row saw."""

    #: How many faults were really injected.
    tries: int
    #: Jobs (or rows, or files) that were acknowledged while it went on.
    acknowledged: int = 0
    #: Acknowledged and not there at the end.
    lost: int = 0
    #: Done, or made, more than once.
    doubled: int = 0
    #: Seconds from each fault until work went on.
    recoveries: Sequence[float] = ()
    #: Every other promise that was broken, a sentence each; empty is what a row wants.
    broken: Sequence[str] = ()
    controls: Sequence[Control] = ()
    #: Further figures worth keeping, by name with the unit in it: {"ready_p99_s": 1.2}.
    measured: Mapping[str, Any] = field(default_factory=dict)
    #: What could not be run as asked here, and why.
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether everything held and every control was caught; a row without a control never passes."""
        clean = not (self.lost or self.doubled or self.broken)
        return clean and self.tries > 0 and bool(self.controls) and all(control.caught for control in self.controls)


class Row(Protocol):
    """One fault and what must hold under it."""

    #: Order in the table, and the name on the command line: lower case, "-" between words.
    number: int
    name: str
    #: The fault, as the table says it.
    fault: str
    #: What must hold, in a sentence.
    promise: str
    #: Whether how long things take is part of the promise: then nothing else runs beside it. Absent: False.
    timed: bool

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Attack in *folder* (empty, short path, removed afterwards unless the row fails); repeatable by *seed*."""


def judged(tier: Tier) -> float:
    """Return the percentile by which *tier* judges times: a handful of tries have no 99th, only a slowest one."""
    return 0.99 if tier is Tier.LONG else 0.5


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* (0 to 1) of *values* do not exceed, by the nearest-rank method; NaN for none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
