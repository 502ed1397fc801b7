"""Whose turn it is: interactive before normal before batch, and nobody is forgotten.

Every step belongs to one lane. The most urgent lane that has work gets it, but each less urgent lane has a bound: of
any so many steps in a row during which it has work it gets at least one, however much work the others have. The most
urgent lane is never passed over more than twice in a row. A lane whose turn it is not keeps its caches where they are:
it is paused, nothing is thrown away or computed again.

1. A lane's slack is how often it may still be passed over. With slacks s0 <= s1 every bound can be kept as long as
   s0 >= 0 and s1 >= 1: whoever is served at 0 leaves the other one at 0 or more.
2. So a step goes to the lane with the least slack as soon as one of them has no more slack than lanes are before it,
   otherwise to the most urgent one. Bounds of at least `LEAST` steps leave that one at least one step of three.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from jobs.model import Lane

#: Of this many steps a less urgent lane that has work gets one, unless another number is set.
ONE_STEP_IN: Final = 8
#: The smallest number: two lanes that have a step of three each leave one to the most urgent.
LEAST: Final = 3


class Turns:
    """Hands out steps; *bounds* says for a lane which number counts instead of `ONE_STEP_IN`."""

    def __init__(self, bounds: Mapping[Lane, int] | None = None) -> None:
        self._bounds = {lane: max(LEAST, (bounds or {}).get(lane, ONE_STEP_IN)) for lane in Lane}
        self._passed = dict.fromkeys(Lane, 0)

    def next(self, working: Collection[Lane]) -> Lane | None:
        """Return the lane of the next step, of those that are *working*; None if none is."""
        ordered = [lane for lane in Lane if lane in working]
        if not ordered:
            self._passed = dict.fromkeys(Lane, 0)
            return None
        urgent, *waiting = ordered
        waiting.sort(key=self._slack)
        due = any(self._slack(lane) <= before for before, lane in enumerate(waiting))
        chosen = waiting[0] if due else urgent
        for lane in Lane:
            self._passed[lane] = self._passed[lane] + 1 if lane in working and lane is not chosen else 0
        return chosen

    def _slack(self, lane: Lane) -> int:
        """Return how often *lane* may still be passed over."""
        return self._bounds[lane] - 1 - self._passed[lane]


class Overtaking:
    """Which of the lanes that ask to begin was overtaken often enough; *bounds* as for `Turns`.

    Small requests could slip into every gap in the memory for ever, and a large one would never find enough of it at
    once. So of any as many beginnings as its bound says, while a lane asks, one is its own: the others wait for it.
    """

    def __init__(self, bounds: Mapping[Lane, int] | None = None) -> None:
        self._bounds = {lane: max(LEAST, (bounds or {}).get(lane, ONE_STEP_IN)) for lane in Lane}
        self._overtaken = dict.fromkeys(Lane, 0)

    def owed(self, asking: Collection[Lane]) -> Lane | None:
        """Return which of the lanes *asking* the next beginning belongs to, if to any: nobody begins to its cost."""
        due = [lane for lane in Lane if lane in asking and self._overtaken[lane] >= self._bounds[lane] - 1]
        return max(due, key=lambda lane: self._overtaken[lane] - self._bounds[lane], default=None)

    def began(self, lane: Lane, asking: Collection[Lane]) -> None:
        """Note that one of *lane* begins, before the others of those *asking*."""
        for other in Lane:
            self._overtaken[other] = self._overtaken[other] + 1 if other in asking and other is not lane else 0


def bounds_of(options: Mapping[str, Any]) -> dict[Lane, int]:
    """Return the bounds in a model's *options*: ``one_step_in``, a number or one for each lane.

    Raises:
        ValueError: it is neither, or too small; says what it has to be.

    """
    said = options.get("one_step_in", {})
    named = said if isinstance(said, Mapping) else dict.fromkeys((Lane.NORMAL, Lane.BATCH), said)
    lanes = {lane.value for lane in Lane if lane is not Lane.INTERACTIVE}
    for lane, number in named.items():
        if str(lane) not in lanes or not isinstance(number, int) or isinstance(number, bool) or number < LEAST:
            raise ValueError(
                f"one_step_in has to be a number of at least {LEAST}, or one for each of the lanes "
                f"{' and '.join(sorted(lanes))}, got {said!r}"
            )
    return {Lane(lane): number for lane, number in named.items()}
