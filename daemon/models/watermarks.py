"""When memory is getting short, and when it is enough again. Pure: numbers and times in, a level and its reason out.

1. What all our processes occupy is above the hard mark, or the kernel says critical: **critical**, at once.
2. Above the soft mark, or the kernel says warning: **warn**, at once.
3. A level is left for a lower one only after `CALM_S` in which nothing spoke for it; and for our own marks only what
   is a twentieth below them counts as below. So nothing flaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

#: Seconds for which a level stays after the last sign of it.
CALM_S: Final = 10.0
#: Share of a mark that must be free again.
_BELOW: Final = 0.95


class Level(IntEnum):
    """How short memory is."""

    NORMAL = 0
    #: Caches are trimmed, and no further job of the batch lane begins.
    WARN = 1
    #: Idle models are unloaded, and the batch lane's jobs step aside.
    CRITICAL = 2


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What the daemon and its runners may occupy together, bytes."""

    soft: int
    hard: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was found at one moment."""

    #: Bytes that all our processes occupy.
    footprint: int
    kernel: Level = Level.NORMAL


@dataclass(frozen=True, kw_only=True)
class Strain:
    """How things stand."""

    level: Level = Level.NORMAL
    #: Why, for people; empty when nothing is wrong.
    reason: str = ""
    #: Bytes that all our processes occupied when it was last looked at.
    footprint: int = 0
    #: When something last spoke for this level, seconds on the clock of whoever judges.
    since: float = 0.0


RELAXED: Final = Strain()


def judge(before: Strain, sample: Sample, marks: Marks, now: float) -> Strain:
    """Return how things stand at *now*, seconds, after *before*."""
    found, reason = _spoken(before, sample, marks)
    if found >= before.level:
        return Strain(level=found, reason=reason, footprint=sample.footprint, since=now)
    if now - before.since < CALM_S:
        return Strain(level=before.level, reason=before.reason, footprint=sample.footprint, since=before.since)
    return Strain(level=found, reason=reason, footprint=sample.footprint, since=now)


def _spoken(before: Strain, sample: Sample, marks: Marks) -> tuple[Level, str]:
    """Return the level that the sample speaks for by itself, and why."""
    for level, mark in ((Level.CRITICAL, marks.hard), (Level.WARN, marks.soft)):
        if sample.kernel >= level:
            word = "critical" if level is Level.CRITICAL else "a warning"
            return level, f"the system's memory pressure is {word}"
        held = mark * (_BELOW if before.level >= level else 1)
        if sample.footprint > held:
            return level, f"mlxd and its models occupy {sample.footprint / 1e9:.1f} GB, more than {mark / 1e9:.1f} GB"
    return Level.NORMAL, ""
