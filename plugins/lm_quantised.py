"""Key-value caches in few bits (mlx-lm's ``kv_bits``), also for many rows at once, which mlx-lm's own cannot.

A token is quantised by itself, in groups along the head's dimension, so that rows can be put together, padded and taken
apart again without a number changing. mlx-lm quantises a cache when a call of the model has left at least
``quantized_kv_start`` tokens in it, and computes prompts `PIECE` tokens a call. Where that happens decides what is
said, so it happens here at the same token, in however many pieces a prompt is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

from plugins import lm_caches
from plugins.lm_caches import Cache
from plugins.lm_plan import Quantised
from plugins.lm_rows import Drawn, Row, Rows

#: Tokens of a prompt that mlx-lm computes at once: its default ``prefill_step_size``.
PIECE: Final = 2048
#: The same while it decodes speculatively.
DRAFTED_PIECE: Final = 512


def turning(length: int, start: int, piece: int = PIECE) -> int | None:
    """Return after how many of a prompt's *length* computed tokens its cache is quantised; None: not before its end."""
    at = max(piece, -(-start // piece) * piece)
    if at <= length:
        return at
    return length if length >= max(start, 1) else None


def quantise(cache: Cache, how: Quantised) -> Cache:
    """Return the single *cache* quantised, as far as it can be and is not yet."""
    made: Cache = []
    for layer in cache:
        if hasattr(layer, "to_quantized"):
            # The unused end of its last block is not quantised with it: what is there may be no numbers.
            keys, values = layer.keys_and_values()
            layer.keys, layer.values = keys, values
            made.append(layer.to_quantized(group_size=how.group_size, bits=how.bits))
        else:
            made.append(layer)
    return made


def quantised(cache: Cache) -> bool:
    """Whether any layer of *cache* is in few bits."""
    from mlx_lm.models.cache import QuantizedKVCache

    return any(isinstance(layer, QuantizedKVCache) for layer in cache)


def obstacle(model: Any, how: Quantised) -> str | None:
    """Return why the caches of *model* cannot be quantised like this, None if they can. Computes one token."""
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache, RotatingKVCache

    cache = lm_caches.fresh(model)
    if any(isinstance(layer, RotatingKVCache) for layer in cache):
        return "mlx-lm cannot quantise the caches of a sliding window"
    if not any(isinstance(layer, KVCache) for layer in cache):
        return f"mlx-lm cannot quantise caches of this kind ({type(cache[0]).__name__})"
    try:
        model(mx.array([[0]]), cache=cache)
        mx.eval(model(mx.array([[0]]), cache=quantise(cache, how)))
    except ValueError as error:
        return str(error).removeprefix("[quantize] ")
    return None


class QuantisingRows:
    """Rows whose caches are quantised when they are long enough; its methods are those of `plugins.lm_rows.Rows`."""

    def __init__(self, model: Any, how: Quantised, *, slack: float = 0.0) -> None:
        self._how = how
        self._plain = Rows(model, slack=slack)
        self._quantised = Rows(model, slack=slack)

    def __len__(self) -> int:
        return len(self._plain) + len(self._quantised)

    @property
    def rows(self) -> list[Row]:
        """Return the rows that are being decoded."""
        return self._plain.rows + self._quantised.rows

    @property
    def held(self) -> int:
        """Return the tokens that the caches hold."""
        return self._plain.held + self._quantised.held

    def join(self, rows: Sequence[Row], caches: Sequence[Cache], inputs: Sequence[int]) -> None:
        """Take *rows* in with their single *caches*, quantised or not; *inputs* are the tokens they are fed next."""
        every = list(zip(rows, caches, inputs, strict=True))
        for into, wanted in ((self._plain, False), (self._quantised, True)):
            if chosen := [one for one in every if quantised(one[1]) is wanted]:
                into.join(*zip(*chosen, strict=True))

    def leave(self, gone: Collection[Row]) -> None:
        """Take rows out; those that are not here are ignored."""
        self._plain.leave(gone)
        self._quantised.leave(gone)

    def cache_of(self, row: Row) -> Cache:
        """Return a single cache with the tokens of `Row.cached`."""
        return self._with(row).cache_of(row)

    def broken(self, row: Row) -> bool:
        """Whether the token that the last step returned for *row* was drawn from what is no number."""
        return self._with(row).broken(row)

    def step(self) -> list[Drawn]:
        """Draw a token for each row."""
        due = [row for row in self._plain.rows if len(row.cached) >= max(1, self._how.start)]
        if due:
            self._plain.move(due, self._quantised, partial(quantise, how=self._how))
        return [drawn for rows in (self._plain, self._quantised) if len(rows) for drawn in rows.step()]

    def _with(self, row: Row) -> Rows:
        return self._plain if row in self._plain.rows else self._quantised
