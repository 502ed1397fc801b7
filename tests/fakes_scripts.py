"""Makes models that say what a test wants: each token is followed by the one that the script has behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

#: mlx-lm infers the format of calls from words in the template, here Hermes' and Qwen's JSON between two tags.
TOOL_TEMPLATE = (
    "{% if tools %}<|tools|>{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for tool_call in m.tool_calls or [] %}{% set tool_call = tool_call.function %}"
    '<tool_call>{"name":"{{ tool_call.name }}","arguments":{{ tool_call.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}{% if messages[-1].role == 'tool' %}<|told|>"
    "{% elif tools %}<|agent|>{% else %}<|assistant|>{% endif %}{% endif %}"
)
#: The same without a word of calls.
PLAIN_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

#: What begins an answer -> the pieces it consists of, a token each; no piece may come twice.
SCRIPT: Mapping[str, Sequence[str]] = {
    "<|agent|>": [
        "Let",
        "me",
        "see.",
        "<tool_call>",
        '{"name":"weather",',
        '"arguments":',
        '{"city":"Oslo"}}',
        "</tool_call>",
    ],
    "<|told|>": ["It", "is", "cold", "in", "Oslo."],
    "<|assistant|>": ["Hello", "there."],
}
_MARKERS = (
    "<|pad|>",
    "<|end|>",
    "<|tools|>",
    "<|system|>",
    "<|user|>",
    "<|tool|>",
    "<|assistant|>",
    "<|agent|>",
    "<|told|>",
)


def scripted_llama(
    folder: Path, *, script: Mapping[str, Sequence[str]] = SCRIPT, template: str = TOOL_TEMPLATE
) -> Path:
    """Write a Llama whose layer does nothing: the embedding of a token is what makes the next one likeliest."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    folder.mkdir(parents=True, exist_ok=True)
    numbers = _tokenizer(folder, [piece for pieces in script.values() for piece in pieces], template)
    size = -(-len(numbers) // 32) * 32
    config = {
        "model_type": "llama",
        "hidden_size": size,
        "num_hidden_layers": 1,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "vocab_size": size,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": numbers["<|end|>"],
    }
    model = Model(ModelArgs.from_dict(config))
    weights = {name: mx.zeros(weight.shape) for name, weight in tree_flatten(model.parameters())}
    weights |= {name: mx.ones(weight.shape) for name, weight in weights.items() if "norm" in name}
    weights["model.embed_tokens.weight"] = mx.eye(size)
    weights["lm_head.weight"] = _followers(script, numbers, size)
    weights = {name: weight.astype(mx.float16) for name, weight in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _followers(script: Mapping[str, Sequence[str]], numbers: Mapping[str, int], size: int):
    import mlx.core as mx
    import numpy as np

    head = np.zeros((size, size), dtype=np.float32)
    head[numbers["<|end|>"], :] = 0.5
    for begin, pieces in script.items():
        for one, following in zip([begin, *pieces], [*pieces, "<|end|>"], strict=True):
            head[numbers[following], numbers[one]] = 1.0
    return mx.array(head)


def _tokenizer(folder: Path, pieces: Sequence[str], template: str) -> dict[str, int]:
    """Write a tokenizer of single bytes and of the whole *pieces*; return token -> id."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(_MARKERS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([""], trainer)
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in pieces])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**about, "chat_template": template, "model_max_length": 2048})
    )
    return dict(tokenizer.get_vocab())
