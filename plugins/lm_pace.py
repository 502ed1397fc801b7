"""How many tokens of a prompt are computed at once: few while a person is being answered, many while nobody is.

Whoever is being answered waits for the piece between two of his tokens. But each piece has a cost that does not shrink
with it: on an H200 an 8B model took 42 ms for 128 tokens and 80 ms for 2,048 (mlx 0.32.4). So a piece takes as long as
two steps, or as three times that fixed cost if that is longer: smaller ones would only make the whole wait longer.

A measurement may lie: kernels that were built on the way took seconds where the piece takes milliseconds. No size costs
many times more a token than a smaller one does, so what says that is not believed, and the size is tried again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

#: Tokens in the smallest piece, and in the first one, when nothing is known.
LEAST: Final = 64
_FIRST: Final = 512
#: Seconds a piece may take while nobody is being answered: how long a cancellation waits.
_ALONE_S: Final = 0.25
#: Steps, and fixed costs, that a piece may take while somebody is.
_STEPS: Final = 2.0
_COSTS: Final = 3.0
#: Weight of the newest step.
_NEW: Final = 0.3
#: Measurements kept of each size. The least of them counts: a first one may have built kernels, another been disturbed.
_KEPT: Final = 5
#: A size that costs so many times more a token than a smaller one was measured while kernels were built.
_INCREDIBLE: Final = 4.0


class Pace:
    """Measures steps and pieces; *most* is the largest piece in tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step_s: float | None = None
        #: Tokens -> seconds that pieces took, by powers of two.
        self._took: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def stepped(self, seconds: float) -> None:
        """Note how long a step took."""
        self._step_s = seconds if self._step_s is None else (1 - _NEW) * self._step_s + _NEW * seconds

    def computed(self, tokens: int, seconds: float) -> None:
        """Note how long a piece of so many *tokens* took."""
        if tokens >= LEAST:
            size = 1 << (tokens.bit_length() - 1)
            # By proportion, so that 500 tokens tell about 256.
            self._took[size].append(seconds * size / tokens)

    def piece(self, *, others: bool) -> int:
        """Return the tokens of the next piece; *others* says whether anybody is being answered meanwhile."""
        if not self._took:
            return min(_FIRST, self._most)
        fixed, each = self._line()
        allowed = _ALONE_S
        if others and self._step_s is not None:
            allowed = max(_STEPS * self._step_s, _COSTS * fixed)
        size = 1 << (self._most.bit_length() - 1)
        while size > LEAST and fixed + size * each > allowed:
            size //= 2
        return min(size, self._most)

    def seconds(self, tokens: int) -> float | None:
        """Return how long computing so many *tokens* alone will take; None while nothing is known."""
        if not self._took:
            return None
        fixed, each = self._line()
        return fixed * -(-tokens // self.piece(others=False)) + each * tokens

    def _line(self) -> tuple[float, float]:
        """Return what each piece costs, in seconds, and what each token adds: a straight line through the sizes."""
        points: list[tuple[int, float]] = []
        for size, seconds in sorted((size, min(took)) for size, took in self._took.items()):
            if all(seconds / size <= _INCREDIBLE * other / smaller for smaller, other in points):
                points.append((size, seconds))
        if len(points) == 1:
            # Half and half, until another size was tried.
            ((size, seconds),) = points
            return seconds / 2, seconds / 2 / size
        sizes = sum(size for size, _ in points) / len(points)
        times = sum(seconds for _, seconds in points) / len(points)
        spread = sum((size - sizes) ** 2 for size, _ in points)
        each = max(0.0, sum((size - sizes) * (seconds - times) for size, seconds in points) / spread)
        return max(0.0, times - each * sizes), each
