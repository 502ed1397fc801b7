"""Whisper models with random weights that say the same sentence of every window: the work is real, the text is known.

Each place of the decoder's text has a token of its own written into the positional embedding, so large beside what the
layers add that greedy decoding says it whatever it hears: a first timestamp, as many words as are asked for, a last
timestamp, the end. So both sides decode the same number of tokens, no window is doubtful, and none creeps.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"state": 384, "heads": 6, "encoder": 4, "decoder": 4, "mels": 80, "vocabulary": 51865},
    "small": {"state": 768, "heads": 12, "encoder": 12, "decoder": 12, "mels": 80, "vocabulary": 51865},
    "turbo": {"state": 1280, "heads": 20, "encoder": 32, "decoder": 4, "mels": 128, "vocabulary": 51866},
    "large": {"state": 1280, "heads": 20, "encoder": 32, "decoder": 32, "mels": 128, "vocabulary": 51866},
}
#: Places of the text.
CONTEXT = 448
#: How much louder a place's token is than anything else.
_LOUD = 4.0
#: The second at which the last timestamp lies; files are a little longer.
LAST_S = 29.0


def save_whisper(folder: Path, size: str, *, words: int) -> Path:
    """Write a model of *size* that says so many *words* of each window, in float16; return its folder."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_whisper.whisper import ModelDimensions, Whisper

    dims = dimensions(size)
    mx.random.seed(0)
    model = Whisper(ModelDimensions(**dims), mx.float16)
    drawn = tree_map(lambda old: mx.random.normal(old.shape) * 0.02 if old.ndim > 1 else old, model.parameters())
    model.update(drawn)
    state = dims["n_text_state"]
    model.decoder.token_embedding.weight = mx.random.normal((dims["n_vocab"], state))
    said = mx.array(sentence(dims["n_vocab"], words))
    model.decoder.positional_embedding = _LOUD * model.decoder.token_embedding.weight[said]
    model.set_dtype(mx.float16)
    weights: dict[str, Any] = dict(tree_flatten(model.parameters()))
    kept = {name: one for name, one in weights.items() if name != "alignment_heads" and "._" not in name}
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "weights.safetensors"), kept)
    (folder / "config.json").write_text(json.dumps({**dims, "model_type": "whisper"}))
    return folder


def dimensions(size: str) -> dict[str, int]:
    """Return what mlx_whisper calls a model's dimensions."""
    shape = SIZES[size]
    return {
        "n_mels": shape["mels"],
        "n_audio_ctx": 1500,
        "n_audio_state": shape["state"],
        "n_audio_head": shape["heads"],
        "n_audio_layer": shape["encoder"],
        "n_vocab": shape["vocabulary"],
        "n_text_ctx": CONTEXT,
        "n_text_state": shape["state"],
        "n_text_head": shape["heads"],
        "n_text_layer": shape["decoder"],
    }


def sentence(vocabulary: int, words: int) -> list[int]:
    """Return for each place the token that follows: three places steer the model, then it speaks."""
    from mlx_whisper.tokenizer import get_tokenizer

    tokenizer = get_tokenizer(multilingual=True, num_languages=vocabulary - 51765 - 1, language="en", task="transcribe")
    chance = random.Random(0)
    never = set(tokenizer.non_speech_tokens)
    plain = [token for token in range(300, 20_000) if token not in never]
    start = len(tokenizer.sot_sequence) - 1
    first, last = tokenizer.timestamp_begin, tokenizer.timestamp_begin + round(LAST_S / 0.02)
    said = [first, *chance.sample(plain, words), last, tokenizer.eot]
    return [first] * start + said + [tokenizer.eot] * (CONTEXT - start - len(said))
