"""The gate before any speed counts: whatever happens around an answer, its tokens are those of the prompt alone."""

from __future__ import annotations

import random
from functools import partial

import pytest
from fakes_models import drain

from daemon.models.references import DEMO_MODELS
from plugins import lm_prefix_disk_folder, mlx_process
from plugins.lm import LmRuntime
from plugins.lm_cohorts import Cohorts
from plugins.lm_rows import Rows

pytestmark = [pytest.mark.models, pytest.mark.timeout(120)]

_NAMES = ["Anna", "Peter", "Laura", "Tom", "Emma", "Paul"]
_DAYS = ["on Monday", "on Tuesday at noon", "tomorrow morning", "on Friday at 3 pm"]
_TODO = ["Remind me to call {}", "Buy milk and two apples for {}", "Send the report to {}", "Meet {} at the station"]


def _memos(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    sentences = [todo.format(name) + " " + day + "." for todo in _TODO for name in _NAMES for day in _DAYS]
    return [" ".join(chance.sample(sentences, chance.choice([1, 1, 2, 3, 5, 8]))) for _ in range(count)]


@pytest.fixture(name="session", scope="module")
def _session():
    mlx_process.prepare()
    session = LmRuntime().load(DEMO_MODELS / "lm", {"batch": 6})
    yield session
    session.close()


@pytest.fixture(name="alone", scope="module")
def _alone(session):
    """Answer a memo by mlx-lm's own loop, each once."""
    from mlx_lm import generate

    known: dict[str, str] = {}

    def answer(memo: str, most: int = 60) -> str:
        key = f"{most} {memo}"
        if key not in known:
            turns = [{"role": "user", "content": memo}]
            prompt = session._tokenizer.apply_chat_template(turns, add_generation_prompt=True)
            known[key] = generate(session._model, session._tokenizer, prompt, max_tokens=most)
        return known[key]

    return answer


def _text(told, name):
    kind, result = told[name][-1]
    assert kind == "done", result
    return result["text"]


@pytest.mark.parametrize("seed", range(4))
def test_joins_leaves_and_pauses_change_no_token(session, alone, seed):
    """Mixed lengths, three lanes, cancellations, requests that come at any step: each answer is mlx-lm's own."""
    chance = random.Random(f"parity-{seed}")
    # As on a GPU, where rows that have left stay in the batch for a while; and with rows of other lengths set apart.
    one_pass = (1 << 60, 100, 20, 0)[seed]
    for group in session._groups:
        group.rows = Cohorts(partial(Rows, session._model, slack=(seed % 2) / 2), one_pass=one_pass)
    memos = _memos(24, seed)
    limits = [chance.choice([3, 20, 60]) for _ in memos]
    told: dict[str, list] = {}
    waiting = list(range(len(memos)))
    cancelled, most = set(chance.sample(waiting, 3)), 0
    while waiting or session.busy:
        for _ in range(chance.choice([0, 0, 1, 3]) if session.busy else 1):
            if waiting:
                number = waiting.pop(0)
                lane = chance.choice(["interactive", "normal", "batch"])
                session.submit(str(number), {"prompt": memos[number], "max_tokens": limits[number], "lane": lane})
        for name, kind, data in session.step():
            told.setdefault(name, []).append((kind, data))
        most = max(most, *(len(group.rows.cohorts) for group in session._groups))
        for number in cancelled:
            if chance.random() < 0.1:
                session.cancel(str(number))
    assert (most > 1) is (seed > 0)
    for number, memo in enumerate(memos):
        ended = told.get(str(number), [("", {})])[-1]
        if number in cancelled and ended[0] != "done":
            continue
        assert _text(told, str(number)) == alone(memo, limits[number])


def test_a_prefix_that_is_found_changes_no_token(session, alone):
    """Prompts with a long common beginning, computed once, are answered as each one alone is."""
    beginning = " ".join(_memos(6, 99))
    prompts = [f"{beginning} {end}" for end in _memos(12, 100)]
    for number, prompt in enumerate(prompts):
        session.submit(str(number), {"prompt": prompt, "max_tokens": 60})
    told = drain(session)
    results = [told[str(number)][-1][1] for number in range(len(prompts))]
    assert [result["text"] for result in results] == [alone(prompt) for prompt in prompts]
    found = [result["cached_tokens"] for result in results]
    assert sorted(found)[1] > 100
    assert sum(found) > 0.5 * sum(result["prompt_tokens"] for result in results)


def test_a_conversation_goes_on_from_its_cache(session):
    """The second turn computes only what is new, and says what it would say without the first."""
    memo, more = _memos(2, 7)
    turns = [{"role": "user", "content": memo}]
    session.submit("first", {"messages": turns, "max_tokens": 60, "lane": "interactive"})
    first = drain(session)["first"][-1][1]
    turns += [{"role": "assistant", "content": first["text"]}, {"role": "user", "content": more}]
    session.submit("second", {"messages": turns, "max_tokens": 60})
    second = drain(session)["second"][-1][1]
    session._prefixes.clear()
    session.submit("cold", {"messages": turns, "max_tokens": 60})
    cold = drain(session)["cold"][-1][1]

    assert second["text"] == cold["text"]
    assert cold["cached_tokens"] == 0
    assert second["cached_tokens"] >= first["prompt_tokens"]


def _restarted(folder, prompts, monkeypatch):
    """Answer *prompts* one after the other in a session that knows only what is in *folder*."""
    monkeypatch.setenv(lm_prefix_disk_folder.FOLDER, str(folder))
    monkeypatch.setenv(lm_prefix_disk_folder.BYTES, str(10**8))
    session = LmRuntime().load(DEMO_MODELS / "lm", {"batch": 6})
    results = []
    for prompt in prompts:
        session.submit("one", {"prompt": prompt, "max_tokens": 60})
        results.append(drain(session)["one"][-1][1])
    session.close()
    return results


def test_a_beginning_from_the_disk_changes_no_token(alone, tmp_path, monkeypatch):
    """What two jobs began with is there after a restart, is not computed again, and every answer stays the same."""
    beginning = " ".join(_memos(6, 99))
    prompts = [f"{beginning} {end}" for end in _memos(4, 101)]
    before = _restarted(tmp_path / "prefixes", prompts[:2], monkeypatch)
    after = _restarted(tmp_path / "prefixes", prompts[2:], monkeypatch)

    assert [result["text"] for result in before + after] == [alone(prompt) for prompt in prompts]
    assert before[0]["cached_tokens"] == 0
    assert min(result["cached_tokens"] for result in [before[1], *after]) > 100


def test_probabilities_are_told_to_those_who_ask(session):
    """Each token's log-probability is the likeliest one's at temperature 0, and others pay nothing for it."""
    memo = _memos(1, 3)[0]
    session.submit("asks", {"prompt": memo, "max_tokens": 8, "logprobs": 2})
    session.submit("not", {"prompt": memo, "max_tokens": 8})
    told = drain(session)
    lines = told["asks"][-1][1]["logprobs"]
    assert len(lines) == told["asks"][-1][1]["completion_tokens"]
    assert all(line["top"][0] == {key: line[key] for key in ("token", "text", "logprob")} for line in lines)
    assert "".join(line["text"] for line in lines).strip() == told["asks"][-1][1]["text"].strip()
    assert all(line["logprob"] <= 0 and len(line["top"]) == 2 for line in lines)
    assert "logprobs" not in told["not"][-1][1]


def test_a_bias_rules_a_token_out(session):
    """With -100 on it, the token that would have come first does not come at all."""
    memo = _memos(1, 3)[0]
    session.submit("free", {"prompt": memo, "max_tokens": 4, "logprobs": 0})
    first = drain(session)["free"][-1][1]["logprobs"][0]["token"]
    session.submit("biased", {"prompt": memo, "max_tokens": 4, "logprobs": 0, "logit_bias": {str(first): -100}})
    lines = drain(session)["biased"][-1][1]["logprobs"]
    assert first not in [line["token"] for line in lines]
