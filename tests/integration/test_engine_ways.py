"""Adapters, quantised caches and draft models: each answer is, token for token, what mlx-lm says in the same way."""

from __future__ import annotations

import random

import pytest
from fakes_models import drain, random_adapter, random_twin, tiny_llama

from daemon.models.references import DEMO_MODELS
from plugins import lm_new_group, mlx_process
from plugins.lm import LmRuntime

pytestmark = [pytest.mark.models, pytest.mark.timeout(120)]

LM = DEMO_MODELS / "lm"
MEMOS = [
    "Remind me to call Anna on Monday.",
    "Buy milk and two apples for Peter tomorrow morning.",
    "Meet Laura at the station on Friday at 3 pm. Send the report to Tom on Tuesday at noon.",
    "Send the report to Emma tomorrow morning.",
]


@pytest.fixture(name="session", scope="module")
def _session():
    mlx_process.prepare()
    session = LmRuntime().load(LM, {"batch": 16})
    yield session
    session.close()


@pytest.fixture(name="adapters", scope="module")
def _adapters(tmp_path_factory):
    mlx_process.prepare()
    folder = tmp_path_factory.mktemp("adapters")
    one = random_adapter(folder / "one", LM, seed=1)
    return one, random_adapter(folder / "two", LM, seed=2, keys=["self_attn.q_proj", "mlp.down_proj"], rank=8)


def _tokens(session, memo):
    turns = [{"role": "user", "content": memo}]
    return session._tokenizer.apply_chat_template(turns, add_generation_prompt=True)


def _mlx_lm(net, session, memo, most, **kwargs):
    """Answer by mlx-lm's own loop."""
    from mlx_lm import generate

    return generate(net, session._tokenizer, _tokens(session, memo), max_tokens=most, **kwargs)


def _told(result):
    """Return the tokens of *result*, and how likely the second one was at each place: the first is nearly certain.

    Where a number is rounded to 4 bits, the last bit of a product may decide to which.
    """
    return [(line["token"], pytest.approx(line["top"][1]["logprob"], abs=0.02)) for line in result["logprobs"]]


def _by_mlx_lm(session, memo, most, **kwargs):
    """Return the same of mlx-lm's own loop, without the token that ended it."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    told = []
    for token, logprobs in generate_step(mx.array(_tokens(session, memo)), session._model, max_tokens=most, **kwargs):
        if int(token) in session._stops:
            break
        told.append((int(token), mx.sort(logprobs)[-2].item()))
    return told


def _with_adapter(folder):
    import mlx.core as mx
    import mlx_lm

    net, _ = mlx_lm.load(str(LM), adapter_path=str(folder))
    net.set_dtype(mx.float32)
    net.eval()
    return net


def _results(session):
    ended = {name: told[-1] for name, told in drain(session).items()}
    assert {kind for kind, _ in ended.values()} == {"done"}, ended
    return {name: result for name, (_, result) in ended.items()}


# -- adapters ---------------------------------------------------------------------------------------------------------


def test_adapters_in_one_batch_say_what_mlx_lm_says_with_each(session, adapters):
    """Requests without an adapter and with two different ones, joined at any step, in three lanes."""
    chance = random.Random(1)
    nets = {None: session._model, **{folder: _with_adapter(folder) for folder in adapters}}
    wanted = [(memo, folder, chance.choice([4, 8, 12])) for memo in MEMOS[:3] for folder in nets]
    chance.shuffle(wanted)
    told = {}
    for number, (memo, folder, most) in enumerate(wanted):
        lane = chance.choice(["interactive", "normal", "batch"])
        request = {"prompt": memo, "max_tokens": most, "lane": lane, **({"adapter": str(folder)} if folder else {})}
        session.submit(str(number), request)
        for _ in range(chance.choice([0, 0, 2])):
            for name, kind, data in session.step():
                told.setdefault(name, []).append((kind, data))
    for name, events in drain(session).items():
        told.setdefault(name, []).extend(events)

    texts = [told[str(number)][-1][1]["text"] for number in range(len(wanted))]
    session._adapters.use("")
    assert texts == [_mlx_lm(nets[folder], session, memo, most) for memo, folder, most in wanted]
    assert len({text for text, (memo, _, most) in zip(texts, wanted, strict=True) if memo == MEMOS[0]}) >= 3


def test_a_model_without_an_adapter_is_as_it_was_loaded(session, adapters):
    """After an adapter was used every layer of the model is the very object that it was before."""
    session._adapters.use("")
    before = dict(session._model.named_modules())
    session.submit("a", {"prompt": MEMOS[0], "max_tokens": 3, "adapter": str(adapters[0])})
    drain(session)
    assert [name for name, layer in session._model.named_modules() if "lora" in type(layer).__name__.lower()]
    session.submit("b", {"prompt": MEMOS[0], "max_tokens": 3})
    drain(session)
    after = dict(session._model.named_modules())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_beginnings_and_conversations_are_kept_apart_by_adapter(session, adapters):
    """What was computed with one adapter is found by the next request with it, and by no other."""
    memo = " ".join(MEMOS)
    session._prefixes.clear()
    for name, more in [("a", {"adapter": str(adapters[0])}), ("b", {}), ("c", {"adapter": str(adapters[0])})]:
        session.submit(name, {"prompt": memo, "max_tokens": 6, "lane": "interactive", **more})
        found = _results(session)[name]["cached_tokens"]
        assert (found > 20) is (name == "c"), name


def test_more_adapters_than_may_be_loaded_take_turns(session, adapters):
    """With room for one, those who wait for another are overtaken by those who need none, and come to an end."""
    session._adapters._most, before = 1, session._adapters._most
    for number in range(6):
        folder = adapters[number % 2]
        session.submit(str(number), {"prompt": MEMOS[0], "max_tokens": 6, "adapter": str(folder)})
        session.submit(f"none{number}", {"prompt": MEMOS[0], "max_tokens": 6})
    list(session.step())
    assert sorted(len(group.answers) for group in session._groups)[-2:] == [3, 6]
    results = _results(session)
    session._adapters._most = before
    assert len(results) == 12
    assert len({results[str(number)]["text"] for number in range(0, 6, 2)}) == 1
    assert results["0"]["text"] != results["1"]["text"]


def test_an_adapter_that_is_not_for_this_model_refuses_its_request_alone(session, adapters, tmp_path):
    """Other shapes than the model's, found when it is loaded, are told in a sentence; the next request is served."""
    import mlx.core as mx

    weights = mx.load(str(adapters[0] / "adapters.safetensors"))
    name = min(weights)
    wrong = random_adapter(tmp_path / "wrong", LM)
    mx.save_safetensors(str(wrong / "adapters.safetensors"), {**weights, name: weights[name][:-1]})
    session.submit("wrong", {"prompt": MEMOS[0], "max_tokens": 3, "adapter": str(wrong)})
    session.submit("right", {"prompt": MEMOS[0], "max_tokens": 3})
    told = drain(session)
    assert told["wrong"][-1][0] == "error"
    assert told["wrong"][-1][1]["type"] == "invalid-request"
    assert "has the shape" in told["wrong"][-1][1]["message"]
    assert told["right"][-1][0] == "done"


# -- quantised caches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "start"), [(8, 0), (4, 20)])
def test_quantised_rows_say_what_mlx_lm_says_with_the_same_settings(session, bits, start):
    """In one batch with others that are not: quantised at once, or in the middle of the answer."""
    how = {"kv_bits": bits, "kv_group_size": 32, "quantized_kv_start": start}
    lengths = [len(_tokens(session, memo)) for memo in MEMOS]
    assert min(lengths) < 20 - 1 < max(lengths)
    for number, memo in enumerate(MEMOS):
        session.submit(f"kv{number}", {"prompt": memo, "max_tokens": 14, "logprobs": 2, **how})
        session.submit(f"plain{number}", {"prompt": memo, "max_tokens": 14, "logprobs": 2})
    results = _results(session)
    for number, memo in enumerate(MEMOS):
        plain, quantised = results[f"plain{number}"], results[f"kv{number}"]
        assert _told(plain) == _by_mlx_lm(session, memo, 14)
        assert _told(quantised) == _by_mlx_lm(session, memo, 14, **how)
        second = [(line["token"], line["top"][1]["logprob"]) for line in plain["logprobs"]]
        length = quantised["prompt_tokens"] + quantised["completion_tokens"]
        assert (_told(quantised) != second) is (length > start + 2) or bits == 8


def test_a_long_prompt_is_quantised_where_mlx_lm_does_it(session, monkeypatch):
    """In pieces of any size, beside others, after a beginning that was found: always at the same token."""
    monkeypatch.setattr(lm_new_group, "PIECE", 64)
    monkeypatch.setattr(session._pace, "piece", lambda **_: 23)
    memo = " ".join(MEMOS * 2)
    assert 64 < len(_tokens(session, memo)) < 256
    for start in (0, 100):
        session._prefixes.clear()
        how = {"kv_bits": 4, "kv_group_size": 32, "quantized_kv_start": start}
        for more in ("", " Buy milk."):
            session.submit("person", {"prompt": MEMOS[0], "max_tokens": 14, "lane": "interactive"})
            session.submit("long", {"prompt": memo + more, "max_tokens": 8, "logprobs": 2, **how})
            long = _results(session)["long"]
            assert _told(long) == _by_mlx_lm(session, memo + more, 8, prefill_step_size=64, **how)
            assert (long["cached_tokens"] > 32) is bool(more)


def test_kv_bits_that_change_nothing_or_cannot_be_had_say_so(session):
    """An answer that stays below quantized_kv_start has a note; groups that do not fit the heads are refused."""
    session.submit("short", {"prompt": MEMOS[0], "max_tokens": 3, "kv_bits": 4})
    assert "5,000" in _results(session)["short"]["notes"][0]
    with pytest.raises(ValueError, match=r"kv_bits: .*Leave kv_bits out"):
        session.submit("wide", {"prompt": MEMOS[0], "kv_bits": 4, "kv_group_size": 128, "quantized_kv_start": 0})
    with pytest.raises(ValueError, match="kv_bits"):
        session.submit("odd", {"prompt": MEMOS[0], "kv_bits": 3})


# -- a draft model ----------------------------------------------------------------------------------------------------


def _drafted(folder):
    """Return a session whose draft model is the one in *folder*."""
    return LmRuntime().load(LM, {"batch": 8, "draft_model": str(folder)})


@pytest.fixture(name="twin", scope="module")
def _twin():
    """The demo model as its own draft: whatever it guesses is right."""
    session = _drafted(LM)
    yield session
    session.close()


@pytest.fixture(name="fool", scope="module")
def _fool(tmp_path_factory):
    """A draft of the same shape with random weights: hardly anything that it guesses is right."""
    session = _drafted(random_twin(tmp_path_factory.mktemp("fool"), LM))
    yield session
    session.close()


@pytest.mark.parametrize(("draft", "guesses"), [("twin", 4), ("fool", 2)])
def test_a_draft_changes_no_token(request, draft, guesses):
    """Whether it is always right or hardly ever: the answer, and mlx-lm's with the same draft; and it is counted."""
    session = request.getfixturevalue(draft)
    for number, memo in enumerate(MEMOS[:2]):
        session.submit(f"plain{number}", {"prompt": memo, "max_tokens": 12, "logprobs": 2})
        wish = {"prompt": memo, "max_tokens": 12, "logprobs": 2, "num_draft_tokens": guesses}
        session.submit(f"drafted{number}", wish)
    results = _results(session)
    net = session._ways._draft.model
    for number, memo in enumerate(MEMOS[:2]):
        plain, drafted = results[f"plain{number}"], results[f"drafted{number}"]
        assert drafted["text"] == plain["text"]
        assert _told(drafted) == [(line["token"], line["top"][1]["logprob"]) for line in plain["logprobs"]]
        theirs = _mlx_lm(session._model, session, memo, 12, draft_model=net, num_draft_tokens=guesses)
        assert drafted["text"] == theirs
        assert "Served alone: speculative decoding." in drafted["notes"]
        right, guessed = drafted["accepted_tokens"], drafted["draft_tokens"]
        assert right > 0.4 * guessed if draft == "twin" else right < 0.2 * guessed
        assert "draft_tokens" not in plain


def test_a_seed_gives_the_same_text_with_and_without_a_draft(twin, fool):
    """Draft and model draw with the same random numbers, so that nothing but the speed differs."""
    asked = {"prompt": MEMOS[2], "max_tokens": 12, "temperature": 1.2, "top_p": 0.95, "seed": 5, "logit_bias": {"7": 1}}
    texts = set()
    for session in (twin, fool):
        session.submit("plain", {**asked, "repetition_penalty": 1.1})
        session.submit("drafted", {**asked, "repetition_penalty": 1.1, "num_draft_tokens": 3})
        texts |= {result["text"] for result in _results(session).values()}
    assert len(texts) == 1


def test_drafted_answers_take_turns_with_the_batch(twin):
    """One at a time in its lane, between the steps of others; cancelling and pausing go as ever; nobody waits long."""
    for number in range(3):
        twin.submit(f"drafted{number}", {"prompt": MEMOS[number], "max_tokens": 20, "num_draft_tokens": 2})
        twin.submit(f"plain{number}", {"prompt": MEMOS[number], "max_tokens": 20})
    list(twin.step())
    assert sorted(len(group.answers) for group in twin._groups) == [0, 0, 1, 3]
    twin.cancel("drafted0")
    twin.submit("person", {"prompt": MEMOS[3], "max_tokens": 6, "lane": "interactive", "num_draft_tokens": 2})
    told = []
    for _ in range(7):
        told += twin.step()
    assert [name for name, kind, _ in told if kind == "done"] == ["person"]
    results = _results(twin)
    assert sorted(results) == ["drafted1", "drafted2", "plain0", "plain1", "plain2"]
    assert results["drafted1"]["text"] == results["plain1"]["text"]


def test_drafts_work_with_quantised_caches_and_adapters(fool, adapters):
    """All three at once are what mlx-lm says with all three."""
    how = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0, "num_draft_tokens": 2}
    fool.submit("a", {"prompt": MEMOS[2], "max_tokens": 10, **how, "adapter": str(adapters[0])})
    theirs = _mlx_lm(_with_adapter(adapters[0]), fool, MEMOS[2], 10, draft_model=fool._ways._draft.model, **how)
    assert _results(fool)["a"]["text"] == theirs


def test_what_a_draft_cannot_do_is_said(session, twin, tmp_path):
    """No draft model, a JSON schema, another tokenizer: a sentence that says what to do, or why it went without."""
    with pytest.raises(ValueError, match="name one with draft_model"):
        session.submit("none", {"prompt": MEMOS[0], "num_draft_tokens": 2})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    asked = {"prompt": MEMOS[0], "max_tokens": 12, "json_schema": schema, "num_draft_tokens": 2}
    twin.submit("json", asked)
    assert "without the draft model" in _results(twin)["json"]["notes"][0]
    with pytest.raises(ValueError, match="same family"):
        _drafted(tiny_llama(tmp_path / "other"))
