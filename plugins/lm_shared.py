"""Rows that begin alike hold their common beginning once, and read it once.

A batch cache of mlx-lm's holds every row's keys and values, also of what all rows have in common: of an 8B model 262 MB
for 2,000 tokens, for each row, copied when a row joins and read again for each token of each row. Here a cache that was
found among the kept prefixes remembers of which entry it is (its `Source`). Rows of one source are put together as
`BatchSharedKVCache`: the beginning stays where it is, the rows hold only what is behind it, and a query looks at both.

mlx-lm's models call one function for the attention of every kind of cache; one that has ``bits`` is handed on to the
function for quantised caches, where `install` takes those of ours out. A model whose attention goes another way would
not see the beginning, so `usable` tries it first.
"""

# ruff: noqa: SLF001 - mlx-lm's batch cache keeps its length in `_idx`, and gives it to nobody

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import mlx.core as mx
from mlx_lm.models import base
from mlx_lm.models.cache import BatchKVCache, KVCache

from plugins import lm_caches
from plugins.lm_caches import Cache

#: Tokens; sharing fewer costs more than it spares: two multiplications and a softmax instead of one fused kernel.
WORTH: Final = 128
#: A beginning is shared if no row is longer than this many times its length.
_MOST_OWN: Final = 4
#: Bytes of scores that are in memory at once, about.
_SCORES: Final = 128 << 20
#: How far the logits of the trial may differ, as a part of the largest one: bfloat16 has eight bits.
_TOLERANCE: Final = 0.05


class Source:
    """The keys and values of one layer that several caches begin with: arrays of (1, heads, tokens, head dimension)."""

    def __init__(self, keys: Any, values: Any) -> None:
        self.keys = keys
        self.values = values

    def first(self, tokens: int) -> tuple[Any, Any]:
        """Return the keys and values of the first *tokens*."""
        return self.keys[:, :, :tokens], self.values[:, :, :tokens]

    def __deepcopy__(self, _: Any) -> Source:
        return self


class TiedKVCache(KVCache):
    """mlx-lm's cache of one sequence, whose first `tied` tokens are those of `source`.

    It holds no copy of them until somebody writes to it or wants to see all of its arrays.
    """

    stored_as = "KVCache"

    def __init__(self, source: Source, tied: int, own: tuple[Any, Any] | None = None) -> None:
        """*own* are the keys and values behind the beginning, of (1, heads, tokens, head dimension)."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.tied = tied
        self.offset = tied + (own[0].shape[2] if own else 0)
        self._own = own

    @property
    def keys(self) -> Any:
        """Return the keys of all tokens, perhaps with room for more."""
        self._join()
        return self._keys

    @keys.setter
    def keys(self, keys: Any) -> None:
        self._keys = keys

    @property
    def values(self) -> Any:
        """Return the values of all tokens, perhaps with room for more."""
        self._join()
        return self._values

    @values.setter
    def values(self, values: Any) -> None:
        self._values = values

    @property
    def held(self) -> Sequence[Any]:
        """Return the arrays that are its own."""
        return (self._own or ()) if self._keys is None else (self._keys, self._values)

    @property
    def nbytes(self) -> int:
        """Return the bytes of what is its own."""
        return sum(array.nbytes for array in self.held)

    def behind(self, tokens: int) -> tuple[Any, Any] | None:
        """Return the keys and values behind the first *tokens*, or None if there are none."""
        if tokens >= self.offset:
            return None
        if self._keys is None and tokens == self.tied:
            return self._own
        return self.keys[:, :, tokens : self.offset], self.values[:, :, tokens : self.offset]

    def whole(self) -> KVCache:
        """Return a cache of mlx-lm's own kind with the same tokens; this one is used up."""
        made = KVCache()  # type: ignore[no-untyped-call]
        made.keys, made.values, made.offset = self.keys, self.values, self.offset
        return made

    def trim(self, n: int) -> int:
        """Take *n* tokens off its end."""
        self._join()
        trimmed: int = super().trim(n)  # type: ignore[no-untyped-call]
        self.tied = min(self.tied, self.offset)
        return trimmed

    def _join(self) -> None:
        """Put the beginning and the rest together."""
        if self._keys is None and self.offset:
            first = self.source.first(self.tied)
            own, self._own = self._own, None
            joined = [mx.concatenate([*pair], axis=2) for pair in zip(first, own, strict=True)] if own else first
            self._keys, self._values = joined


class BatchSharedKVCache(BatchKVCache):
    """A batch of rows that begin with the first `tied` tokens of `source`; its own arrays hold what is behind them.

    As in mlx-lm's own, rows are padded on the left to the longest. `offset` counts the beginning.
    """

    #: See `install`.
    group_size = 0

    def __init__(self, left_padding: Sequence[int], source: Source, tied: int) -> None:
        super().__init__(list(left_padding))
        self.source = source
        self.tied = tied
        self.offset = self.offset + tied
        #: Whether any row is shorter than another; if none is, one token a row needs no mask.
        self.padded = True
        #: How often it was looked at.
        self.asked = 0

    @property
    def bits(self) -> BatchSharedKVCache:
        """Stand for a quantised cache, so that its attention comes to `install`."""
        return self

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:  # noqa: FBT002, N803 - mlx-lm's signature
        """Return the mask of what the rows hold themselves, of the shape (rows or 1, 1, N, tokens), or None."""
        if N == 1 and not (self.padded or return_array):
            return None
        return super().make_mask(N, return_array=return_array, **kwargs)

    def attend(self, queries: Any, keys: Any, values: Any, scale: float, mask: Any) -> Any:
        """Return what *queries*, (rows, heads, N, dimension), see in the beginning and in their rows' own *keys*.

        The softmax goes over both at once; its scores are bounded by taking rows in turn.
        """
        self.asked += 1
        rows, heads, length, _ = queries.shape
        each = heads * length * (self.tied + keys.shape[2]) * queries.itemsize
        together = max(1, _SCORES // each)
        if together >= rows:
            return self._attend(queries * scale, keys, values, mask)
        seen = []
        for row in range(0, rows, together):
            these = slice(row, row + together)
            masked = mask[these] if mask is not None and mask.shape[0] > 1 else mask
            seen.append(self._attend(queries[these] * scale, keys[these], values[these], masked))
        return mx.concatenate(seen)

    def _attend(self, queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        rows, heads, length, width = queries.shape
        groups = keys.shape[1]
        each = heads // groups * length
        own = queries.reshape(rows, groups, each, width)
        # (groups, rows * each, ...): a beginning for each group of heads, with the queries of all rows.
        together = own.swapaxes(0, 1).reshape(groups, rows * each, width)
        first_keys, first_values = (array[0] for array in self.source.first(self.tied))
        before = together @ first_keys.swapaxes(-1, -2)
        behind = own @ keys.swapaxes(-1, -2)
        if mask is not None:
            behind = _masked(behind, mask, heads // groups, length)
        behind = behind.swapaxes(0, 1).reshape(groups, rows * each, -1)
        weights = mx.softmax(mx.concatenate([before, behind], axis=-1), axis=-1, precise=True)
        seen = weights[..., : self.tied] @ first_values
        seen = seen.reshape(groups, rows, each, -1).swapaxes(0, 1)
        last = weights[..., self.tied :].reshape(groups, rows, each, -1).swapaxes(0, 1)
        return (seen + last @ values).reshape(rows, heads, length, -1)

    def extract(self, idx: int) -> TiedKVCache:
        """Return a row as a cache of its own."""
        own = super().extract(idx) if self._idx else None  # type: ignore[no-untyped-call]
        return TiedKVCache(self.source, self.tied, (own.keys, own.values) if own and own.offset else None)

    def untied(self, tokens: int) -> BatchSharedKVCache:
        """Move the end of the beginning into the rows, but for its first *tokens*."""
        moved = self.tied - tokens
        if moved <= 0:
            return self
        first = self.source.keys[:, :, tokens : self.tied], self.source.values[:, :, tokens : self.tied]
        made = BatchSharedKVCache([0] * self.left_padding.size, self.source, tokens)
        held = (self.keys, self.values) if self.keys is not None else (None, None)
        made.keys, made.values = (_before(one, own, self, moved) for one, own in zip(first, held, strict=True))
        made.left_padding, made.offset, made._idx = self.left_padding, self.offset, self._idx + moved
        made.padded = self.padded
        return made

    def plain(self) -> BatchKVCache:
        """Return a batch of mlx-lm's own kind, in which every row holds all of its tokens."""
        whole = self.untied(0)
        made = BatchKVCache([0])
        made.keys, made.values = whole.keys, whole.values
        made.left_padding, made.offset, made._idx = whole.left_padding, whole.offset, whole._idx
        return made


def _before(first: Any, own: Any, batch: BatchSharedKVCache, moved: int) -> Any:
    """Return the rows' arrays with *first* before what each row holds, padding on the left as before."""
    rows = batch.left_padding.size
    spread = mx.broadcast_to(first, (rows, *first.shape[1:]))
    if own is None:
        return mx.contiguous(spread)
    joined = mx.concatenate([spread, own[:, :, : batch._idx]], axis=2)
    # A row's padding lies between its beginning and the rest: roll both to the right by it.
    place = mx.arange(joined.shape[2])[None] - batch.left_padding[:, None]
    at = mx.where(place < moved, mx.maximum(place, 0), place + batch.left_padding[:, None])
    return mx.take_along_axis(joined, at[:, None, :, None], axis=2)


def _masked(scores: Any, mask: Any, repeats: int, length: int) -> Any:
    """Return *scores*, (rows, groups, repeats * length, tokens), with the least number where *mask* forbids to look."""
    rows, groups, _, tokens = scores.shape
    scores = scores.reshape(rows, groups, repeats, length, tokens)
    scores = mx.where(mask[:, :, None], scores, mx.finfo(scores.dtype).min)
    return scores.reshape(rows, groups, repeats * length, tokens)


def sources(cache: Cache) -> list[Source]:
    """Return what a plain single *cache* holds as what others can begin with."""
    return [Source(*layer.keys_and_values()) for layer in cache]


def beginning(of: Sequence[Source], tokens: int) -> Cache:
    """Return a single cache with the first *tokens* of the sources *of* the layers."""
    return [TiedKVCache(source, tokens) for source in of]


def merged(layers: Sequence[Any]) -> BatchSharedKVCache | None:
    """Return single caches of one layer as a batch that shares their beginning; None if they have none in common."""
    source = getattr(layers[0], "source", None)
    if source is None or any(getattr(layer, "source", None) is not source for layer in layers):
        return None
    shared = min(layer.tied for layer in layers)
    longest = max(layer.offset for layer in layers) - shared
    if shared < max(WORTH, longest // _MOST_OWN):
        return None
    batch = BatchSharedKVCache([longest - (layer.offset - shared) for layer in layers], source, shared)
    if longest:
        batch.keys, batch.values = (_rows(layers, shared, longest, which) for which in (0, 1))
        batch.offset = batch.offset + longest
        batch._idx = longest
    return batch


def _rows(layers: Sequence[TiedKVCache], start: int, longest: int, which: int) -> Any:
    """Return the keys (0) or values (1) from the token *start* on as rows, padded on the left."""
    like = layers[0].source.first(0)[which]
    rows = [(layer.behind(start) or (like, like))[which] for layer in layers]
    padding = [[(0, 0), (0, 0), (longest - row.shape[2], 0), (0, 0)] for row in rows]
    return mx.concatenate([mx.pad(row, by) if by[2][0] else row for row, by in zip(rows, padding, strict=True)])


def extended(ours: Any, theirs: Any) -> Any:
    """Return two batches of one layer as one; they share their beginning if both did, and it is the same."""
    begun = getattr(ours, "source", None), getattr(theirs, "source", None)
    if begun[0] is not None and begun[0] is begun[1]:
        shared = min(ours.tied, theirs.tied)
        ours, theirs = ours.untied(shared), theirs.untied(shared)
    else:
        ours, theirs = (one.plain() if isinstance(one, BatchSharedKVCache) else one for one in (ours, theirs))
    ours.extend(theirs)
    return ours


_installed = threading.Lock()


def install() -> None:
    """Let the attention of shared caches come here. Does nothing the second time."""
    with _installed:
        stock = base.quantized_scaled_dot_product_attention
        if getattr(stock, "shares", False):
            return

        def attention(  # noqa: PLR0917 - mlx-lm's signature
            queries: Any, q_keys: Any, q_values: Any, scale: float, mask: Any, group_size: int = 64, bits: Any = 8
        ) -> Any:
            if isinstance(bits, BatchSharedKVCache):
                return bits.attend(queries, q_keys, q_values, scale, mask)
            return stock(queries, q_keys, q_values, scale, mask, group_size, bits)

        attention.shares = True  # type: ignore[attr-defined]
        base.quantized_scaled_dot_product_attention = attention


def usable(model: Any) -> bool:
    """Whether *model* answers the same with a shared beginning. Computes a few tokens, twice."""
    if not lm_caches.plain(lm_caches.fresh(model)):
        return False
    install()
    try:
        begun = lm_caches.fresh(model)
        model(mx.array([[1 + at % 7 for at in range(2 * WORTH)]]), cache=begun)
        ends, of = mx.array([[2, 3, 4, 5] * 4, [6, 7, 8, 9] * 4]), sources(begun)
        plain = lm_caches.merged([begun, begun])
        shared = lm_caches.merged([beginning(of, 2 * WORTH) for _ in ends])
        want, got = model(ends, cache=plain)[:, -1], model(ends, cache=shared)[:, -1]
        # Each layer's attention came here, once, and saw what it had to see.
        return all(layer.asked == 1 for layer in shared) and bool(
            (mx.max(mx.abs(want - got)) <= _TOLERANCE * mx.max(mx.abs(want))).item()
        )
    except Exception:  # noqa: BLE001 - a model of any kind: what it does not take it is spared
        return False
