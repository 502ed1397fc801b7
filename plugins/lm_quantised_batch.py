"""The key-value cache in few bits of many rows: what mlx-lm's ``BatchKVCache`` is to its ``KVCache``.

Keys and values are each a triple of arrays (numbers, scales, biases) of the shape (rows, heads, tokens, ...), padded on
the left to the longest row. mlx-lm's attention takes the cache for a quantised one because it has ``bits``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

#: Tokens by which the arrays grow, as in mlx-lm.
_STEP: Final = 256

Triple = tuple[Any, Any, Any]


class BatchQuantizedKVCache:
    """A layer's cache; its methods are those of mlx-lm's ``BatchKVCache``."""

    def __init__(self, left_padding: Sequence[int], *, group_size: int, bits: int) -> None:
        import mlx.core as mx

        self.group_size = group_size
        self.bits = bits
        self.keys: Triple | None = None
        self.values: Triple | None = None
        self.left_padding: Any = mx.array(list(left_padding))
        self.offset: Any = -self.left_padding
        #: Whether any row is shorter than another; if none is, one token a row needs no mask.
        self.padded = True
        self.end = 0

    @classmethod
    def merge(cls, caches: Sequence[Any]) -> BatchQuantizedKVCache:
        """Return the rows of single *caches*, of which each holds at least one token."""
        longest = max(cache.offset for cache in caches)
        padding = [longest - cache.offset for cache in caches]
        made = cls(padding, group_size=caches[0].group_size, bits=caches[0].bits)
        pieces = [cache.keys_and_values() for cache in caches]
        made.keys = _joined([_moved(keys, pad) for (keys, _), pad in zip(pieces, padding, strict=True)])
        made.values = _joined([_moved(values, pad) for (_, values), pad in zip(pieces, padding, strict=True)])
        made.offset = made.offset + longest
        made.end = longest
        return made

    @property
    def state(self) -> Any:
        """Return what has to be computed for the cache to be there."""
        return self.keys, self.values, self.offset, self.left_padding

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return sum(one.nbytes for one in (*(self.keys or ()), *(self.values or ())))

    def size(self) -> int:
        """Return the tokens of the longest row."""
        return self.end

    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.keys is None

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Triple, Triple]:
        """Take the next tokens of each row in, and return everything."""
        import mlx.core as mx

        begin, self.end = self.end, self.end + keys.shape[2]
        self.offset = self.offset + keys.shape[2]
        quantise = partial(mx.quantize, group_size=self.group_size, bits=self.bits)
        self.keys = self._written(self.keys, quantise(keys), begin)
        self.values = self._written(self.values, quantise(values), begin)
        return _cut(self.keys, 0, self.end), _cut(self.values, 0, self.end)

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:  # noqa: FBT002, N803 - mlx-lm's signature
        """Return the mask for *N* more tokens a row; None where none is needed."""
        from mlx_lm.models.base import create_causal_mask

        if N == 1 and not (self.padded or return_array or kwargs.get("window_size") is not None):
            return None
        return create_causal_mask(N, offset=self.end, left_padding=self.left_padding, **kwargs)

    def filter(self, keep: Sequence[int]) -> None:
        """Keep only the rows *keep*, and no more padding than they need."""
        rows = list(keep)
        self.offset, self.left_padding = self.offset[rows], self.left_padding[rows]
        spare = min(self.left_padding.tolist())
        self.left_padding = self.left_padding - spare
        pick: Callable[[Any], Any] = lambda one: one[rows][..., spare:, :]  # noqa: E731
        self.keys, self.values = _each(pick, self.keys), _each(pick, self.values)
        self.end -= spare

    def extend(self, other: BatchQuantizedKVCache) -> None:
        """Put the rows of *other* behind these."""
        import mlx.core as mx

        end = max(self.end, other.end)
        parts = [(one, end - one.end) for one in (self, other)]
        self.keys = _joined([_moved(_cut(one.keys, 0, one.end), by) for one, by in parts])
        self.values = _joined([_moved(_cut(one.values, 0, one.end), by) for one, by in parts])
        self.offset = mx.concatenate([one.offset for one, _ in parts])
        self.left_padding = mx.concatenate([one.left_padding + by for one, by in parts])
        self.end = end

    def extract(self, row: int) -> Any:
        """Return one row as mlx-lm's cache for one sequence."""
        import mlx.core as mx
        from mlx_lm.models.cache import QuantizedKVCache

        begin = self.left_padding.tolist()[row]
        single: Any = QuantizedKVCache(group_size=self.group_size, bits=self.bits)
        own: Callable[[Any], Any] = lambda one: mx.contiguous(one[row : row + 1, :, begin : self.end])  # noqa: E731
        single.keys, single.values = _each(own, self.keys), _each(own, self.values)
        single.offset = self.end - begin
        return single

    def _written(self, into: Triple | None, new: Triple, begin: int) -> Triple:
        """Return *into* with the tokens *new* from *begin* on, longer if there was no room."""
        import mlx.core as mx

        if into is None or self.end > into[0].shape[2]:
            room = -(-(self.end - begin) // _STEP) * _STEP
            more = _each(lambda one: mx.zeros((*one.shape[:2], room, one.shape[3]), one.dtype), new)
            into = more if into is None else _joined_along([_cut(into, 0, begin), more])
        for old, one in zip(into, new, strict=True):
            old[:, :, begin : self.end] = one
        return into


def _each(function: Callable[[Any], Any], triple: Triple | None) -> Triple:
    one, two, three = map(function, triple or ())
    return one, two, three


def _cut(triple: Triple | None, begin: int, end: int) -> Triple:
    return _each(operator.itemgetter((Ellipsis, slice(begin, end), slice(None))), triple)


def _moved(triple: Triple, by: int) -> Triple:
    """Return *triple* with *by* empty tokens before it."""
    import mlx.core as mx

    return _each(lambda one: mx.pad(one, [(0, 0), (0, 0), (by, 0), (0, 0)]), triple) if by else triple


def _joined(triples: Sequence[Triple]) -> Triple:
    import mlx.core as mx

    one, two, three = (mx.concatenate(list(parts)) for parts in zip(*triples, strict=True))
    return one, two, three


def _joined_along(triples: Sequence[Triple]) -> Triple:
    import mlx.core as mx

    one, two, three = (mx.concatenate(list(parts), axis=2) for parts in zip(*triples, strict=True))
    return one, two, three
