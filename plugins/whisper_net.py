"""The forward passes of a Whisper model for several windows at once, each at a place of its own in its text.

mlx_whisper's own decoder has one position for all rows, computes the vocabulary's logits for every token of a prompt
and spells attention out. Here rows are padded on the left, only the logits that are looked at are computed, and
attention is MLX's fused one: on a GPU the encoder's matrices of 1500 x 1500 for each head are never written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

#: Positions of a window's encoded sound.
AUDIO: Final = 1500


class Layer(NamedTuple):
    """What one decoder layer remembers: keys and values, (rows, heads, places, width of a head)."""

    #: Of the text so far.
    keys: Any
    values: Any
    #: Of the sound.
    sound_keys: Any
    sound_values: Any


def encode(model: Any, mels: Any) -> Any:
    """Return the features (windows, 1500, state) of *mels* (windows, 3000, mels)."""
    encoder = model.encoder
    nn = _nn()
    hidden = nn.gelu(encoder.conv1(mels))
    hidden = nn.gelu(encoder.conv2(hidden)) + encoder._positional_embedding  # noqa: SLF001 - it has no other name
    for block in encoder.blocks:
        normed = block.attn_ln(hidden)
        queries, keys, values = _project(block.attn, normed, normed)
        hidden = _beyond(block, hidden + _attend(block.attn, queries, keys, values))
    return encoder.ln_post(hidden)


def begin(model: Any, tokens: Any, features: Any) -> tuple[Any, list[Layer]]:
    """Feed the prompts *tokens* (rows, length) of windows with *features*; return what came out, and the caches.

    What came out is (rows, length, state), before the vocabulary: see `logits`.
    """
    decoder = model.decoder
    hidden = decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]
    layers = []
    for block in decoder.blocks:
        normed = block.attn_ln(hidden)
        queries, keys, values = _project(block.attn, normed, normed)
        mask = "causal" if tokens.shape[1] > 1 else None
        hidden = hidden + _attend(block.attn, queries, keys, values, mask)
        cross = block.cross_attn
        sound_keys, sound_values = _heads(cross, cross.key(features)), _heads(cross, cross.value(features))
        layers.append(Layer(keys, values, sound_keys, sound_values))
        hidden = _across(block, hidden, layers[-1])
    return decoder.ln(hidden), layers


def go_on(model: Any, tokens: Any, layers: Sequence[Layer], positions: Any, mask: Any) -> tuple[Any, list[Layer]]:
    """Feed one token a row, *tokens* (rows,) at *positions* (rows,); return (rows, 1, state) and the longer caches.

    *mask* (rows, 1, 1, places + 1) is added to the attention on the text: minus infinity where a row has padding; None
    if no row has any.
    """
    import mlx.core as mx

    decoder = model.decoder
    hidden = (decoder.token_embedding(tokens) + decoder.positional_embedding[positions])[:, None]
    longer = []
    for block, layer in zip(decoder.blocks, layers, strict=True):
        normed = block.attn_ln(hidden)
        queries, keys, values = _project(block.attn, normed, normed)
        keys = mx.concatenate([layer.keys, keys], axis=2)
        values = mx.concatenate([layer.values, values], axis=2)
        hidden = hidden + _attend(block.attn, queries, keys, values, mask)
        longer.append(layer._replace(keys=keys, values=values))
        hidden = _across(block, hidden, longer[-1])
    return decoder.ln(hidden), longer


def logits(model: Any, hidden: Any) -> Any:
    """Return the vocabulary's logits in float32."""
    import mlx.core as mx

    return model.decoder.token_embedding.as_linear(hidden).astype(mx.float32)


def detect(model: Any, features: Any, *, start: int, languages: Sequence[int]) -> list[int]:
    """Return for each window the likeliest of *languages* (tokens) after the token *start*."""
    import mlx.core as mx

    hidden, _ = begin(model, mx.full((len(features), 1), start, dtype=mx.int32), features)
    told = logits(model, hidden)[:, 0, mx.array(list(languages))]
    return [languages[at] for at in cast("list[int]", mx.argmax(told, axis=-1).tolist())]


def _across(block: Any, hidden: Any, layer: Layer) -> Any:
    """Attend to the sound, then the rest of a decoder block."""
    queries = _heads(block.cross_attn, block.cross_attn.query(block.cross_attn_ln(hidden)))
    heard = _attend(block.cross_attn, queries, layer.sound_keys, layer.sound_values)
    return _beyond(block, hidden + heard)


def _beyond(block: Any, hidden: Any) -> Any:
    return hidden + block.mlp2(_nn().gelu(block.mlp1(block.mlp_ln(hidden))))


def _project(attention: Any, asking: Any, asked: Any) -> tuple[Any, Any, Any]:
    """Return queries, keys and values by head."""
    return (
        _heads(attention, attention.query(asking)),
        _heads(attention, attention.key(asked)),
        _heads(attention, attention.value(asked)),
    )


def _heads(attention: Any, flat: Any) -> Any:
    return flat.reshape(*flat.shape[:2], attention.n_head, -1).transpose(0, 2, 1, 3)


def _attend(attention: Any, queries: Any, keys: Any, values: Any, mask: Any = None) -> Any:
    import mlx.core as mx

    found = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=queries.shape[-1] ** -0.5, mask=mask)
    return attention.out(found.transpose(0, 2, 1, 3).reshape(found.shape[0], found.shape[2], -1))


def _nn() -> Any:
    import importlib

    return importlib.import_module("mlx.nn")  # its names come from submodules that mypy cannot follow
