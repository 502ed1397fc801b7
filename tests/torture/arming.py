"""Which failpoints are armed in a home, which have fired, and the daemon's death where only a runner died."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from jobs.failpoints import NAMES
from torture.history import History
from torture.launchsim import Supervisor

#: Reached once in a process, or so seldom that a second time may never come before the next death.
_ONCE = (
    *("start.", "drain.", "schedule.", "orphan.", "trash.", "input."),
    *(f"ledger.{verb}." for verb in ("migrate", "unblock", "recover", "desk", "fire", "stop", "cancel", "requeue")),
)
#: Reached by a runner: it dies, and its daemon with it or not.
IN_RUNNERS = ("runner.loading", "runner.loaded", "runner.stepping")
#: Statements of the first migration: any of them can be the last.
_STATEMENTS = 9


def arm(names: Collection[str], chance: random.Random) -> dict[str, int]:
    """Return which time each of *names* is to fire."""
    return {name: _time(name, chance) for name in sorted(names)}


def _time(name: str, chance: random.Random) -> int:
    if name == "migration.statement":
        return chance.randint(1, _STATEMENTS)
    return 1 if name.startswith(_ONCE) or name in IN_RUNNERS else chance.randint(1, 3)


def share(number: int, size: int) -> list[str]:
    """Return *size* names, of which neighbouring *number*s get the following ones, until all have had their turn."""
    names = sorted(NAMES, key=lambda name: random.Random(name).random())
    return [names[(number * size + index) % len(names)] for index in range(size)]


class Armed:
    """The armed failpoints of one home; *folder* keeps the marks of those that have fired."""

    def __init__(self, folder: Path, points: dict[str, int], chance: random.Random) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._points = points
        self._chance = chance
        self._told: set[str] = set()
        #: Failpoints in a runner at which the daemon was killed too.
        self.both = 0

    @property
    def environ(self) -> dict[str, str]:
        """Return what arms them."""
        text = ",".join(f"{name}@{nth}=kill" for name, nth in self._points.items())
        return {"MLXD_FAILPOINTS": text, "MLXD_FAILPOINTS_ONCE": str(self._folder)}

    def missing(self) -> set[str]:
        """Return those that have not fired."""
        return set(self._points) - {path.name for path in self._folder.iterdir()}

    def watch(
        self,
        launchd: Supervisor,
        history: History,
        scenes: Callable[[Callable[[], set[str]]], object],
        *,
        seconds: float,
    ) -> set[str]:
        """Wait until all have fired, at most *seconds*; return those that have not.

        *scenes* is called from time to time with what tells which are missing. A death in a runner is followed by the
        daemon's, or not.
        """
        deadline = time.monotonic() + seconds
        missing = self.missing()
        while self._told != set(self._points) and time.monotonic() < deadline:
            missing = self.missing()
            fired = set(self._points) - missing - self._told
            for name in sorted(fired):
                history.event("failpoint", name=name, nth=self._points[name])
                if name in IN_RUNNERS and self._chance.random() < 0.5:
                    launchd.kill(signal.SIGKILL)
                    self.both += 1
            self._told |= fired
            if missing:
                scenes(self.missing)
                time.sleep(0.01)
        return missing
