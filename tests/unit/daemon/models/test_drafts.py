"""Draft models: named by a job or the configuration, loaded beside a model, counted with it, not loaded twice."""

from __future__ import annotations

import shutil

import pytest
from fakes_engine import House

from daemon.config.model import ModelConfig
from daemon.models.references import DEMO_MODELS, ModelResolver
from daemon.models.sizes import Sizes
from jobs.errors import ModelBroken, ModelMissing
from plugins.estimate import PROCESS, estimate_lm
from plugins.lm import LmRuntime

LM = DEMO_MODELS / "lm"


def test_a_configured_draft_model_is_a_reference():
    """An alias of another model becomes its folder; one that is not here is missing, as the model itself would be."""
    aliases = {
        "small": ModelConfig(path="demo:lm"),
        "big": ModelConfig(path="demo:lm", options={"draft_model": "small", "batch": 4}),
        "gone": ModelConfig(path="demo:lm", options={"draft_model": "org/gone"}),
    }
    resolve = ModelResolver(aliases=aliases, environ={"HF_HUB_CACHE": "/nowhere"})
    big = resolve("big", "lm")
    assert big.options == {"draft_model": str(LM), "batch": 4}
    assert big.folders == (LM, LM)
    with pytest.raises(ModelMissing, match="org/gone"):
        resolve("gone", "lm")


def test_a_draft_model_of_a_job_makes_another_model_of_it():
    """With another key, so that it is loaded and counted; it serves also those who need no draft."""
    resolve = ModelResolver()
    plain = resolve("demo:lm", "lm")
    drafted = plain.drafted_by(resolve("demo:lm", "lm"))
    assert drafted.key != plain.key
    assert plain.folders == (LM,)
    assert drafted.covers(plain)
    assert not plain.covers(drafted)
    assert not drafted.covers(resolve("demo:whisper", "whisper"))


def test_a_model_with_a_draft_is_not_loaded_again_without_one():
    """Who needs none is served by the runner that has one; who needs one gets a runner of its own."""
    house = House(budget=200)
    house.has("a", options={"draft_model": "/models/small"}).release()
    house.has("a").release()
    assert len(house.engines) == 1
    house.has("b").release()
    house.has("b", options={"draft_model": "/models/small"}).release()
    assert len(house.engines) == 3


def test_a_draft_model_is_checked_and_counted(tmp_path):
    """Its weights and caches are in the estimate, which changes with its folder; code in it is refused."""
    shutil.copytree(LM, tmp_path / "draft")
    resolve = ModelResolver()
    plain = resolve("demo:lm", "lm")
    drafted = plain.drafted_by(resolve(str(tmp_path / "draft"), "lm"))
    sizes = Sizes({"lm": LmRuntime()}.copy)
    alone = sizes(plain)
    assert sizes(drafted) == 2 * alone - PROCESS
    (tmp_path / "draft" / "code.py").write_text("")
    with pytest.raises(ModelBroken, match=r"code\.py"):
        sizes(drafted)


def test_quantised_caches_are_counted_smaller():
    """From quantized_kv_start on; an option that begins beyond the context changes nothing."""
    plain = estimate_lm(LM, {}).overhead
    assert estimate_lm(LM, {"kv_bits": 4}).overhead == plain
    small = estimate_lm(LM, {"kv_bits": 4, "quantized_kv_start": 0}).overhead
    some = estimate_lm(LM, {"kv_bits": 4, "quantized_kv_start": 2048}).overhead
    assert small < some < plain
