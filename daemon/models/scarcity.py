"""Whether a runner ended for lack of memory, as far as that can be told from outside.

1. Its last words say so: an allocator of MLX, Metal, CUDA or C++ complained before the process was aborted.
2. It was killed (SIGKILL, nobody of ours did it) and Linux has killed something for lack of memory since it was last
   heard of.
3. It was killed while the kernel spoke of memory pressure: macOS leaves nothing else behind that a user could read.

Anything else is a crash like any other: a wrong guess here would take a poisonous request for an innocent one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from daemon.models import pressure
from daemon.models.watermarks import Level
from plugins.mlx_process import out_of_memory

#: What a person can do about it.
ADVICE: Final = "Send less at once, take a smaller model or lower memory.budget so that more is left for the rest."


class Scarcity:
    """What the system said of memory while one runner lived."""

    def __init__(
        self,
        *,
        kills: Callable[[], int | None] = pressure.kills,
        level: Callable[[], Level] = pressure.kernel_level,
    ) -> None:
        self._kills = kills
        self._level = level
        self._before = kills()

    def note(self) -> None:
        """The runner was heard of: what was killed before was not this one."""
        self._before = self._kills()

    def explains(self, status: int, last_words: str) -> bool:
        """Tell whether a runner that ended with *status* (negative: a signal) did so for lack of memory."""
        if status != 0 and out_of_memory(last_words):  # 1
            return True
        if status != -signal.SIGKILL:
            return False
        now = self._kills()
        if self._before is not None and now is not None and now > self._before:  # 2
            return True
        return self._level() is not Level.NORMAL  # 3
