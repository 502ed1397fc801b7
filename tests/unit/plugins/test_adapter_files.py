"""An adapter's files, which may come from a stranger: what is no sound LoRA adapter is refused in a sentence."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from plugins.adapter_files import CONFIG, WEIGHTS, check_adapter

LORA = {"rank": 8, "scale": 20.0, "dropout": 0.1}


def _safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header, at = {}, 0
    for name, (rows, columns) in shapes.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [at, at + 4 * rows * columns]}
        at += 4 * rows * columns
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(at))


@pytest.fixture(name="adapter")
def _adapter(tmp_path):
    def make(**config):
        about = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": LORA, **config}
        (tmp_path / CONFIG).write_text(json.dumps(about))
        _safetensors(tmp_path / WEIGHTS, {"layer.lora_a": [16, 8], "layer.lora_b": [8, 16]})
        return tmp_path

    return make


def test_a_sound_adapter_is_described(adapter):
    """Its parameters without dropout, its tensors, and a key that changes with its files."""
    folder = adapter(num_layers=-1, lora_parameters={**LORA, "keys": ["self_attn.q_proj"]})
    files = check_adapter(folder)
    assert files.parameters == {"rank": 8, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    assert {name: tensor.shape for name, tensor in files.tensors.items()} == {
        "layer.lora_a": (16, 8),
        "layer.lora_b": (8, 16),
    }
    assert check_adapter(folder).key == files.key
    os.utime(folder / WEIGHTS, ns=(1, 1))
    assert check_adapter(folder).key != files.key


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"fine_tune_type": "dora"}, r"'dora'.*mlx_lm\.fuse"),
        ({"fine_tune_type": "full"}, "'full'"),
        ({"num_layers": "all"}, "num_layers"),
        ({"num_layers": True}, "num_layers"),
        ({"lora_parameters": None}, "lora_parameters"),
        ({"lora_parameters": {**LORA, "rank": 10**9}}, "rank"),
        ({"lora_parameters": {**LORA, "rank": 0}}, "rank"),
        ({"lora_parameters": {"rank": 8, "alpha": 16}}, "'scale' and not 'alpha'"),
        ({"lora_parameters": {**LORA, "scale": float("inf")}}, "scale"),
        ({"lora_parameters": {**LORA, "keys": "q_proj"}}, "keys"),
    ],
)
def test_a_wrong_configuration_is_refused(adapter, config, match):
    """Kinds that cannot be changed per request, and numbers that nobody trains with."""
    with pytest.raises(ValueError, match=match):
        check_adapter(adapter(**config))


@pytest.mark.parametrize(
    ("name", "match"),
    [("adapter_model.safetensors", "PEFT"), ("adapter_model.bin", "pickle"), ("adapters.npz", r"before 0\.14")],
)
def test_other_formats_are_named(adapter, name, match):
    """Who brings another library's adapter hears what it is; nothing of it is opened."""
    folder = adapter()
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(ValueError, match=match):
        check_adapter(folder)


def test_missing_damaged_and_special_files_are_refused(adapter, tmp_path):
    """No folder, no weights, a header that lies, a pipe, a configuration that is none: a sentence for each."""
    with pytest.raises(ValueError, match="no folder"):
        check_adapter(tmp_path / "nowhere")
    folder = adapter()
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="header claims"):
        check_adapter(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="missing"):
        check_adapter(folder)
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(ValueError, match="missing"):
        check_adapter(folder)
    (folder / WEIGHTS).unlink()
    adapter()
    (folder / CONFIG).write_text("[1]")
    with pytest.raises(ValueError, match="not a JSON object"):
        check_adapter(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        check_adapter(folder)
