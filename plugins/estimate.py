"""What a model will need in memory, from its safetensors headers and its configuration. Imports no MLX.

Measured (mlx 0.32): the tensors' spans in the headers equal MLX's active memory after loading to within bytes; the KV
cache takes ``2 * layers * kv_heads * head_dim * bytes`` a token and grows with the context.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jobs.errors import ModelBroken
from plugins.lm_plan import GROUP, START, Quantised
from plugins.model_files import read_json
from plugins.runtime import Estimate
from plugins.weights import FLOATS, Tensor, read_headers

#: A runner without a model: interpreter, MLX, transformers, bytes (measured: 74 to 90 MB).
PROCESS: Final = 90 * 1024**2
#: Tokens of context that are reckoned with unless the option ``context`` says otherwise.
CONTEXT: Final = 8192
#: The most bytes of prompts' beginnings that a language model's runner keeps for later prompts.
KEPT: Final = 512 * 1024**2
#: Quantised models whose float32 form is at most this many bytes are dequantised on a CPU, where that is faster.
DEQUANTISE_BELOW: Final = 1024**3
#: Windows of Whisper that are decoded together at most, and the bytes that they may take.
BATCH: Final = 16
WINDOWS_BYTES: Final = 2 * 1024**3
#: Positions of a window's encoded sound.
AUDIO_CTX: Final = 1500
#: Bytes of a recording that is being read: two minutes of samples.
_HEARD: Final = 120 * 16_000 * 2

#: The largest number in a configuration that is believed; sums of larger ones would not even be a float.
_LARGEST: Final = 1 << 40

_PREFERRED_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


def estimate_lm(model: Path, options: Mapping[str, Any]) -> Estimate:
    """Estimate a language model for mlx-lm. Raises as `plugins.runtime.Runtime.estimate` does."""
    config = read_config(model)
    tensors = read_headers(_weights(model, "model*.safetensors", "language model"))
    weights = loaded_bytes(tensors, config, str(options.get("dtype", "auto")))
    text = text_config(config)
    context = min(int(options.get("context") or CONTEXT), _context_length(text) or CONTEXT)
    caches = int(_plain_tokens(context, options) * kv_bytes_per_token(text))
    # Activations and the allocator's slack grow with the model; a twentieth was enough in every measurement.
    alone = Estimate(weights, PROCESS + caches + kept_bytes(caches) + weights // 20)
    return _beside(alone, Path(str(draft)), options) if (draft := options.get("draft_model")) else alone


def _plain_tokens(context: int, options: Mapping[str, Any]) -> float:
    """Return the tokens of plain caches that take as much as *context* tokens do with the options' ``kv_bits``."""
    bits, start = options.get("kv_bits"), int(options.get("quantized_kv_start", START))
    if not bits or context <= start:
        return context
    how = Quantised(int(bits), int(options.get("kv_group_size") or GROUP), start)
    return start + (context - start) * how.share(4 if cpu_expected() else 2)


def _beside(model: Estimate, draft: Path, options: Mapping[str, Any]) -> Estimate:
    """Return *model* with the model in *draft* beside it: its weights and its caches, of which none are kept."""
    context = {"context": options["context"]} if options.get("context") else {}
    own = estimate_lm(draft, {**context, "dtype": options.get("dtype", "auto")})
    return Estimate(model.weights + own.weights, model.overhead + own.overhead - PROCESS)


def kept_bytes(caches: int) -> int:
    """Return the bytes of prompts' beginnings that are kept for later, beside *caches* bytes of answers under way."""
    return min(KEPT, caches // 2)


def estimate_whisper(model: Path, options: Mapping[str, Any]) -> Estimate:
    """Estimate a Whisper model for mlx-whisper. Raises as `plugins.runtime.Runtime.estimate` does."""
    config = read_config(model)
    tensors = read_headers(_weights(model, "weights.safetensors", "Whisper of mlx-whisper"))
    weights = loaded_bytes(tensors, config, str(options.get("dtype", "auto")))
    batch = whisper_batch(config, options)
    state, element = _whole(config, "n_audio_state"), _whisper_element(options)
    # The encoder's activations; without a fused attention its matrices too, but then windows come one at a time.
    encoding = AUDIO_CTX * state * element * 16
    attention = 2 * _whole(config, "n_audio_head") * AUDIO_CTX**2 * 4
    working = (
        max(batch * encoding, encoding + attention) if element < _PREFERRED_BYTES["float32"] else (encoding + attention)
    )
    return Estimate(weights, PROCESS + batch * (_window_bytes(config, element) + _HEARD) + working)


def whisper_batch(config: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Return how many windows a Whisper model decodes together at most.

    The option ``batch`` says so; otherwise `BATCH`, or fewer if their caches would take more than `WINDOWS_BYTES`.
    """
    if options.get("batch"):
        return max(1, int(options["batch"]))
    return max(1, min(BATCH, WINDOWS_BYTES // max(1, _window_bytes(config, _whisper_element(options)))))


def _window_bytes(config: Mapping[str, Any], element: int) -> int:
    """Return what one window takes while it is decoded: keys and values of sound and text, features, logits."""
    state, layers = _whole(config, "n_text_state") or _whole(config, "n_audio_state"), _whole(config, "n_text_layer")
    places = AUDIO_CTX + _whole(config, "n_text_ctx")
    return element * state * (2 * layers * places + AUDIO_CTX) + 24 * _whole(config, "n_vocab")


def _whisper_element(options: Mapping[str, Any]) -> int:
    dtype = str(options.get("dtype", "auto"))
    return _PREFERRED_BYTES.get(dtype) or (4 if cpu_expected() else 2)


def read_config(model: Path) -> dict[str, Any]:
    """Return a model folder's ``config.json``."""
    path = model / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelBroken(f"config.json in {model} cannot be read: {error}.", file=str(path)) from error
    if not isinstance(config, dict):
        raise ModelBroken(f"config.json in {model} is not a JSON object.", file=str(path))
    return config


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of *config*: multimodal models nest it."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config


def kv_bytes_per_token(config: Mapping[str, Any], element: int | None = None) -> int:
    """Return the bytes one token takes in the KV cache of all layers; 0 when *config* does not say."""
    layers, heads = _whole(config, "num_hidden_layers"), _whole(config, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads") or heads
    head = _whole(config, "head_dim") or (_whole(config, "hidden_size") // heads if heads else 0)
    return 2 * layers * kv_heads * head * (element or (4 if cpu_expected() else 2))


def loaded_bytes(tensors: Mapping[str, Tensor], config: Mapping[str, Any], dtype: str) -> int:
    """Return what *tensors* take once loaded and cast as the option *dtype* says (see `plugins.precision`)."""
    stored = sum(tensor.nbytes for tensor in tensors.values())
    if dtype == "keep" or (dtype == "auto" and not cpu_expected()):
        return stored
    element = _PREFERRED_BYTES.get(dtype, 4)
    quantised = config.get("quantization") or config.get("quantization_config")
    if isinstance(quantised, Mapping) and dtype == "auto":
        bits = quantised.get("bits")
        unpacked = _unpacked_bytes(tensors, bits if isinstance(bits, int) and bits > 0 else 4)
        if unpacked <= DEQUANTISE_BELOW:
            return unpacked
    return sum(one.elements * element if one.dtype in FLOATS else one.nbytes for one in tensors.values())


def cpu_expected() -> bool:
    """Whether MLX will compute on the CPU here, told without importing it."""
    return sys.platform != "darwin" and not _has_cuda()


@functools.cache
def _has_cuda() -> bool:
    names = {dist.name.lower().replace("_", "-") for dist in importlib.metadata.distributions() if dist.name}
    return bool(names & {"mlx-cuda", "mlx-cuda-12", "mlx-cuda-13"}) and Path("/dev/nvidiactl").exists()


def _unpacked_bytes(tensors: Mapping[str, Tensor], bits: int) -> int:
    """Return the float32 size of quantised *tensors*: packed words unpacked, scales and biases gone."""
    total = 0
    for name, tensor in tensors.items():
        if tensor.dtype == "U32":
            total += tensor.elements * 32 // bits * 4
        elif not name.endswith((".scales", ".biases")):
            total += tensor.elements * 4
    return total


def _weights(model: Path, pattern: str, kind: str) -> list[Path]:
    if found := sorted(model.glob(pattern)):
        return found
    raise ModelBroken(f"{model} is no {kind}: it has no {pattern}.", file=str(model / pattern))


def _context_length(config: Mapping[str, Any]) -> int:
    return _whole(config, "max_position_embeddings")


def _whole(config: Mapping[str, Any], key: str) -> int:
    """Return a whole number of *config*, 0 when it is missing, is none, or is beyond anything that exists."""
    found = config.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= _LARGEST else 0
