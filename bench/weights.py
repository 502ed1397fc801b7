"""Models with random weights, in memory or as a folder: nothing has to be downloaded, and speed does not ask for sense.

The row of the output layer that belongs to the end of text is zero. Its logit is 0 while the largest of thousands of
random ones is above it, so greedy answers never end before their last token, here as there.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from itertools import islice, product
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
        "dtype": "float32",
    },
    "small": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 8192,
        "dtype": "float32",
    },
    "medium": {
        "hidden_size": 2048,
        "num_hidden_layers": 8,
        "intermediate_size": 5632,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "dtype": "float32",
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "dtype": "bfloat16",
    },
}
#: Tokens of prompt and answer.
CONTEXT = 131072


def settings(size: str) -> dict[str, Any]:
    """Return the model's configuration as mlx-lm reads it: Llama in the given shape."""
    shape = {key: value for key, value in SIZES[size].items() if key != "dtype"}
    return {
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": SIZES[size]["vocab_size"] - 1,
        **shape,
    }


def random_model(size: str) -> Any:
    """Return a Llama of the given shape with random weights, evaluated."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.models.llama import Model, ModelArgs

    dtype = getattr(mx, SIZES[size]["dtype"])
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(settings(size)))
    weights = []
    for name, old in tree_flatten(model.parameters()):
        weight = mx.random.normal(old.shape, dtype=dtype) * 0.02 if old.ndim > 1 else mx.ones(old.shape, dtype=dtype)
        if name == "lm_head.weight":
            weight[SIZES[size]["vocab_size"] - 1] = 0
        mx.eval(weight)
        weights.append((name, weight))
    model.update(tree_unflatten(weights))
    mx.eval(model.parameters())
    model.eval()
    return model


def save_tokenizer(size: int, folder: Path) -> None:
    """Write a byte-level tokenizer of *size* tokens, as Llama-3's is: bytes, pairs and triples of ASCII letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = [letter for letter in letters if letter.isascii()]
    merges = [*product(plain, plain), *((a + b, c) for a, b, c in product(plain, plain, plain))]
    pieces = letters + [first + second for first, second in islice(merges, size)]
    words = {piece: number for number, piece in enumerate(pieces[: size - 1])} | {"<|end|>": size - 1}
    used = [(first, second) for first, second in islice(merges, size) if first + second in words]
    tokenizer = Tokenizer(models.BPE(words, used))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    )


def byte_tokenizer(size: int) -> Any:
    """Return the tokenizer of `save_tokenizer` as mlx-lm loads it."""
    from mlx_lm.tokenizer_utils import load

    with tempfile.TemporaryDirectory(prefix="mlxd-bench-words-") as name:
        folder = Path(name)
        save_tokenizer(size, folder)
        (folder / "config.json").write_text("{}")
        return load(folder)


def save_model(size: str, folder: Path) -> None:
    """Write the model of `random_model` and its tokenizer into *folder*, as mlx-lm and mlxd load it."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(SIZES[size]["vocab_size"], folder)
    (folder / "config.json").write_text(json.dumps(settings(size) | {"torch_dtype": SIZES[size]["dtype"]}))
    weights = dict(tree_flatten(random_model(size).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


class Words:
    """Makes prompts of an exact number of tokens for the model in *folder*; no two begin alike, so no cache helps."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        #: Tokens of a space and a letter.
        self._each = self.count("a b c") // 2

    def count(self, text: str) -> int:
        """Return how many tokens *text* has."""
        return len(self._tokenizer.encode(text).ids)

    def prompts(self, count: int, tokens: int, seed: int) -> list[str]:
        """Return so many texts of *tokens* tokens each (one less where a letter and its space are two)."""
        chance = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = 1 + (tokens - 1) // self._each
        return [" ".join(chance.choices(letters, k=words)) for _ in range(count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a model with random weights into a folder.")
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    save_model(asked.size, asked.folder)
    sys.exit(0)
