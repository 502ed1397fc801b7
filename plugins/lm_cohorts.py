"""Rows of very different lengths, decoded apart: nobody is padded to a length that is many times his own.

The caches of rows that are decoded together are padded to the longest (`plugins.lm_caches`), so each step reads that
length once for every row. A document of 8,000 tokens came to eight answers of 200: on two cores the step in which it
joined took 2.1 s, and each one after it 0.18 s where it had been 0.02 (float32, 30 million weights). Decoded apart, in
a *cohort* of its own, it costs one more pass, in which the weights are read once more: 0.5 and 0.06 s.

So a row joins the cohort that it makes dearer by the least, if that is less than a pass, and otherwise gets one of its
own. What is compared are the numbers that a step reads: decoding waits for memory, on a CPU as on a GPU. Cohorts that
would gain by it become one again when rows have left, if it is half a pass: so nobody is moved to and fro. A beginning
that rows share (`plugins.lm_shared`) counts once, so that a stranger does not join them for little.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

from plugins import lm_caches
from plugins.lm_caches import Cache
from plugins.lm_rows import Drawn, Row, Rows
from plugins.mlx_process import on_cpu

#: Bytes that could be read while a pass is started, about: on a GPU some hundred kernels are launched for it.
_START: Final = {True: 32 << 20, False: 1 << 30}
#: Share of a pass that has to be gained by putting two cohorts together.
_WORTH_MOVING: Final = 0.5


def pass_tokens(weights: int, token_bytes: int) -> int:
    """Return what one more pass costs, in tokens of caches that could be read meanwhile.

    *weights* in bytes as loaded; *token_bytes* of the caches of one token. Without these nothing is ever worth a pass.
    """
    return (weights + _START[on_cpu()]) // token_bytes if weights and token_bytes else 1 << 60


class Shape(NamedTuple):
    """What rows that are decoded together look like."""

    rows: int = 0
    #: Tokens of the longest.
    longest: int = 0
    #: What they begin with (`plugins.lm_shared.Source`), and how many tokens of it.
    source: Any = None
    shared: int = 0

    @property
    def tokens(self) -> int:
        """Return the tokens that a step reads for them."""
        return self.shared + self.rows * (self.longest - self.shared)

    def with_(self, other: Shape) -> Shape:
        """Return what both are together."""
        if not self.rows or not other.rows:
            return self if self.rows else other
        same = self.source is not None and self.source is other.source
        return Shape(
            rows=self.rows + other.rows,
            longest=max(self.longest, other.longest),
            source=self.source if same else None,
            shared=min(self.shared, other.shared) if same else 0,
        )

    def dearer(self, other: Shape) -> int:
        """Return the tokens that a step reads more for both together than for each apart; the pass is not in it."""
        return self.with_(other).tokens - self.tokens - other.tokens


class Cohorts:
    """Decodes rows in cohorts that *make* makes; its methods are those of `plugins.lm_rows.Rows`.

    *one_pass* is what one more pass costs, tokens (`pass_tokens`).
    """

    def __init__(self, make: Callable[[], Rows], *, one_pass: int) -> None:
        self._make = make
        self._one_pass = one_pass
        #: At least one, which may be empty.
        self.cohorts = [make()]

    def __len__(self) -> int:
        return sum(map(len, self.cohorts))

    @property
    def rows(self) -> list[Row]:
        """Return the rows that are being decoded."""
        return [row for cohort in self.cohorts for row in cohort.rows]

    @property
    def held(self) -> int:
        """Return the tokens that the caches hold."""
        return sum(cohort.held for cohort in self.cohorts)

    def join(self, rows: Sequence[Row], caches: Sequence[Cache], inputs: Sequence[int]) -> None:
        """Take *rows* in with their single *caches*; *inputs* are the tokens that they are fed next."""
        shapes = [_shape(cohort) for cohort in self.cohorts]
        chosen: list[list[int]] = [[] for _ in shapes]
        for at in sorted(range(len(rows)), key=lambda at: len(rows[at].cached)):
            own = _single(rows[at], caches[at])
            place = self._place(own, shapes) if lm_caches.plain(caches[at]) else 0
            if place == len(shapes):
                shapes.append(Shape())
                chosen.append([])
                self.cohorts.append(self._make())
            shapes[place] = shapes[place].with_(own)
            chosen[place].append(at)
        for cohort, places in zip(self.cohorts, map(sorted, chosen), strict=True):
            if places:
                cohort.join([rows[at] for at in places], [caches[at] for at in places], [inputs[at] for at in places])

    def leave(self, gone: Collection[Row]) -> None:
        """Take rows out; those that are not here are ignored."""
        for cohort in self.cohorts:
            cohort.leave(gone)
        self.cohorts = [cohort for cohort in self.cohorts if len(cohort)] or self.cohorts[:1]
        while pair := self._better_together():
            small, large = sorted(pair, key=len)
            small.move(small.rows, large)
            self.cohorts.remove(small)

    def cache_of(self, row: Row) -> Cache:
        """Return a single cache with the tokens of `Row.cached`."""
        return self._with(row).cache_of(row)

    def broken(self, row: Row) -> bool:
        """Whether the token that the last step returned for *row* was drawn from what is no number."""
        return self._with(row).broken(row)

    def step(self) -> list[Drawn]:
        """Draw a token for each row."""
        return [drawn for cohort in self.cohorts if len(cohort) for drawn in cohort.step()]

    def _place(self, own: Shape, shapes: Sequence[Shape]) -> int:
        """Return the number of the cohort that a row joins; one more than there are for one of its own."""
        costs = [shape.dearer(own) if shape.rows else 0 for shape in shapes]
        least = min(range(len(costs)), key=lambda at: costs[at])
        return least if costs[least] <= self._one_pass else len(shapes)

    def _better_together(self) -> tuple[Rows, Rows] | None:
        shapes = [_shape(cohort) for cohort in self.cohorts]
        for at, shape in enumerate(shapes):
            for other in range(at):
                if shape.dearer(shapes[other]) <= (1 - _WORTH_MOVING) * self._one_pass:
                    return self.cohorts[at], self.cohorts[other]
        return None

    def _with(self, row: Row) -> Rows:
        return next((cohort for cohort in self.cohorts if row in cohort.rows), self.cohorts[0])


def _shape(cohort: Rows) -> Shape:
    return Shape(len(cohort), cohort.longest, *_shared(cohort.cache))


def _single(row: Row, cache: Cache) -> Shape:
    return Shape(1, len(row.cached), *_shared(cache))


def _shared(cache: Cache) -> tuple[Any, int]:
    """Return what the rows of *cache* begin with, and how many tokens of it."""
    source = lm_caches.source(cache)
    return source, cache[0].tied if source is not None else 0
