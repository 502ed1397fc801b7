"""Model folders: what must not be loaded is refused, with the file and the reason."""

import json
import os

import pytest
from fakes_weights import write_safetensors

from daemon.models import safety
from daemon.models.references import guess_runtime
from daemon.models.safety import check_model_folder
from jobs.errors import ModelBroken, ModelMissing
from plugins import model_files
from plugins.estimate import estimate_lm


@pytest.fixture(name="folder")
def _folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", [2, 2])})
    return tmp_path


def test_a_sound_folder_passes(folder):
    """Weights, configuration, tokenizer and a read-me are all a model needs."""
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (folder / "README.md").write_text("hello")
    check_model_folder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "modeling.py",
        "pytorch_model.bin",
        "model.pt",
        "x.PTH",
        "sub/a.pkl",
        "model.gguf",
        "weights.npz",
        "a.so",
        "b.ckpt",
    ],
)
def test_code_and_pickles_are_refused(folder, name):
    """Anything that could run a stranger's code, at any depth, whatever its case."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(ModelBroken, match=name.replace("/", ".")) as caught:
        check_model_folder(folder)
    assert caught.value.facts["file"].endswith(name)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("config.json", {"model_file": "x.py"}, "model_file"),
        ("config.json", {"auto_map": {}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {}}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {}}, "auto_map"),
        ("config.json", [], "not a JSON object"),
    ],
)
def test_configurations_that_ask_for_code_are_refused(folder, file, content, match):
    """`auto_map` and `model_file` make libraries import code from the folder."""
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelBroken, match=match):
        check_model_folder(folder)


def test_configurations_that_cannot_be_read_are_refused(folder, monkeypatch):
    """No JSON, depth bombs and absurd lengths."""
    for content in ("{", "[" * 100_000):
        (folder / "config.json").write_text(content)
        with pytest.raises(ModelBroken, match="not JSON"):
            check_model_folder(folder)
    monkeypatch.setattr(model_files, "MAX_CONFIG", 10)
    (folder / "config.json").write_text(" " * 20)
    with pytest.raises(ModelBroken, match="too long"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json", "README.md", "sub/x"])
@pytest.mark.timeout(10)
def test_pipes_are_refused_and_hold_up_nobody(folder, name):
    """A pipe in the place of any file ends the check at once, and so does the guess of the runtime before it."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert guess_runtime(folder) == "lm"
    with pytest.raises(ModelBroken):
        check_model_folder(folder)
    link = folder / "linked.json"
    link.symlink_to(path)
    with pytest.raises(ModelBroken):
        check_model_folder(folder)


def test_a_deep_configuration_is_no_fault_of_ours(folder):
    """Depth bombs are met where the runtime is guessed and the estimate is made, not only in the check."""
    (folder / "config.json").write_text('{"a":' + "[" * 100_000)
    assert guess_runtime(folder) == "lm"
    with pytest.raises(ModelBroken, match="not JSON"):
        estimate_lm(folder, {})


def test_a_lying_header_is_refused(folder):
    """Every safetensors file of the folder is checked, not only the first."""
    (folder / "z.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelBroken, match=r"z\.safetensors"):
        check_model_folder(folder)


def test_a_folder_without_a_model_is_none(tmp_path, monkeypatch):
    """No folder, no configuration, no weights, too many files: each has its own sentence."""
    with pytest.raises(ModelMissing):
        check_model_folder(tmp_path / "nowhere")
    with pytest.raises(ModelBroken, match=r"no config\.json"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelBroken, match="no safetensors"):
        check_model_folder(tmp_path)
    monkeypatch.setattr(safety, "MAX_FILES", 0)
    with pytest.raises(ModelBroken, match="more than 0 files"):
        check_model_folder(tmp_path)
