"""Model references: aliases, demo models, folders, the hub's cache."""

import json
from types import SimpleNamespace

import pytest

from daemon.models.references import ModelResolver, ResolvedModel, guess_runtime, hub_cache
from jobs.errors import InvalidParams, ModelMissing


def alias(path, **more):
    return SimpleNamespace(**{"path": path, "runtime": None, "pin": False, "keep_alive": 300.0, "options": {}, **more})


@pytest.fixture(name="hub")
def _hub(tmp_path):
    """A hub cache with org/name at commit abc (main), tag v1, and an incomplete model."""
    home = tmp_path / "hub" / "models--org--name"
    (home / "refs" / "pr").mkdir(parents=True)
    for name in ("main", "v1", "pr/7"):
        (home / "refs" / name).write_text("abc\n")
    (home / "snapshots" / "abc").mkdir(parents=True)
    (home / "snapshots" / "abc" / "config.json").write_text("{}")
    part = tmp_path / "hub" / "models--org--part"
    (part / "snapshots" / "def").mkdir(parents=True)
    (part / "refs").mkdir()
    (part / "refs" / "main").write_text("def")
    return tmp_path / "hub"


@pytest.fixture(name="resolve")
def _resolve(hub, tmp_path):
    demo = tmp_path / "demo" / "lm"
    demo.mkdir(parents=True)
    (demo / "config.json").write_text("{}")
    (tmp_path / "own").mkdir()
    return ModelResolver(
        aliases={
            "fast": alias("org/name", pin=True, keep_alive=-1.0, options={"dtype": "float16"}),
            "ear": alias("fast", runtime="whisper", keep_alive=0.0),
            "loop": alias("pool"),
            "pool": alias("loop"),
            "org/name": alias("org/name", keep_alive=7.0),
        },
        defaults={"lm": "demo:lm"},
        keep_alive=60.0,
        environ={"HF_HUB_CACHE": str(hub)},
        demo_models=tmp_path / "demo",
    )


def test_a_hub_id_is_found_by_the_caches_own_layout(resolve, hub):
    """Branch, tag, nested reference and commit all lead to the snapshot; the configured keep-alive applies."""
    folder = hub / "models--org--name" / "snapshots" / "abc"
    for ref in ("org/name", "org/name@v1", "org/name@pr/7", "org/name@abc"):
        assert resolve(ref, "lm").path == folder
    assert resolve("org/name@v1", "lm").keep_alive_s == 60.0
    assert resolve("org/name", "lm").keep_alive_s == 7.0


def test_an_absent_model_names_the_command_that_fetches_it(resolve):
    """What is not here, or only in part, says `mlxd models pull`."""
    with pytest.raises(ModelMissing, match=r"`mlxd models pull org/other`"):
        resolve("org/other", "lm")
    with pytest.raises(ModelMissing, match=r"`mlxd models pull org/name@v2`"):
        resolve("org/name@v2", "lm")
    with pytest.raises(ModelMissing, match=r"config.json is missing"):
        resolve("org/part", "lm")


def test_a_missing_shard_is_noticed(resolve, hub):
    """An index that names a file which is not there means an interrupted download; a broken index too."""
    folder = hub / "models--org--name" / "snapshots" / "abc"
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    (folder / "model-1.safetensors").touch()
    with pytest.raises(ModelMissing, match=r"model-2.safetensors is missing"):
        resolve("org/name", "lm")
    index.write_text("[]")
    with pytest.raises(ModelMissing, match="index"):
        resolve("org/name", "lm")


def test_aliases_carry_their_settings(resolve):
    """An alias brings pin, keep-alive, options and runtime; an alias of an alias is followed; a circle is no model."""
    fast = resolve("fast", "lm")
    assert (fast.ref, fast.pin, fast.keep_alive_s, dict(fast.options)) == ("fast", True, None, {"dtype": "float16"})
    ear = resolve("ear", "lm")
    assert (ear.runtime, ear.keep_alive_s, ear.path) == ("whisper", 0.0, fast.path)
    with pytest.raises(InvalidParams, match="is no model"):
        resolve("loop", "lm")


def test_demo_models_and_defaults(resolve, tmp_path):
    """`demo:lm` is a folder of ours and the default; an unknown demo model lists those there are."""
    assert resolve(None, "lm").path == tmp_path / "demo" / "lm"
    with pytest.raises(ModelMissing, match="there are: lm"):
        resolve("demo:nope", "lm")
    with pytest.raises(ModelMissing):
        resolve("demo:../own", "lm")
    with pytest.raises(InvalidParams, match="no default"):
        resolve(None, "embed")


def test_folders_and_what_is_no_reference(resolve, tmp_path):
    """Absolute paths are models; missing ones and relative ones are told apart."""
    assert resolve(str(tmp_path / "own"), "lm").path == (tmp_path / "own").resolve()
    with pytest.raises(ModelMissing, match="There is no model folder"):
        resolve(str(tmp_path / "nowhere"), "lm")
    for ref in ("./own", "../own", "a/b/c", "", "no such thing"):
        with pytest.raises(InvalidParams):
            resolve(ref, "lm")


def test_the_runtime_is_guessed_when_nobody_says(resolve, tmp_path):
    """A configuration with Whisper's fields is a Whisper model, anything else a language model."""
    config = tmp_path / "own" / "config.json"
    assert guess_runtime(tmp_path / "own") == "lm"
    config.write_text('{"n_audio_state": 64}')
    assert resolve(str(tmp_path / "own"), "").runtime == "whisper"
    config.write_text("[]")
    assert guess_runtime(tmp_path / "own") == "lm"


def test_one_folder_with_the_same_options_is_one_runner(tmp_path):
    """The key ignores the reference's name, not the options or the runtime."""

    def make(ref="a", **more):
        return ResolvedModel(**{"ref": ref, "runtime": "lm", "path": tmp_path, **more})

    assert make("a").key == make("b", pin=True).key
    assert make("a").key != make("a", options={"x": 1}).key
    assert make("a").key != make("a", runtime="embed").key


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, "/c"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/u"}, "/u/.cache/huggingface/hub"),
    ],
)
def test_the_hubs_cache_is_where_the_hub_puts_it(environ, expected):
    """The environment decides as in huggingface_hub."""
    assert str(hub_cache(environ)) == expected
