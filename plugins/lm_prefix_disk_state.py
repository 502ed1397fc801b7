"""A cache as arrays and plain values, and back: what mlx-lm's `save_prompt_cache` does, but not all of it at once.

That one names the classes in the file and makes whatever it finds there, writes the unused end of the last block too,
and holds up everybody until all of it is written. Here the classes come from the model's own fresh cache, and arrays
are given and taken one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from plugins.lm_caches import Cache
from plugins.lm_prefix_disk_file import Spec

#: mlx-lm's caches whose `state` is all they are.
KNOWN: Final = frozenset({"KVCache", "RotatingKVCache", "QuantizedKVCache", "ArraysCache", "CacheList"})
#: Bytes that are handed over at once.
PIECE: Final = 8 << 20

_DTYPES: Final[Mapping[str, str]] = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES: Final = {short: name for name, short in _DTYPES.items()}


def taken_apart(cache: Cache) -> tuple[list[Any], list[Any]] | None:
    """Return the layers of *cache*, as JSON has them, and its arrays; None if it has parts that are not known here."""
    arrays: list[Any] = []
    layers = []
    for layer in cache:
        name = kind(layer)
        if name is None:
            return None
        layers.append([name, _described(_state(layer), arrays)])
    if any(_dtype(array) not in _DTYPES for array in arrays):
        return None
    return layers, arrays


def spec(array: Any) -> Spec:
    """Return how *array* is written."""
    return Spec(_DTYPES[_dtype(array)], tuple(array.shape))


def pieces(array: Any) -> Iterator[Any]:
    """Yield the content of *array* in its order, as arrays of bytes still to be computed, of about `PIECE` bytes."""
    import mlx.core as mx

    if array.nbytes <= PIECE or array.ndim < 3 or array.shape[0] != 1:  # noqa: PLR2004 - batch, heads, tokens
        yield mx.contiguous(array).reshape(-1).view(mx.uint8)
        return
    heads = array.shape[1]
    together = max(1, heads * PIECE // array.nbytes)
    for head in range(0, heads, together):
        yield mx.contiguous(array[:, head : head + together]).reshape(-1).view(mx.uint8)


def put_together(layers: Sequence[Any], arrays: Sequence[Any], *, fresh: Callable[[], Cache], tokens: int) -> Cache:
    """Return the cache of *layers*, filled with *arrays*, on the model's own *fresh* one.

    Raises:
        ValueError: it does not fit the model, or holds another number of *tokens*.

    """
    cache = fresh()
    try:
        if [name for name, _ in layers] != [kind(layer) for layer in cache]:
            raise ValueError("caches of another kind")
        for layer, (_, described) in zip(cache, layers, strict=True):
            state = _built(described, arrays)
            if not _alike(layer, state):
                raise ValueError("caches of another kind")
            layer.state = state
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no layout of a cache: {error}") from error
    offsets = {layer.offset for layer in cache if isinstance(getattr(layer, "offset", None), int)}
    if offsets - {tokens}:
        raise ValueError("caches of another length")
    return cache


def restored(data: bytearray, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return the array that was written as *data*."""
    import mlx.core as mx
    import numpy as np

    flat = mx.array(np.frombuffer(data, dtype=np.uint8))
    wanted = getattr(mx, _NAMES[dtype] if dtype != "BOOL" else "bool_")
    return (flat.astype(wanted) if dtype in {"BOOL", "U8"} else flat.view(wanted)).reshape(shape)


def kind(layer: Any) -> str | None:
    """Return the name of the kind of cache that *layer* is, or None if its state does not say everything."""
    name = getattr(type(layer), "stored_as", type(layer).__name__)
    if name == "CacheList":
        return name if all(kind(one) for one in layer.caches) else None
    return name if name in KNOWN and type(layer).__module__.startswith(("mlx_lm.", "plugins.")) else None


def _state(layer: Any) -> Any:
    """Return what *layer* holds, without room for more."""
    if kind(layer) in {"KVCache", "QuantizedKVCache"} and layer.keys is not None:
        keys, values = layer.keys_and_values()
        return (keys, values, *layer.state[2:])
    if kind(layer) == "CacheList":
        return [(_state(one), kind(one)) for one in layer.caches]
    return layer.state


def _alike(layer: Any, state: Any) -> bool:
    """Whether what *state* says of inner caches is what *layer* has."""
    if kind(layer) != "CacheList":
        return True
    named = [(name, inner) for inner, name in state]
    return [name for name, _ in named] == [kind(one) for one in layer.caches] and all(
        _alike(one, inner) for one, (_, inner) in zip(layer.caches, named, strict=True)
    )


def _described(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_described(one, arrays) for one in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    arrays.append(value)
    return {"array": len(arrays) - 1}


def _built(described: Any, arrays: Sequence[Any]) -> Any:
    if not isinstance(described, dict):
        return described
    if "array" in described:
        return arrays[described["array"]]
    if "tuple" in described:
        return tuple(_built(one, arrays) for one in described["tuple"])
    return [_built(one, arrays) for one in described["list"]]


def _dtype(array: Any) -> str:
    return str(array.dtype).removeprefix("mlx.core.").removesuffix("_")
