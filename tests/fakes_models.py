"""Makes tiny models with random weights: real formats, no meaning, a fraction of a second each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plugins import mlx_process

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_llama(
    folder: Path, *, bits: int | None = None, template: str | None = TEMPLATE, dtype: str = "float16"
) -> Path:
    """Write a Llama of 30,000 random weights with a byte-level tokenizer; *bits* quantises it."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    folder.mkdir(parents=True, exist_ok=True)
    size = _tokenizer(folder, template)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": size,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 1,
    }
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    model.set_dtype(getattr(mx, dtype))
    if bits:
        nn.quantize(model, group_size=32, bits=bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def loaded_llama(folder: Path) -> Any:
    """Return the model of `tiny_llama` in float32 as mlx-lm loads it, evaluated."""
    import mlx.core as mx
    import mlx_lm

    mlx_process.prepare()
    model, *_ = mlx_lm.load(str(tiny_llama(folder, dtype="float32")))
    mx.eval(model.parameters())
    return model


def _tokenizer(folder: Path, template: str | None) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog sat on the log " * 5], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**about, **({"chat_template": template} if template else {}), "model_max_length": 2048})
    )
    return tokenizer.get_vocab_size()


def tiny_whisper(folder: Path, *, multilingual: bool = False, bits: int | None = None) -> Path:
    """Write a Whisper with random weights and almost no layers."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
    from mlx_whisper.whisper import ModelDimensions, Whisper

    folder.mkdir(parents=True, exist_ok=True)
    dims = {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": 64,
        "n_audio_head": 2,
        "n_audio_layer": 0,
        "n_vocab": 51865 if multilingual else 51864,
        "n_text_ctx": 64,
        "n_text_state": 64,
        "n_text_head": 2,
        "n_text_layer": 1,
    }
    mx.random.seed(0)
    model = Whisper(ModelDimensions(**dims), mx.float16)
    model.decoder.positional_embedding = mx.random.normal((64, 64)).astype(mx.float16)
    config = {**dims, "model_type": "whisper"}
    if bits:
        nn.quantize(model, group_size=32, bits=bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    weights = {k: v for k, v in tree_flatten(model.parameters()) if k != "alignment_heads" and "._" not in k}
    mx.save_safetensors(str(folder / "weights.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def drain(session) -> dict[str, list[tuple[str, dict]]]:
    """Step *session* until it is idle and return its events by request."""
    told: dict[str, list[tuple[str, dict]]] = {}
    steps = 0
    while session.busy:
        for request_id, kind, data in session.step():
            told.setdefault(request_id, []).append((kind, dict(data)))
        steps += 1
        assert steps < 20_000, "the session does not come to an end"
    return told


def random_adapter(folder: Path, model: Path, *, seed: int = 0, kind: str = "lora", **parameters) -> Path:
    """Write a LoRA adapter of random numbers for *model*, as mlx_lm.lora writes a trained one."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    folder.mkdir(parents=True, exist_ok=True)
    net, _ = load_model(model, lazy=True)
    net.freeze()
    config = {"rank": 4, "scale": 4.0, "dropout": 0.1, **parameters}
    linear_to_lora_layers(net, -1, config)
    mx.random.seed(seed)
    weights = {name: mx.random.normal(weight.shape) * 0.2 for name, weight in tree_flatten(net.trainable_parameters())}
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    about = {"fine_tune_type": kind, "num_layers": -1, "lora_parameters": config}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder


def random_twin(folder: Path, model: Path) -> Path:
    """Write a model that is as *model* is, with random weights."""
    import shutil

    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    shutil.copytree(model, folder, dirs_exist_ok=True)
    net, _ = load_model(model, lazy=True)
    mx.random.seed(9)
    weights = {name: mx.random.normal(one.shape) * 0.05 for name, one in tree_flatten(net.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder
