"""The runtime lm: requests, answers, and the session on a real generator."""

import json
import math
from types import SimpleNamespace

import pytest
from fakes_models import drain, tiny_llama

from daemon.models.references import DEMO_MODELS
from jobs.model import Lane
from plugins import lm_caches, mlx_process
from plugins.lm import LmRuntime, cache_tokens, limits_of
from plugins.lm_request import Limits, parse, tokenise
from plugins.stop_words import StopWords

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "n"],
    "additionalProperties": False,
}


# -- without a model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [["abSTOPcd"], ["abST", "OPcd"], list("abSTOPcd"), ["ab", "STOP"]])
def test_a_stop_word_ends_the_text_however_it_is_split(pieces):
    """Nothing of the word, and nothing after it, is shown."""
    stops = StopWords(["STOP"])
    assert "".join(stops.feed(piece) for piece in pieces) == "ab"
    assert stops.met
    assert stops.feed("more") == ""


def test_what_only_looked_like_a_stop_word_is_shown():
    """Held back text comes when it turned out to be none, or at the end; the earliest of several words counts."""
    stops = StopWords(["STOP", "\n\n"])
    assert stops.feed("abST") == "ab"
    assert stops.feed("AR\n") == "STAR"
    assert stops.rest() == "\n"
    assert StopWords(["c", "bc"]).feed("abcd") == "a"
    assert StopWords().feed("abc") == "abc"
    overlapping = StopWords(["aab"])
    assert [overlapping.feed(piece) for piece in "aaab"] == ["", "", "a", ""]
    assert overlapping.met


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({}, "either prompt or messages"),
        ({"prompt": "x", "messages": []}, "either prompt or messages"),
        ({"prompt": " \n"}, "empty"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "empty"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "stop": 3}, "stop"),
        ({"prompt": "x", "seed": "abc"}, "seed"),
        ({"prompt": "x", "json_schema": "no"}, "json_schema"),
    ],
)
def test_a_wrong_request_is_refused_by_name(request_, match):
    """The message names the field."""
    with pytest.raises(ValueError, match=match):
        parse(request_)


class Words:
    """A tokenizer of one token a word."""

    has_chat_template = False
    bos_token = None
    model_max_length = 10

    def encode(self, text, *, add_special_tokens):
        return [len(word) for word in text.split()]

    def apply_chat_template(self, turns, *, add_generation_prompt):
        if turns[0]["role"] == "odd":
            raise RuntimeError("no such role")
        return [1] * len(turns)

    def __len__(self):
        return 7


def test_prompts_are_measured_against_the_context():
    """Too many tokens, absurdly many characters and unknown tokens are refused with numbers."""
    limits = Limits(context=3, vocabulary=7)
    assert tokenise(parse({"prompt": "a bb"}), Words(), limits).tokens == [1, 2]
    with pytest.raises(ValueError, match=r"has 3 tokens.* 3"):
        tokenise(parse({"prompt": "a b c"}), Words(), limits)
    with pytest.raises(ValueError, match=r"1,000 characters.* 3 tokens"):
        tokenise(parse({"prompt": "a" * 1000}), Words(), limits)
    with pytest.raises(ValueError, match="do not belong together"):
        tokenise(parse({"prompt": "a seventh-word"}), Words(), limits)


def test_a_chat_becomes_a_prompt_by_the_template_or_as_plain_text():
    """Without a template the messages are joined and a note says so; a template's own error is a refusal."""
    limits = Limits(context=10, vocabulary=7)
    chat = parse({"messages": [{"role": "user", "content": "a b"}, {"role": "user", "content": "c"}]})
    plain = tokenise(chat, Words(), limits)
    assert plain.tokens == [1, 1, 1]
    assert "no chat template" in plain.notes[0]

    templated = Words()
    templated.has_chat_template = True
    assert tokenise(chat, templated, limits) == ([1, 1], ())
    assert tokenise(parse({"prompt": "a b c", "raw": True}), templated, limits).tokens == [1, 1, 1]
    with pytest.raises(ValueError, match="no such role"):
        tokenise(parse({"messages": [{"role": "odd", "content": "x"}]}), templated, limits)
    templated.encode = lambda text, *, add_special_tokens: []
    with pytest.raises(ValueError, match="empty"):
        tokenise(parse({"prompt": "x", "raw": True}), templated, limits)


def test_limits_come_from_the_configuration():
    """The model's own context, a smaller option, a nested configuration, the tokenizer's word as a last resort."""
    assert limits_of({"max_position_embeddings": 100, "vocab_size": 9}, Words(), {}) == (100, 9)
    assert limits_of({"max_position_embeddings": 100}, Words(), {"context": 50}) == (50, 7)
    assert limits_of({"text_config": {"max_position_embeddings": 100}}, Words(), {"context": 500}) == (100, 7)
    assert limits_of({}, Words(), {}) == (10, 7)


# -- on real generators -----------------------------------------------------------------------------------------------


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
    mlx_process.prepare()
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="session")
def _session(tiny):
    session = LmRuntime().load(tiny, {"batch": 4})
    yield session
    session.close()


@pytest.fixture(name="demo", scope="module")
def _demo():
    mlx_process.prepare()
    session = LmRuntime().load(DEMO_MODELS / "lm", {})
    yield session
    session.close()


MEMOS = ["Remind me to call Anna on Monday.", "Buy milk and two apples.", "Meet Peter on Friday at noon."]


@pytest.mark.models
def test_greedy_text_equals_mlx_lms_own(demo):
    """Batched together, each answer is what `mlx_lm.generate` says of that prompt alone."""
    from mlx_lm import generate

    for number, memo in enumerate(MEMOS):
        demo.submit(str(number), {"prompt": memo, "max_tokens": 60})
    told = drain(demo)
    for number, memo in enumerate(MEMOS):
        prompt = demo._tokenizer.apply_chat_template([{"role": "user", "content": memo}], add_generation_prompt=True)
        expected = generate(demo._model, demo._tokenizer, prompt, max_tokens=60)
        assert told[str(number)][-1][1]["text"] == expected
        assert expected


@pytest.mark.models
def test_pieces_add_up_to_the_text(session):
    """The token events join to the result's text; counts, reasons and rates are there; silence when asked for."""
    session.submit("a", {"prompt": "the cat", "max_tokens": 20})
    session.submit("b", {"prompt": "the dog sat", "max_tokens": 7, "stream": False})
    told = drain(session)
    *pieces, (kind, result) = told["a"]

    assert kind == "done"
    assert "".join(data["text"] for _, data in pieces) == result["text"]
    assert result["completion_tokens"] <= 20
    assert result["finish_reason"] in ("stop", "length")
    assert result["tokens_per_second"] > 0
    assert result["prompt_tokens_per_second"] > 0
    assert [kind for kind, _ in told["b"]] == ["done"]
    assert session.info["dtype"] == "float32"
    assert session.info["device"] == "cpu"


@pytest.mark.models
def test_every_request_has_its_own_parameters(session):
    """Stop words, penalties, schemas and lengths of one request do not touch the others in its batch."""
    session.submit("plain", {"prompt": "the cat", "max_tokens": 12})
    alone = drain(session)["plain"][-1][1]["text"]
    stop = alone[3:5]
    session.submit("plain", {"prompt": "the cat", "max_tokens": 12})
    session.submit("stop", {"prompt": "the cat", "max_tokens": 12, "stop": stop})
    session.submit("penalty", {"prompt": "the cat", "max_tokens": 12, "repetition_penalty": 1.8})
    session.submit("json", {"prompt": "the cat", "max_tokens": 200, "json_schema": SCHEMA})
    results = {name: told[-1][1] for name, told in drain(session).items()}

    assert results["plain"]["text"] == alone
    assert results["stop"]["text"] == alone[: alone.index(stop)]
    assert results["stop"]["finish_reason"] == "stop"
    found = json.loads(results["json"]["text"])
    assert set(found) == {"name", "n"}
    assert 0 <= found["n"] <= 9


@pytest.mark.models
def test_a_schema_that_is_none_refuses_that_request_alone(session):
    """An invalid schema is refused at once; JSON cut off by max_tokens says so."""
    with pytest.raises(ValueError, match="json_schema"):
        session.submit("bad", {"prompt": "x", "json_schema": {"type": "nonsense"}})
    session.submit("short", {"prompt": "the cat", "max_tokens": 2, "json_schema": SCHEMA})
    (result,) = [data for kind, data in drain(session)["short"] if kind == "done"]
    assert "cut off" in result["notes"][0]


@pytest.mark.models
def test_answers_that_end_together_leave_together(session, monkeypatch):
    """The caches of those who stay are copied once, not once for each that leaves."""
    copied = []
    filtered = lm_caches.filtered
    monkeypatch.setattr(lm_caches, "filtered", lambda cache, keep: copied.append(len(keep)) or filtered(cache, keep))
    for name, most in (("a", 4), ("b", 4), ("c", 9), ("d", 9)):
        session.submit(name, {"prompt": f"prompt of {name}", "max_tokens": most, "lane": "batch"})
    assert {events[-1][1]["completion_tokens"] for events in drain(session).values()} == {4, 9}
    assert copied == [2]


@pytest.mark.models
def test_memory_is_looked_after_once_the_last_end_was_told(session, monkeypatch):
    """In a step of its own: nobody waits for it, and a session with nothing left to do is not busy."""
    rested = []
    monkeypatch.setattr(session.memory, "rest", lambda: rested.append(1))
    session.submit("a", {"prompt": "one", "max_tokens": 2})
    kinds = []
    while "done" not in kinds:
        kinds += [kind for _, kind, _ in session.step()]
        assert not rested
    assert session.busy
    assert list(session.step()) == []
    assert rested == [1]
    assert not session.busy


@pytest.mark.models
def test_a_seed_gives_the_same_text_whoever_else_is_served(session):
    """Equal seeds, equal texts, alone or in a batch; another seed, another text."""
    request = {"prompt": "the cat", "max_tokens": 16, "temperature": 1.5, "top_p": 0.95, "top_k": 50, "min_p": 0.01}
    session.submit("alone", {**request, "seed": 7})
    alone = drain(session)["alone"][-1][1]["text"]
    session.submit("other", {**request, "seed": 8})
    session.submit("again", {**request, "seed": 7})
    session.submit("free", request)
    session.submit("free2", request)
    results = {name: told[-1][1]["text"] for name, told in drain(session).items()}

    assert results["again"] == alone
    assert results["other"] != alone


@pytest.mark.models
def test_a_long_prompt_is_computed_in_pieces_and_told(session):
    """Prefill is told in steps; the answer's room shrinks to the context with a note."""
    session.submit("long", {"prompt": "z " * 900, "max_tokens": 5000})
    told = drain(session)["long"]
    done = [data["done"] for kind, data in told if kind == "prefill"]
    assert len(done) > 1
    assert done == sorted(done)
    assert "max_tokens was lowered" in told[-1][1]["notes"][0]


@pytest.mark.models
def test_cancelling_drops_a_request_wherever_it_is(session):
    """Waiting, in the batch or unknown: nothing more is told of it, and the others go on."""
    for number in range(6):
        session.submit(str(number), {"prompt": "the cat", "max_tokens": 30})
    list(session.step())
    for request_id in ("0", "5", "unknown"):
        session.cancel(request_id)
    told = drain(session)
    assert sorted(told) == ["1", "2", "3", "4"]
    assert {one[-1][0] for one in told.values()} == {"done"}


@pytest.mark.models
def test_a_person_overtakes_a_full_batch(session):
    """With the batch lane full an interactive request is answered first, and those who were paused lose nothing."""
    session.submit("alone", {"prompt": "the cat", "max_tokens": 40, "lane": "batch"})
    right = drain(session)["alone"][-1][1]["text"]
    for number in range(5):
        session.submit(f"batch{number}", {"prompt": "the cat", "max_tokens": 40, "lane": "batch"})
    for _ in range(3):
        list(session.step())
    paused = [row.cached[:] for row in session._groups.of(Lane.BATCH).rows.rows]
    session.submit("person", {"prompt": "the dog", "max_tokens": 3, "lane": "interactive"})
    told = {}
    for _ in range(4):
        for name, kind, data in session.step():
            told.setdefault(name, []).append((kind, data))

    assert [name for name, events in told.items() if events[-1][0] == "done"] == ["person"]
    assert len(paused) == 4
    assert [row.cached for row in session._groups.of(Lane.BATCH).rows.rows] == paused
    rest = drain(session)
    assert {rest[f"batch{number}"][-1][1]["text"] for number in range(5)} == {right}


@pytest.mark.models
def test_a_busy_lane_leaves_a_share_to_the_others(session):
    """However much interactive work comes, a batch answer goes on at one step of eight."""
    session.submit("batch", {"prompt": "the cat", "max_tokens": 30, "lane": "batch"})
    steps = 0
    told = []
    while not any(name == "batch" and kind == "done" for name, kind, _ in told):
        if not session._groups.of(Lane.INTERACTIVE).answers:
            session.submit(f"person{steps}", {"prompt": "the dog", "max_tokens": 10, "lane": "interactive"})
        told += session.step()
        steps += 1
        assert steps < 9 * 32


@pytest.mark.models
def test_caches_are_bounded(session):
    """Answers beyond what the caches may hold wait, padded rows counted; one alone always goes."""
    session.memory.tokens = 100
    for number in range(3):
        session.submit(str(number), {"prompt": "the cat", "max_tokens": 40})
    session.submit("long", {"prompt": "the cat", "max_tokens": 300, "stop": "e"})
    list(session.step())
    assert len(session._groups.of(Lane.NORMAL).answers) == 1
    session.memory.tokens = 200
    list(session.step())
    assert len(session._groups.of(Lane.NORMAL).answers) == 3
    told = drain(session)
    assert sorted(told) == ["0", "1", "2", "long"]
    assert cache_tokens({}, element=4) > cache_tokens(_LARGE, element=2) == 8192


_LARGE = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def _explode_for(session, culprit, after):
    """Make one request's logits processor raise after some tokens."""
    ordinary = session._processors

    def processors(answer):
        def explode(tokens, logits):
            if len(answer.tokens) >= after:
                raise RuntimeError("boom")
            return logits

        return [*ordinary(answer), explode] if answer.id == culprit else ordinary(answer)

    session._processors = processors


@pytest.mark.models
@pytest.mark.parametrize("after", [0, 3])
def test_one_request_that_breaks_the_batch_fails_alone(session, after):
    """After an exception in a step every other answer is complete and right, and the session serves on."""
    session.submit("a", {"prompt": "the cat", "max_tokens": 12})
    session.submit("b", {"prompt": "the dog sat", "max_tokens": 12})
    right = {name: told[-1][1]["text"] for name, told in drain(session).items()}
    _explode_for(session, "culprit", after)
    for name, prompt in [("a", "the cat"), ("culprit", "the log"), ("b", "the dog sat")]:
        session.submit(name, {"prompt": prompt, "max_tokens": 12})
    told = drain(session)

    assert told["culprit"][-1] == ("error", {"type": "request-failed", "message": told["culprit"][-1][1]["message"]})
    assert "boom" in told["culprit"][-1][1]["message"]
    assert {name: told[name][-1][1]["text"] for name in "ab"} == right
    assert "continued alone" in told["a"][-1][1]["notes"][0]
    session.submit("later", {"prompt": "the cat", "max_tokens": 12})
    assert drain(session)["later"][-1][1]["text"] == right["a"]


@pytest.mark.models
def test_a_schema_survives_a_failure_in_the_batch(session):
    """An answer that is continued in a new batch goes on where its grammar stood."""
    _explode_for(session, "culprit", 3)
    session.submit("json", {"prompt": "the cat", "max_tokens": 200, "json_schema": SCHEMA})
    session.submit("culprit", {"prompt": "the log", "max_tokens": 12})
    session.submit("waits", {"prompt": "the log", "max_tokens": 3})
    told = drain(session)
    assert set(json.loads(told["json"][-1][1]["text"])) == {"name", "n"}
    assert told["waits"][-1][0] == "done"


@pytest.mark.models
def test_nan_is_an_error_and_not_a_text(tiny):
    """Weights that compute NaN fail the request with a sentence."""
    import mlx.core as mx

    session = LmRuntime().load(tiny, {})
    session._model.model.norm.weight = session._model.model.norm.weight * math.nan
    mx.eval(session._model.parameters())
    session.submit("x", {"prompt": "the cat"})
    assert "NaN" in drain(session)["x"][-1][1]["message"]
    assert not session.busy
    session.close()


@pytest.mark.models
def test_letters_of_several_bytes_come_whole(session):
    """However a text's bytes are cut into tokens, no piece has half a character."""
    from plugins.lm_answer import Answer

    text = "Zoë said: 😀 and 漢字."
    tokens = session._tokenizer.encode(text, add_special_tokens=False)
    request = parse({"prompt": "x", "stop": ["漢字!"]})
    answer = Answer(
        "a",
        request,
        SimpleNamespace(tokens=[1], notes=()),
        detokenizer=session._tokenizer.detokenizer,
        max_tokens=100,
        processors=lambda answer: [],
    )
    told = [answer.add(token) for token in tokens]
    pieces = [data["text"] for events in [*told, answer.end()] for _, data in events]
    assert "".join(pieces) == answer.text == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(tokens) > len(text)


@pytest.mark.models
@pytest.mark.parametrize(
    ("bits", "dtype", "expected"), [(4, "auto", "float32"), (None, "keep", "float16"), (None, "bfloat16", "bfloat16")]
)
def test_the_number_format_is_as_asked(tmp_path, tiny, bits, dtype, expected):
    """A small quantised model becomes float32 on a CPU; other formats are kept or cast as the option says."""
    session = LmRuntime().load(tiny_llama(tmp_path / "m", bits=bits), {"dtype": dtype})
    assert session.info["dtype"] == expected
    session.submit("x", {"prompt": "the cat", "max_tokens": 3})
    assert drain(session)["x"][-1][0] == "done"
    session.close()
    with pytest.raises(ValueError, match="dtype must be one of"):
        LmRuntime().load(tiny, {"dtype": "int4"})


@pytest.mark.models
def test_a_model_without_a_template_gets_plain_text(tmp_path, tiny):
    """The prompt alone is encoded, and messages come with a note."""
    session = LmRuntime().load(tiny_llama(tmp_path / "m", template=None), {})
    session.submit("x", {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2})
    assert "no chat template" in drain(session)["x"][-1][1]["notes"][0]
    session.close()


@pytest.mark.models
def test_a_kind_of_cache_that_cannot_be_batched_is_served_one_at_a_time(tiny, monkeypatch):
    """The texts are the same, and each answer says that it was not batched and why."""
    from mlx_lm.models import cache

    prompts = ["the cat", "the dog sat", "the"]
    session = LmRuntime().load(tiny, {"batch": 4})
    for prompt in prompts:
        session.submit(prompt, {"prompt": prompt, "max_tokens": 12})
    right = {name: told[-1][1]["text"] for name, told in drain(session).items()}
    session.close()

    monkeypatch.delattr(cache.KVCache, "merge")
    session = LmRuntime().load(tiny, {"batch": 4})
    for prompt in prompts:
        session.submit(prompt, {"prompt": prompt, "max_tokens": 12})
    results = {name: told[-1][1] for name, told in drain(session).items()}
    session.close()
    assert {name: result["text"] for name, result in results.items()} == right
    assert all("Answered alone" in result["notes"][0] for result in results.values())


@pytest.mark.models
def test_the_estimate_fits_what_is_loaded(tiny):
    """The estimated weights are what the loaded parameters take."""
    from mlx.utils import tree_flatten

    session = LmRuntime().load(tiny, {})
    loaded = sum(weight.nbytes for _, weight in tree_flatten(session._model.parameters()))
    assert LmRuntime().estimate(tiny, {}).weights == pytest.approx(loaded, rel=0.01)
    session.close()


def test_mlx_is_prepared_and_never_wires_memory():
    """The wired limit is a no-op afterwards, limits are set, and what is in use can be asked."""
    import mlx.core as mx

    mlx_process.prepare(memory=10**9, cache=10**7)
    assert mx.set_wired_limit(10**9) == 0
    assert mlx_process.active_bytes() >= 0
