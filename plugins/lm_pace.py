"""How many tokens of a prompt are computed at once: few while a person is being answered, many while nobody is.

Whoever is being answered waits for the piece between two of his tokens. But each piece has a cost that does not shrink
with it: on an H200 an 8B model took 42 ms for 128 tokens and 80 ms for 2,048 (mlx 0.32.4). So a piece takes as long as
two steps, or as three times that fixed cost if that is longer: smaller ones would only make the whole wait longer.

A token costs more the more there are before it, all of which it looks back at: on a CPU 256 tokens behind 1,500 others
took two and a half times what they take at a prompt's beginning. On a GPU that is hardly seen.

A measurement may lie: kernels that were built on the way took seconds where the piece takes milliseconds. No piece
costs many times more a token than a smaller one that lies deeper; what says so is not believed, and tried again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

#: Tokens in the smallest piece, and in the first one, when nothing is known.
LEAST: Final = 64
_FIRST: Final = 512
#: The same while somebody is being answered.
_FIRST_BESIDE: Final = 256
#: Seconds a piece may take while nobody is being answered: how long a cancellation waits.
_ALONE_S: Final = 0.25
#: Steps, and fixed costs, that a piece may take while somebody is.
_STEPS: Final = 2.0
_COSTS: Final = 3.0
#: Weight of the newest step.
_NEW: Final = 0.3
#: Measurements kept of each kind. The least of them counts: a first one may have built kernels, another been disturbed.
_KEPT: Final = 5
#: A piece that costs so many times more a token than a smaller, deeper one was measured while kernels were built.
_INCREDIBLE: Final = 4.0
#: Weight of what is assumed beside a measurement's: it decides only what was not measured.
_ASSUMED: Final = 0.05


class _Piece(NamedTuple):
    """A piece that was computed."""

    tokens: int
    #: Tokens of the prompt before it.
    behind: int
    seconds: float

    def belies(self, other: _Piece) -> bool:
        """Whether *other*, which should be cheaper a token, is many times dearer."""
        cheaper = other.tokens >= self.tokens and other.behind <= self.behind
        return cheaper and other.seconds / other.tokens > _INCREDIBLE * self.seconds / self.tokens


class _Cost(NamedTuple):
    """Seconds of a piece: *fixed*, *each* token, and of each token *back* for each one before it."""

    fixed: float
    each: float
    back: float

    def of(self, tokens: int, behind: int) -> float:
        """Return the seconds of so many *tokens* that lie *behind* so many."""
        return self.fixed + tokens * (self.each + self.back * behind)


class Pace:
    """Measures steps and pieces; *most* is the largest piece in tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step_s: float | None = None
        #: By their kinds.
        self._took: defaultdict[tuple[int, int], deque[_Piece]] = defaultdict(lambda: deque(maxlen=_KEPT))
        #: What follows of these; None if something was measured since.
        self._known: _Cost | None = None
        self._believed: Mapping[tuple[int, int], _Piece] = {}

    def stepped(self, seconds: float) -> None:
        """Note how long a step took."""
        self._step_s = seconds if self._step_s is None else (1 - _NEW) * self._step_s + _NEW * seconds

    def computed(self, tokens: int, seconds: float, *, behind: int = 0) -> None:
        """Note how long a piece of so many *tokens* took that lay *behind* so many others of its prompt."""
        if tokens >= LEAST:
            self._took[_kind(tokens, behind)].append(_Piece(tokens, behind, seconds))
            self._known = None

    def piece(self, *, others: bool, behind: int = 0) -> int:
        """Return the tokens of the next piece; *others* says whether anybody is being answered meanwhile.

        It lies *behind* so many tokens of its prompt.
        """
        if not self._took:
            return min(_FIRST_BESIDE if others else _FIRST, self._most)
        allowed = _ALONE_S
        if others and self._step_s is not None:
            # What is dear for another reason, and passes for fixed, must not hold anybody up for long.
            allowed = max(_STEPS * self._step_s, min(_COSTS * self._cost().fixed, _ALONE_S))
        size = 1 << (self._most.bit_length() - 1)
        while size > LEAST and self._expected(size, behind) > allowed:
            size //= 2
        return min(size, self._most)

    def seconds(self, tokens: int) -> float | None:
        """Return how long computing a prompt of so many *tokens* alone will take; None while nothing is known."""
        if not self._took:
            return None
        cost, middle = self._cost(), tokens // 2
        pieces = -(-tokens // self.piece(others=False, behind=middle))
        return cost.fixed * (pieces - 1) + cost.of(tokens, middle)

    def _expected(self, tokens: int, behind: int) -> float:
        """Return the seconds of a piece, not less than those of the same kind took."""
        cost = self._cost().of(tokens, behind)
        alike = self._believed.get(_kind(tokens, behind))
        return cost if alike is None else max(cost, alike.seconds * tokens / alike.tokens)

    def _cost(self) -> _Cost:
        if self._known is None:
            least = {kind: min(took, key=lambda one: one.seconds / one.tokens) for kind, took in self._took.items()}
            self._believed = {
                kind: one for kind, one in least.items() if not any(other.belies(one) for other in least.values())
            }
            self._known = _fitted(list(self._believed.values()))
        return self._known


def _kind(tokens: int, behind: int) -> tuple[int, int]:
    """Return what pieces have in common that are measured together: their powers of two."""
    return tokens.bit_length(), (behind // LEAST).bit_length()


def _fitted(pieces: Sequence[_Piece]) -> _Cost:
    """Return what makes the relative errors for *pieces* least, by least squares; nothing costs less than nothing.

    What they do not tell is assumed: half of the cheapest one's time is fixed, and looking back costs nothing.
    """
    import numpy as np

    cheapest = min(pieces, key=lambda one: one.seconds)
    scale = np.array([1, cheapest.tokens, cheapest.tokens**2]) / max(cheapest.seconds, 1e-9)
    told = [np.array([1, one.tokens, one.tokens * one.behind]) / max(one.seconds, 1e-9) for one in pieces]
    matrix = np.array([*told, *(_ASSUMED * np.diag(scale))])
    wanted = np.array([1.0] * len(pieces) + [_ASSUMED / 2, _ASSUMED / 2, 0.0])
    free, found = [0, 1, 2], np.zeros(3)
    while free:
        found[:] = 0
        found[free] = np.linalg.lstsq(matrix[:, free], wanted, rcond=None)[0]
        if (found >= 0).all():
            break
        free.remove(int(found.argmin()))
    return _Cost(*(float(each) for each in found))
