"""Loads a language model: its weights on the thread that owns MLX, its tokenizer beside them on another.

Reading a tokenizer of 128,000 tokens takes half a second in which nothing of MLX is needed; MLX lets go of Python while
it reads weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: mlx-lm itself asks before it runs a model's own code; we never do.
_TOKENIZER: Mapping[str, Any] = {"trust_remote_code": False}


def load(model: Path, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return the network of the folder *model* with its weights in memory, its tokenizer, and its configuration.

    *dtype* as `plugins.precision.settle` takes it. Raises whatever mlx-lm raises.
    """
    from mlx_lm.utils import dequantize_model, load_model, load_tokenizer

    from plugins.precision import settle

    found: Any = load_model(model, lazy=True)
    net, config = found
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as beside:
        coming = beside.submit(load_tokenizer, model, dict(_TOKENIZER), eos_token_ids=config.get("eos_token_id"))
        net = settle(net, dtype, dequantise=dequantize_model)
        return net, coming.result(), config


def warm() -> None:
    """Import what `load` and a session need, and wake the device, so that a load has only its model to wait for."""
    import mlx.core as mx

    for name in ("mlx_lm.utils", "mlx_lm.sample_utils", "mlx_lm.models.llama", "plugins.lm_session"):
        importlib.import_module(name)
    mx.eval(mx.zeros(1) + 1)
