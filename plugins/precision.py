"""In which number format a model computes: what is fast on this machine, unless the options say otherwise."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from plugins.estimate import DEQUANTISE_BELOW
from plugins.mlx_process import on_cpu

#: The values of the option ``dtype``.
DTYPES: Final = ("auto", "keep", "float32", "float16", "bfloat16")


def settle(model: Any, dtype: str, *, dequantise: Callable[[Any], Any]) -> Any:
    """Cast *model* as the option *dtype* says, load its weights into memory, and return it.

    ``auto`` keeps the model as it is on a GPU. On a CPU everything becomes float32, which alone has a fast matrix
    product there (measured: 60 to 80 GFLOPS against 3 to 5 for half precision and 2 for 4 bits); quantised models only
    if that makes them no larger than `DEQUANTISE_BELOW`.

    Raises:
        ValueError: *dtype* is none of `DTYPES`.

    """
    import mlx.core as mx

    if dtype not in DTYPES:
        raise ValueError(f"The option dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.")
    if dtype == "auto" and on_cpu():
        if 0 < _unpacked_bytes(model) <= DEQUANTISE_BELOW:
            model = dequantise(model)
        model.set_dtype(mx.float32)
    elif dtype not in ("auto", "keep"):
        model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return model


def dequantised(model: Any) -> Any:
    """Replace the quantised linear and embedding layers of *model* by plain ones."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    nn: Any = importlib.import_module("mlx.nn")  # its names come from submodules that mypy cannot follow
    plain = []
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue
        weight = mx.dequantize(
            layer.weight,
            layer.scales,
            layer.get("biases"),
            layer.group_size,
            layer.bits,
            getattr(layer, "mode", "affine"),
        )
        rows, columns = weight.shape
        if isinstance(layer, nn.QuantizedLinear):
            new = nn.Linear(columns, rows, bias="bias" in layer)
            if "bias" in layer:
                new.bias = layer.bias
        else:
            new = nn.Embedding(rows, columns)
        new.weight = weight
        plain.append((name, new))
    if plain:
        model.update_modules(tree_unflatten(plain))
    return model


def _unpacked_bytes(model: Any) -> int:
    """Return the float32 bytes of *model*'s quantised layers; 0 if it has none."""
    return sum(
        layer.weight.size * 32 // layer.bits * 4
        for _, layer in model.named_modules()
        if hasattr(layer, "bits") and hasattr(layer, "scales")
    )
