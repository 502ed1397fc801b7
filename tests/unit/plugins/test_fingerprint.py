"""What tells two models apart."""

from __future__ import annotations

import os

import pytest
from fakes_weights import write_safetensors

from plugins.fingerprint import fingerprint


@pytest.fixture(name="model")
def _model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {"w": ("F32", [4096])})
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def _changed(model, change):
    before = fingerprint(model, {})
    change()
    return fingerprint(model, {}) != before


def test_the_same_model_is_the_same(model):
    """Reading it twice, and files that decide nothing, change nothing."""
    assert not _changed(model, (model / "README.md").touch)


def test_what_decides_the_tokens_decides(model):
    """Quantisation, tokenizer and template each make another model of it."""
    assert _changed(model, lambda: (model / "config.json").write_text('{"quantization": {"bits": 4}}'))
    assert _changed(model, lambda: (model / "tokenizer.json").write_text("[]"))
    assert _changed(model, lambda: (model / "chat_template.jinja").write_text("{{ messages }}"))


def test_other_weights_of_one_shape_are_told_apart(model):
    """By their content, were the time the same; by the time, were it elsewhere."""
    weights = model / "model.safetensors"
    then = weights.stat().st_mtime_ns
    data = bytearray(weights.read_bytes())
    data[-4096:] = b"\1" * 4096

    def replaced():
        weights.write_bytes(data)
        os.utime(weights, ns=(then, then))

    assert _changed(model, replaced)
    assert _changed(model, lambda: os.utime(weights, ns=(then + 1, then + 1)))


def test_what_else_counts_is_in_it(model):
    """Options and the device are the caller's to name."""
    assert fingerprint(model, {"dtype": "float16"}) != fingerprint(model, {"dtype": "float32"})
