"""The key-value caches of sequences: made, batched, split, copied. A cache here is a list, one entry for each layer.

They are mlx-lm's own. A *single* one serves one sequence; single ones are merged into a *batch*, whose rows are padded
on the left to the longest. Padding needs a mask, and the mask costs: on an H200 an 8B model in bf16 decoded 17 % slower
with it at one row and 21 % at 64 (mlx 0.32.4). So a batch whose rows are equally long goes without.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from plugins.lm_quantised_batch import BatchQuantizedKVCache

Cache = list[Any]


def fresh(model: Any) -> Cache:
    """Return an empty single cache for *model*."""
    from mlx_lm.models.cache import make_prompt_cache

    made: Cache = make_prompt_cache(model)
    return made


def batchable(model: Any) -> str | None:
    """Return None if sequences of *model* can be batched, otherwise the kind of cache that cannot."""
    return next((type(layer).__name__ for layer in fresh(model) if not hasattr(layer, "merge")), None)


def trimmable(cache: Cache) -> bool:
    """Whether tokens can be taken off the end of *cache*."""
    from mlx_lm.models.cache import can_trim_prompt_cache

    return bool(can_trim_prompt_cache(cache))


def plain(cache: Cache) -> bool:
    """Whether *cache* keeps every token and nothing else: then what was written too much can be taken off again."""
    from mlx_lm.models.cache import KVCache

    return all(isinstance(layer, KVCache) for layer in cache)


def trim(cache: Cache, tokens: int) -> None:
    """Take *tokens* off the end of *cache*."""
    from mlx_lm.models.cache import trim_prompt_cache

    trim_prompt_cache(cache, tokens)


def merged(caches: Sequence[Cache]) -> Cache:
    """Return one batch of single *caches*, in their order."""
    return [_merged(layers) for layers in zip(*caches, strict=True)]


def _merged(layers: Sequence[Any]) -> Any:
    if hasattr(layers[0], "bits"):
        return BatchQuantizedKVCache.merge(layers)
    from plugins import lm_shared

    if (shared := lm_shared.merged(layers)) is not None:
        return shared
    return _unmasked(layers[0].merge(list(layers)))


def extended(batch: Cache, other: Cache) -> Cache:
    """Return *batch* with the rows of the batch *other* behind its own; both are used up."""
    from plugins import lm_shared

    return [_unmasked(lm_shared.extended(ours, theirs)) for ours, theirs in zip(batch, other, strict=True)]


def filtered(batch: Cache, keep: Sequence[int]) -> Cache:
    """Return *batch* with only the rows *keep*, at least one; it is used up."""
    for layer in batch:
        layer.filter(list(keep))
    return batch


def extracted(batch: Cache, row: int) -> Cache:
    """Return a single cache with the content of one row."""
    return [layer.extract(row) for layer in batch]


def copied(cache: Cache) -> Cache:
    """Return a copy that grows on its own; what is in it already is shared until one of them is written to."""
    return copy.deepcopy(cache)


def evaluate(cache: Cache) -> None:
    """Compute what is still to be computed."""
    import mlx.core as mx

    mx.eval([held(layer) for layer in cache])


def whole(cache: Cache) -> Cache:
    """Return *cache*, which is used up, as one that refers to nothing of anybody else's."""
    if source(cache) is None:
        return cache
    made = [layer.whole() for layer in cache]
    evaluate(made)
    return made


def source(cache: Cache | None) -> Any:
    """Return what tells those apart that do not share their beginning; None for who shares with nobody."""
    return getattr(cache[0], "source", None) if cache else None


def held(layer: Any) -> Any:
    """Return the arrays of one layer, but not what it only refers to."""
    return layer.held if hasattr(layer, "held") else layer.state


def size(cache: Cache) -> int:
    """Return the bytes of *cache*."""
    return sum(int(layer.nbytes) for layer in cache)


def set_padded(batch: Cache, *, padded: bool) -> None:
    """Say whether any row of *batch* is shorter than another."""
    for layer in batch:
        if hasattr(layer, "padded"):
            layer.padded = padded


def _unmasked(layer: Any) -> Any:
    """Let a plain batch cache go without a mask where it can; other kinds have masks for more than padding."""
    from mlx_lm.models.cache import BatchKVCache

    if type(layer) is BatchKVCache:
        layer.__class__ = _lean_class()
    return layer


def _lean_class() -> type:
    global _LEAN  # noqa: PLW0603 - made at the first use, because importing mlx-lm takes a second
    if _LEAN is None:
        from mlx_lm.models.cache import BatchKVCache

        class LeanBatchKVCache(BatchKVCache):
            """A batch cache that knows whether any of its rows is padded."""

            padded = True

            def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:  # noqa: FBT002, N803 - mlx-lm's signature
                """Return no mask for one token a row when every row is whole."""
                windowed = kwargs.get("window_size") is not None
                if N == 1 and not (self.padded or return_array or windowed):
                    return None
                return super().make_mask(N, return_array=return_array, **kwargs)

        _LEAN = LeanBatchKVCache
    return _LEAN


_LEAN: type | None = None
