"""How `generate` and `batch` ask for adapters, draft models and quantised caches, and who may."""

from __future__ import annotations

import pytest
from fakes_tasks import FakeContext
from pydantic import ValidationError

from daemon.folders.recipe import RecipeRule
from jobs.errors import InvalidInput
from plugins import front_matter
from plugins.batch_params import Line
from plugins.generate import Generate, Params


@pytest.fixture(name="ask")
def _ask(tmp_path):
    """Ask with parameters; return the request, and the draft models that were leased."""
    return lambda **params: _asked(tmp_path, **params)


def _asked(folder, **params):
    context = FakeContext(folder)
    Generate().run(context, Params(prompt="x", **params))
    (request,) = context.lm.requests
    return request, context.drafts


def test_what_is_not_asked_for_is_not_sent(ask):
    """A plain request has none of the keys, so that the model's options count; no draft model is leased."""
    request, drafts = ask()
    assert not request.keys() & {"adapter", "num_draft_tokens", "kv_bits", "kv_group_size", "quantized_kv_start"}
    assert drafts == [None]


def test_an_adapter_and_a_quantised_cache_are_passed_on(ask):
    """The path as text, the numbers as they are; a start of 0 is said."""
    request, _ = ask(adapter="/adapters/one", kv_bits=4, quantized_kv_start=0)
    assert (request["adapter"], request["kv_bits"], request["quantized_kv_start"]) == ("/adapters/one", 4, 0)
    with pytest.raises(ValidationError, match="absolute"):
        Params(prompt="x", adapter="adapters/one")


def test_a_draft_model_is_leased_with_the_model(ask):
    """It guesses as many tokens as mlx-lm's does by default; with none it is not even loaded."""
    request, drafts = ask(draft_model="small")
    assert (request["num_draft_tokens"], drafts) == (3, ["small"])
    request, drafts = ask(draft_model="small", num_draft_tokens=0)
    assert (request["num_draft_tokens"], drafts) == (0, [None])


def test_who_may_name_an_adapter_or_another_model():
    """A batch's line cannot change its models; a prompt file and a folder's recipe name no paths."""
    with pytest.raises(ValidationError, match="draft model"):
        Line(prompt="x", draft_model="small")
    assert front_matter.split("---\nkv_bits: 4\nnum_draft_tokens: 0\n---\nx").params == {
        "kv_bits": 4,
        "num_draft_tokens": 0,
    }
    for key in ("adapter", "draft_model"):
        with pytest.raises(InvalidInput, match=key):
            front_matter.split(f"---\nkv_bits: 4\n{key}: /etc\n---\nx")
        with pytest.raises(ValidationError, match=key):
            RecipeRule(task="generate", params={key: "/etc"})
