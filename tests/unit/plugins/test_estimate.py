"""Memory estimates, from headers and configuration alone."""

import json

import pytest
from fakes_weights import write_safetensors

from jobs.errors import ModelBroken
from plugins import estimate
from plugins.estimate import PROCESS, estimate_lm, estimate_whisper, kv_bytes_per_token, whisper_batch

LLAMA = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setattr(estimate, "cpu_expected", lambda: True)


def lm(folder, tensors, **config):
    (folder / "config.json").write_text(json.dumps({**LLAMA, "max_position_embeddings": 1000, **config}))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def test_weights_are_cast_to_float32_on_a_cpu(tmp_path, monkeypatch):
    """Half precision doubles on a CPU, stays on a GPU, and an explicit dtype decides."""
    model = lm(tmp_path, {"w": ("BF16", [100]), "ids": ("I32", [10])})
    assert estimate_lm(model, {}).weights == 440
    assert estimate_lm(model, {"dtype": "keep"}).weights == 240
    assert estimate_lm(model, {"dtype": "float16"}).weights == 240
    monkeypatch.setattr(estimate, "cpu_expected", lambda: False)
    assert estimate_lm(model, {}).weights == 240


def test_small_quantised_models_are_dequantised_on_a_cpu(tmp_path, monkeypatch):
    """Packed words unpack to float32 and their scales go; a large model keeps its packing."""
    tensors = {"w": ("U32", [8]), "w.scales": ("F16", [1]), "w.biases": ("F16", [1]), "n": ("F16", [3])}
    model = lm(tmp_path, tensors, quantization={"bits": 4, "group_size": 64})
    assert estimate_lm(model, {}).weights == 8 * 8 * 4 + 3 * 4
    monkeypatch.setattr(estimate, "DEQUANTISE_BELOW", 1)
    assert estimate_lm(model, {}).weights == 8 * 4 + (1 + 1 + 3) * 4


def test_the_cache_follows_the_configuration(tmp_path):
    """Two arrays a layer, heads times head size, four bytes, half again for what is kept; nesting counts."""
    assert kv_bytes_per_token(LLAMA) == 2 * 2 * 2 * 16 * 4
    assert kv_bytes_per_token({**LLAMA, "head_dim": 32}, 2) == 2 * 2 * 2 * 32 * 2
    assert kv_bytes_per_token({}) == 0

    model = lm(tmp_path, {"w": ("F32", [100])})
    assert estimate_lm(model, {}).overhead == PROCESS + 1000 * 512 * 3 // 2 + 20
    assert estimate_lm(model, {"context": 10}).overhead == PROCESS + 10 * 512 * 3 // 2 + 20
    (model / "config.json").write_text(json.dumps({"text_config": LLAMA}))
    assert estimate_lm(model, {}).total == 400 + PROCESS + 8192 * 512 * 3 // 2 + 20


def test_whisper_counts_its_windows(tmp_path):
    """Weights as loaded, and what the windows of one batch take: fewer cost less, and large models take fewer."""
    config = {"n_audio_state": 64, "n_text_state": 64, "n_text_layer": 2, "n_text_ctx": 448, "n_vocab": 51864}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_safetensors(tmp_path / "weights.safetensors", {"w": ("F16", [10])})
    found = estimate_whisper(tmp_path, {"dtype": "float32"})
    assert found.weights == 40
    assert found.overhead > PROCESS + 16 * 4 * 64 * (2 * 2 * 1948 + 1500)
    assert estimate_whisper(tmp_path, {"dtype": "float32", "batch": 2}).overhead < found.overhead
    large = {"n_audio_state": 1280, "n_text_state": 1280, "n_text_layer": 32, "n_text_ctx": 448, "n_vocab": 51866}
    assert whisper_batch(config, {"dtype": "float16"}) == 16
    assert 4 <= whisper_batch(large, {"dtype": "float16"}) < 16
    assert whisper_batch(large, {"batch": 12}) == 12


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_folder_is_told(tmp_path, content):
    """A configuration that is none and missing weights raise `ModelBroken`."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelBroken, match=r"config\.json"):
        estimate_lm(tmp_path, {})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelBroken, match=r"model\*\.safetensors"):
        estimate_lm(tmp_path, {})


def test_the_device_is_told_without_mlx(monkeypatch):
    """A Mac has a GPU; Linux has one if the CUDA build and a driver are there."""
    monkeypatch.undo()
    monkeypatch.setattr(estimate.sys, "platform", "darwin")
    assert estimate.cpu_expected() is False
    monkeypatch.setattr(estimate.sys, "platform", "linux")
    monkeypatch.setattr(estimate, "_has_cuda", lambda: True)
    assert estimate.cpu_expected() is False
    monkeypatch.undo()
    assert estimate._has_cuda() in (True, False)


def test_a_model_of_another_kind_is_called_that(tmp_path):
    """Who asks a Whisper to write a text learns what the folder is not, and by what that shows."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelBroken, match=r"is no language model: it has no model\*\.safetensors"):
        estimate_lm(tmp_path, {})
    with pytest.raises(ModelBroken, match=r"is no Whisper of mlx-whisper: it has no weights\.safetensors"):
        estimate_whisper(tmp_path, {})
