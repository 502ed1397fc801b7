"""How many tokens of a prompt are computed at once: few while others are being answered, many while nobody is.

Whoever is being answered waits for the piece between two of his tokens. So a piece may take about as long as a step
takes, which makes the longest gap about twice the usual one. Both are measured as the work goes on.
"""

from __future__ import annotations

from typing import Final

#: Tokens: the smallest piece, what pieces are multiples of, and the first one, when nothing is known.
_LEAST: Final = 32
_FIRST: Final = 256
#: Seconds a piece may take while nobody is being answered: how long a cancellation waits.
_ALONE_S: Final = 0.25
#: Steps that a piece may take while somebody is.
_STEPS: Final = 1.0
#: Weight of the newest measurement.
_NEW: Final = 0.3


class Pace:
    """Measures steps and pieces; *most* is the largest piece in tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step_s: float | None = None
        self._rate: float | None = None

    def stepped(self, seconds: float) -> None:
        """Note how long a step took."""
        self._step_s = seconds if self._step_s is None else (1 - _NEW) * self._step_s + _NEW * seconds

    def computed(self, tokens: int, seconds: float) -> None:
        """Note how long a piece of so many *tokens* took."""
        if tokens >= _LEAST and seconds > 0:
            rate = tokens / seconds
            self._rate = rate if self._rate is None else (1 - _NEW) * self._rate + _NEW * rate

    def piece(self, *, others: bool) -> int:
        """Return the tokens of the next piece; *others* says whether anybody is being answered meanwhile."""
        if self._rate is None:
            return min(_FIRST, self._most)
        seconds = _STEPS * self._step_s if others and self._step_s is not None else _ALONE_S
        tokens = int(self._rate * seconds) // _LEAST * _LEAST
        return max(_LEAST, min(self._most, tokens))
