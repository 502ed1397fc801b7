"""Two ways of doing the same, taken in turn, so that whatever else the machine does hits both alike."""

from __future__ import annotations

import itertools
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
    #: Of each round: theirs / ours from `contest`, ours / theirs from `duel`.
    ratio: Spread
    rounds: int
    #: Ours / ours of neighbouring rounds: what the ratio would be if there were nothing to tell apart.
    null: Spread | None = None


def contest(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Contest:
    """Run ours, theirs, ours, theirs, ...; each returns its seconds. The first round warms up and does not count.

    The ratio is how many times longer theirs took.
    """
    return _summary([(ours(), theirs()) for _ in range(rounds + 1)][1:], lambda mine, other: other / mine)


def duel(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int, warm: int = 1) -> Contest:
    """Run ours, theirs, theirs, ours, ...; each returns its figure. The first *warm* rounds do not count.

    The ratio is ours / theirs.
    """
    pairs = []
    for number in range(warm + rounds):
        if number % 2:
            other = theirs()
            pairs.append((ours(), other))
        else:
            mine = ours()
            pairs.append((mine, theirs()))
    return paired(pairs[warm:])


def paired(pairs: Sequence[tuple[float, float]]) -> Contest:
    """Summarise figures (ours, theirs) that were taken in turn; the ratio is ours / theirs."""
    return _summary(pairs, lambda mine, other: mine / other)


def _summary(pairs: Sequence[tuple[float, float]], ratio: Callable[[float, float], float]) -> Contest:
    mine = [one for one, _ in pairs]
    null = [later / earlier for earlier, later in itertools.pairwise(mine)]
    return Contest(
        Spread.of(mine),
        Spread.of([other for _, other in pairs]),
        Spread.of([ratio(*pair) for pair in pairs]),
        len(pairs),
        Spread.of(null) if null else None,
    )


def percentile(readings: Sequence[float], share: float) -> float:
    """Return the reading that *share* (0 to 1) of them do not exceed; of few readings, the largest."""
    ordered = sorted(readings)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


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
