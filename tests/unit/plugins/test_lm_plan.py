"""What a request may have otherwise, and where a prompt's cache is quantised."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs.model import Lane
from plugins.lm_lines import Lines
from plugins.lm_plan import PLAIN, Plan, Quantised, wanted
from plugins.lm_quantised import turning


def test_a_request_wins_over_the_models_options():
    """What it does not say is the options'; None says nothing; other options are not looked at."""
    options = {"kv_bits": 8, "quantized_kv_start": 0, "batch": 4, "context": 100}
    assert wanted({}, options).kv_bits == 8
    found = wanted({"kv_bits": 4, "quantized_kv_start": None, "num_draft_tokens": 2}, options)
    assert (found.kv_bits, found.quantized_kv_start, found.num_draft_tokens) == (4, 0, 2)
    assert wanted({}).kv_bits is None


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"kv_bits": 3}, "kv_bits"),
        ({"kv_group_size": 48}, "kv_group_size"),
        ({"quantized_kv_start": -1}, "quantized_kv_start"),
        ({"num_draft_tokens": 99}, "num_draft_tokens"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(request_, match):
    """The message names the field."""
    with pytest.raises(ValueError, match=match):
        wanted(request_)


@pytest.mark.parametrize(
    ("length", "start", "at"),
    [
        (0, 0, None),  # a prompt of one token: the answer's first one is computed before
        (10, 0, 10),
        (10, 10, 10),
        (10, 11, None),
        (2047, 0, 2047),
        (2048, 0, 2048),
        (5000, 0, 2048),
        (5000, 2048, 2048),
        (5000, 2049, 4096),
        (5000, 4999, 5000),
        (5000, 5001, None),
        (9000, 5000, 6144),
    ],
)
def test_a_cache_is_quantised_where_mlx_lm_would(length, start, at):
    """After the first call that leaves enough in it, of calls of 2,048 tokens each and one for the rest."""
    assert turning(length, start) == at


def test_the_size_of_a_quantised_cache():
    """Bits, and a scale and a bias for each group."""
    assert Quantised(4, 64, 0).share(2) == pytest.approx((0.5 + 4 / 64) / 2)
    assert Quantised(8, 32, 0).share(4) == pytest.approx((1 + 8 / 32) / 4)


def _answer(name, plan=PLAIN, lane=Lane.NORMAL, cost=10):
    asked = SimpleNamespace(lane=lane)
    way = SimpleNamespace(plan=plan)
    return SimpleNamespace(id=name, request=asked, way=way, cost=cost, length=cost, overtaken=0, prompt="")


def _next(lines, fits):
    found = lines.next({(Lane.NORMAL, PLAIN): [_answer("other")]}, dict.fromkeys(Lane, 0), fits)
    return found and found.id


def test_who_waits_for_an_adapter_is_overtaken_for_a_while_and_no_longer():
    """Others begin meanwhile, 64 of them; then nobody does until the one who waits has begun."""
    memory = SimpleNamespace(tokens=10**6, paused=frozenset())
    lines = Lines(batch=1000, memory=memory)
    lines.add(_answer("waits", Plan("adapter")))
    for number in range(100):
        lines.add(_answer(str(number)))
    begun = [_next(lines, lambda answer: answer.id != "waits") for _ in range(80)]
    assert begun == [str(number) for number in range(64)] + [None] * 16
    assert _next(lines, lambda _: True) == "waits"
    assert _next(lines, lambda _: True) == "64"
