"""The runtime ``lm``: language models by mlx-lm, many requests at once.

Options: ``dtype`` (auto, keep, float32, float16, bfloat16), ``context`` (tokens, at most the model's own), ``batch``
(requests decoded together, 32), ``one_step_in`` (lane -> of how many steps it gets one at least: `plugins.lm_turns`),
``draft_model`` (folder of a smaller model that guesses ahead). What requests do not say is taken from the options
``num_draft_tokens``, ``adapter``, ``kv_bits``, ``kv_group_size`` and ``quantized_kv_start`` (`plugins.lm_plan`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugins.estimate import CONTEXT, estimate_lm, kept_bytes, kv_bytes_per_token, text_config
from plugins.hookspecs import hookimpl
from plugins.lm_plan import Wanted, wanted
from plugins.runtime import Estimate, Runtime, Session

if TYPE_CHECKING:
    from plugins.lm_request import Limits
    from plugins.lm_speculation import Draft


#: What the caches of all answers under way may take together, bytes, unless one context alone takes more.
CACHE_BYTES: Final = 1024**3
#: Options that change nothing in what is computed for a prompt; those of requests are told apart with each request.
_NOT_COMPUTING: Final = frozenset({"batch", "context", "one_step_in", "draft_model", *Wanted.model_fields})
#: What adapters may take where nothing is known of the caches, of which they get half otherwise.
ADAPTER_BYTES: Final = 256 * 1024**2


class LmRuntime:
    """Language models in mlx-lm's format."""

    name = "lm"
    summary = "Language models (mlx-lm): text, chat, JSON by schema; requests are batched."

    def estimate(self, model: Path, options: Mapping[str, Any]) -> Estimate:
        """Reckon from the headers and the configuration."""
        return estimate_lm(model, options)

    def warm(self) -> None:
        """Import what a load needs; a runner that waits for a model does so beforehand."""
        from plugins import lm_load

        lm_load.warm()

    def load(self, model: Path, options: Mapping[str, Any]) -> Session:
        """Load *model* and return its session."""
        from plugins import lm_load
        from plugins.lm_prefix_disk import place
        from plugins.lm_session import LmSession
        from plugins.mlx_process import on_cpu

        net, tokenizer, config = lm_load.load(model, str(options.get("dtype", "auto")))
        limits = limits_of(config, tokenizer, options)
        element = 4 if on_cpu() else 2
        tokens = cache_tokens(config, element=element)
        token_bytes = kv_bytes_per_token(text_config(config), element)
        wanted({}, options)  # a mistake in the options is told now, and not to every request
        return LmSession(
            net,
            tokenizer,
            limits=limits,
            batch=int(options.get("batch", 32)),
            cache_tokens=tokens,
            token_bytes=token_bytes,
            prefix_bytes=kept_bytes(tokens * token_bytes),
            adapter_bytes=tokens * token_bytes // 2 or ADAPTER_BYTES,
            draft=_draft(tokenizer, options, token_bytes=token_bytes, element=element),
            prefix_place=place(os.environ, model, _computing(net, options)),
            options=options,
            about=_about(config),
        )


def _draft(tokenizer: Any, options: Mapping[str, Any], *, token_bytes: int, element: int) -> Draft | None:
    from plugins.lm_draft import load_draft

    if not (folder := options.get("draft_model")):
        return None
    dtype = str(options.get("dtype", "auto"))
    return load_draft(Path(str(folder)), tokenizer, dtype=dtype, token_bytes=token_bytes, element=element)


def limits_of(config: Mapping[str, Any], tokenizer: Any, options: Mapping[str, Any]) -> Limits:
    """Return what the model can take, by its configuration and the *options*."""
    from plugins.lm_request import Limits

    text = text_config(config)
    # A model that does not say how long its context is gets the tokenizer's word for it, within reason.
    own = text.get("max_position_embeddings") or min(int(tokenizer.model_max_length or 8192), 1_000_000)
    asked = int(options.get("context") or own)
    return Limits(context=min(int(own), asked), vocabulary=int(text.get("vocab_size") or len(tokenizer)))


def cache_tokens(config: Mapping[str, Any], *, element: int) -> int:
    """Return the tokens that may be in all caches together; *element* is the bytes of one number."""
    return max(CONTEXT, CACHE_BYTES // max(1, kv_bytes_per_token(text_config(config), element)))


def _computing(net: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what caches depend on besides the model's files."""
    from importlib.metadata import version

    import mlx.core as mx
    from mlx.utils import tree_flatten

    weights: Any = tree_flatten(net.parameters())
    return {
        "options": {key: options[key] for key in options if key not in _NOT_COMPUTING},
        "dtype": sorted({str(weight.dtype) for _, weight in weights}),
        "device": str(mx.default_device()),
        "versions": [version("mlx"), version("mlx-lm")],
    }


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": str(config.get("model_type", ""))}


@hookimpl
def mlxd_register_runtimes(register: Callable[[Runtime], None]) -> None:
    """Offer the runtime."""
    register(LmRuntime())
