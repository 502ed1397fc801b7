"""How many tokens of a prompt are computed at once: few while a person is being answered, many while nobody is.

Whoever is being answered waits for the piece between two of his tokens. So a piece may take as long as two steps do,
which makes the longest gap about three times the usual one. But each piece has a cost that does not shrink with it
(on a GPU 32 tokens take nearly as long as 256): pieces are not made smaller than what takes twice that cost.
"""

from __future__ import annotations

from typing import Final

#: Tokens in the smallest piece, and in the first one, when nothing is known.
_LEAST: Final = 64
_FIRST: Final = 512
#: Seconds a piece may take while nobody is being answered: how long a cancellation waits.
_ALONE_S: Final = 0.25
#: Steps that a piece may take while somebody is.
_STEPS: Final = 2.0
#: Weight of the newest measurement.
_NEW: Final = 0.3


class Pace:
    """Measures steps and pieces; *most* is the largest piece in tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step_s: float | None = None
        #: Seconds that pieces of so many tokens took, by powers of two.
        self._took: dict[int, float] = {}

    def stepped(self, seconds: float) -> None:
        """Note how long a step took."""
        self._step_s = _mixed(self._step_s, seconds)

    def computed(self, tokens: int, seconds: float) -> None:
        """Note how long a piece of so many *tokens* took."""
        if tokens >= _LEAST:
            size = 1 << (tokens.bit_length() - 1)
            # By proportion, so that 500 tokens tell about 256.
            self._took[size] = _mixed(self._took.get(size), seconds * size / tokens)

    def piece(self, *, others: bool) -> int:
        """Return the tokens of the next piece; *others* says whether anybody is being answered meanwhile."""
        if not self._took:
            return min(_FIRST, self._most)
        allowed = _ALONE_S
        if others and self._step_s is not None:
            allowed = max(_STEPS * self._step_s, 2 * self._expected(_LEAST))
        size = 1 << (self._most.bit_length() - 1)
        while size > _LEAST and self._expected(size) > allowed:
            size //= 2
        return min(size, self._most)

    def _expected(self, size: int) -> float:
        """Return how long a piece of *size* will take.

        It takes no longer than a larger one took, and no longer than smaller ones one after the other: so one slow
        measurement (kernels are built when a size is first used) does not rule a size out for good. What was never
        tried is hoped to take its proportion of the next larger one.
        """
        larger = {one: took for one, took in self._took.items() if one > size}
        smaller = {one: took for one, took in self._took.items() if one < size}
        known = [self._took[size]] if size in self._took else []
        if larger and not known:
            known.append(larger[min(larger)] * size / min(larger))
        return min([*known, *larger.values(), *(took * size / one for one, took in smaller.items())])


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new
