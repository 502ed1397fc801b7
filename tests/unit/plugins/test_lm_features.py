"""What a request asks for itself, alone and beside others: seeds, stop words, limits, biases, probabilities."""

from __future__ import annotations

import itertools
import math

import pytest
from fakes_models import drain, tiny_llama
from fakes_scripts import scripted_llama

from plugins import mlx_process
from plugins.lm import LmRuntime

pytestmark = pytest.mark.models

DRAWN = {"prompt": "the cat", "max_tokens": 24, "temperature": 1.2, "top_p": 0.98}


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
    mlx_process.prepare()
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="session")
def _session(tiny):
    session = LmRuntime().load(tiny, {"batch": 8})
    yield session
    session.close()


def results(session, **requests):
    """Return the results of *requests*, which are served together."""
    for name, request in requests.items():
        session.submit(name, request)
    told = drain(session)
    assert all(told[name][-1][0] == "done" for name in requests), told
    return {name: told[name][-1][1] for name in requests}


def test_a_seed_draws_the_same_after_a_failure_in_its_batch(session):
    """What is continued alone, from the token it had, goes on as it would have without the failure."""
    seeded = {**DRAWN, "seed": 11}
    right = results(session, alone=seeded)["alone"]["text"]
    ordinary, failing = session._processors, {"left": 6}

    def processors(answer):
        def explode(tokens, logits):
            if answer.id == "culprit":
                failing["left"] -= 1
                if failing["left"] == 0:
                    raise RuntimeError("boom")
            return logits

        return [*ordinary(answer), explode]

    session._processors = processors
    found = results(session, a=seeded, culprit={**DRAWN, "seed": 5}, b={**seeded, "logprobs": 0})
    assert failing["left"] < 1
    assert (found["a"]["text"], found["b"]["text"]) == (right, right)
    assert "continued alone" in found["a"]["notes"][0]


def test_seeds_in_a_batch_are_those_of_each_alone(session):
    """Whoever joins or leaves meanwhile, at other temperatures and with other filters."""
    ways = [{"seed": n, "temperature": 0.5 + n / 4, "top_k": n * 3, "max_tokens": 6 + 5 * n} for n in range(5)]
    requests = {f"r{n}": {**DRAWN, **way} for n, way in enumerate(ways)}
    alone = {name: results(session, **{name: request})[name]["text"] for name, request in requests.items()}
    together = results(session, greedy={"prompt": "the dog"}, free=DRAWN, **requests)
    assert {name: together[name]["text"] for name in requests} == alone
    assert len(set(alone.values())) > 1


def test_limits_are_each_requests_own(session):
    """To the token, in one batch; the longest one is not held up by the others' ends."""
    bias = {"1": -100}  # nobody ends by himself
    requests = {f"r{n}": {"prompt": "the cat", "max_tokens": n, "logit_bias": bias} for n in (1, 2, 3, 17, 40)}
    found = results(session, **requests)
    assert {name: one["completion_tokens"] for name, one in found.items()} == {
        name: request["max_tokens"] for name, request in requests.items()
    }
    assert {one["finish_reason"] for one in found.values()} == {"length"}
    texts = [found[f"r{n}"]["text"] for n in (1, 2, 3, 17, 40)]
    assert all(longer.startswith(shorter.rstrip("\ufffd")) for shorter, longer in itertools.pairwise(texts))


def test_a_bias_touches_its_own_request_alone(session):
    """It forces a token here and forbids one there; the answers beside it are what they are alone."""
    plain = {"prompt": "the cat", "max_tokens": 6, "logprobs": 0}
    alone = results(session, plain=plain)["plain"]
    first = alone["logprobs"][0]["token"]
    found = results(
        session,
        plain=plain,
        forced={**plain, "logit_bias": {"70": 100}},
        forbidden={**plain, "logit_bias": {str(first): -100}},
    )
    assert found["plain"]["text"] == alone["text"]
    assert {line["token"] for line in found["forced"]["logprobs"]} == {70}
    assert first not in [line["token"] for line in found["forbidden"]["logprobs"]]


@pytest.mark.parametrize("token", ["-1", "100000"])
def test_a_bias_on_a_token_that_is_none_is_refused(session, token):
    """MLX would write it into memory that is not the logits'."""
    with pytest.raises(ValueError, match="is no token of this model"):
        session.submit("x", {"prompt": "x", "logit_bias": {token: 1}})


def test_penalties_keep_a_token_from_coming_again(session):
    """With the strongest ones a token that a bias makes likeliest does not follow itself."""
    request = {"prompt": "the cat", "max_tokens": 8, "logprobs": 0, "logit_bias": {"70": 1.5}}
    found = results(
        session, plain=request, present={**request, "presence_penalty": 2}, often={**request, "frequency_penalty": 2}
    )
    runs = {name: [line["token"] for line in one["logprobs"]] for name, one in found.items()}
    assert runs["plain"].count(70) > runs["present"].count(70)
    assert runs["plain"].count(70) > runs["often"].count(70)


def test_probabilities_are_the_models_in_a_batch_too(session):
    """Each is the log-softmax of the logits that the model computes for the whole text at once."""
    import mlx.core as mx

    requests = {
        f"r{n}": {"prompt": prompt, "max_tokens": 9, "logprobs": 3}
        for n, prompt in enumerate(("a", "the cat sat", "mat"))
    }
    for name, result in results(session, plain={"prompt": "the dog"}, **requests).items():
        if name == "plain":
            assert "logprobs" not in result
            continue
        turns = [{"role": "user", "content": requests[name]["prompt"]}]
        prompt = session._tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        drawn = [line["token"] for line in result["logprobs"]]
        logits = session._model(mx.array([[*prompt, *drawn]]))[0].astype(mx.float32)
        told = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        for at, line in enumerate(result["logprobs"]):
            right = told[len(prompt) - 1 + at]
            assert line["logprob"] == pytest.approx(right[line["token"]].item(), abs=2e-3)
            assert [one["token"] for one in line["top"]] == mx.argsort(-right)[:3].tolist()
            assert math.fsum(math.exp(one["logprob"]) for one in line["top"]) <= 1 + 1e-6
        assert session._tokenizer.decode(drawn) == "".join(
            line["text"] for line in result["logprobs"]
        ) or "\ufffd" in str(result)


def test_a_stop_word_may_lie_across_tokens(tmp_path):
    """Letters of several bytes, a word that three tokens make up, several words: nothing of it is ever shown."""
    mlx_process.prepare()
    pieces = ["So", "weit,", "da漢", "字", "の終", "わりEND", "!"]
    session = LmRuntime().load(scripted_llama(tmp_path, script={"<|assistant|>": pieces}), {})
    whole = "".join(pieces)
    stops = [["漢字の"], ["a漢字の終わ"], ["nothing", "終わりE"], ["D!"], ["いいえ"], ["So"], ["字の終x", "わり"]]
    for number, words in enumerate(stops):
        session.submit(str(number), {"prompt": "x", "stop": words})
    told = drain(session)
    for number, words in enumerate(stops):
        *events, (_, result) = told[str(number)]
        ends = [whole.index(word) for word in words if word in whole]
        assert result["text"] == (whole[: min(ends)] if ends else whole)
        assert "".join(data["text"] for _, data in events) == result["text"]
    session.close()
