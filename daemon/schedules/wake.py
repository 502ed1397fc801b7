"""Notices that the machine slept: the wall clock went on while the monotonic one stood still.

`time.monotonic` stops in sleep on macOS (mach_absolute_time) and on Linux (CLOCK_MONOTONIC). Somebody who sets the
clock forward looks the same, and is treated the same; a clock set back is told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

#: A difference of so many seconds is no drift or leap second.
JUMP_S: Final = 10.0


@dataclass(frozen=True)
class Jump:
    """By how many seconds the wall clock went ahead of the monotonic one; negative when it was set back."""

    seconds: float

    @property
    def asleep(self) -> bool:
        """Whether the time passed without us."""
        return self.seconds > 0


class Clocks:
    """Both clocks, and what has happened between them. For one thread."""

    def __init__(self, wall: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = self._read()

    def jump(self) -> Jump | None:
        """Return the jump since the last call, if there was one."""
        before, self._last = self._last, self._read()
        seconds = (self._last[0] - before[0]).total_seconds() - (self._last[1] - before[1])
        return Jump(seconds) if abs(seconds) >= JUMP_S else None

    def _read(self) -> tuple[datetime, float]:
        return self._wall(), self._monotonic()
