"""Whose turn it is: interactive before normal before batch, and nobody is forgotten.

Every step belongs to one lane. The most urgent lane that has work gets it, but a lane that has work and was passed over
`share` - 1 times in a row gets the next step. So of any `share` + 1 steps each lane that has work gets at least one. A
lane whose turn it is not keeps its caches where they are: it is paused, nothing is thrown away or computed again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from jobs.model import Lane

#: Of this many steps, a less urgent lane that has work gets one.
SHARE: Final = 8


class Turns:
    """Hands out steps."""

    def __init__(self, share: int = SHARE) -> None:
        self._share = max(2, share)
        self._passed = dict.fromkeys(Lane, 0)

    def next(self, working: Collection[Lane]) -> Lane | None:
        """Return the lane of the next step, of those that are *working*; None if none is."""
        if not working:
            return None
        urgent = [lane for lane in Lane if lane in working]
        # The longest passed over first; the order of lanes breaks ties.
        due = max(urgent, key=lambda lane: (self._passed[lane], -urgent.index(lane)))
        chosen = due if self._passed[due] >= self._share - 1 else urgent[0]
        for lane in Lane:
            self._passed[lane] = self._passed[lane] + 1 if lane in working and lane is not chosen else 0
        return chosen
