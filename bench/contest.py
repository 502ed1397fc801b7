"""Two ways of doing the same, taken in turn, so that whatever else the machine does hits both alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some readings."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, readings: Sequence[float]) -> Spread:
        """Summarise *readings*."""
        return cls(statistics.median(readings), min(readings), max(readings))

    def text(self, unit: str = "s") -> str:
        """Show it, milliseconds for small times."""
        factor, unit = (1000, "ms") if unit == "s" and self.median < 1 else (1, unit)
        digits = 0 if self.median * factor >= 100 else 2  # noqa: RUF100, PLR2004
        median, low, high = (f"{each * factor:.{digits}f}" for each in (self.median, self.low, self.high))
        return f"{median} {unit} ({low} to {high})"


@dataclass(frozen=True)
class Contest:
    """What came of taking *ours* and *theirs* in turn."""

    ours: Spread
    theirs: Spread
    #: theirs / ours of each round: how many times longer theirs took.
    ratio: Spread
    rounds: int


def contest(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Contest:
    """Run ours, theirs, ours, theirs, ...; each returns its seconds. The first round warms up and does not count."""
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    return Contest(
        Spread.of([mine for mine, _ in pairs]),
        Spread.of([other for _, other in pairs]),
        Spread.of([other / mine for mine, other in pairs]),
        rounds,
    )


def timed(command: Sequence[str], *, environ: Mapping[str, str], keep: list[str] | None = None) -> float:
    """Run *command* to its end and return the seconds; its output goes to *keep*. A failure ends the benchmark."""
    started = time.perf_counter()
    done = subprocess.run(list(command), env=dict(environ), check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    if keep is not None:
        keep.append(done.stdout)
    return seconds
