"""Tools through a whole session: a model that calls them, the chat after it, and models that cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes_models import drain
from fakes_scripts import PLAIN_TEMPLATE, SCRIPT, WEATHER, scripted_llama

from plugins import mlx_process
from plugins.lm import LmRuntime

pytestmark = pytest.mark.models

PAGE = Path(__file__).parents[3] / "docs" / "http-api.md"
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.fixture(name="load")
def _load(tmp_path):
    """Load a model that says what a script says."""
    mlx_process.prepare()
    sessions = []

    def load(**how):
        sessions.append(LmRuntime().load(scripted_llama(tmp_path / str(len(sessions)), **how), {}))
        return sessions[-1]

    yield load
    for session in sessions:
        session.close()


def ask(session, **request):
    """Return what is told of one request and its result."""
    session.submit("x", {"prompt": "Is it cold in Oslo?", **request})
    *told, (kind, result) = drain(session)["x"]
    assert kind == "done", result
    return told, result


def test_a_call_is_told_apart_from_the_text(load):
    """The words before it stream as tokens, the call comes whole, and its words are never shown as text."""
    session = load()
    assert session.info["tools"] is True
    told, result = ask(session, tools=[WEATHER])
    assert [kind for kind, _ in told] == ["token", "token", "token", "tool_call"]
    assert "".join(data["text"] for kind, data in told if kind == "token") == result["text"] == "Letmesee."
    assert result["finish_reason"] == "tool_calls"
    assert [call["function"] for call in result["tool_calls"]] == [CALL]
    assert told[-1][1]["id"] == result["tool_calls"][0]["id"]
    assert ask(session, tools=[WEATHER])[1]["tool_calls"] == result["tool_calls"]


def test_a_conversation_goes_on_after_a_call(load):
    """The call and the tool's answer reach the model through its template; without tools nothing is called."""
    session = load()
    call = {"id": "123456789", "type": "function", "function": CALL}
    chat = [
        {"role": "user", "content": "Is it cold in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "123456789", "content": "-3 degrees"},
    ]
    _, result = ask(session, prompt=None, messages=chat, tools=[WEATHER])
    assert (result["text"], result["finish_reason"]) == ("ItiscoldinOslo.", "stop")
    assert "tool_calls" not in result
    told, result = ask(session)
    assert result["text"] == "Hellothere."
    assert {kind for kind, _ in told} == {"token"}


def test_a_limit_in_the_middle_of_a_call_leaves_it_in_the_text(load):
    """Half a call is no call: it is told as text at the end, with a note, and the reason stays the limit."""
    told, result = ask(load(), tools=[WEATHER], max_tokens=6)
    assert result["text"] == 'Letmesee.<tool_call>{"name":"weather","arguments":'
    assert (result["finish_reason"], result["completion_tokens"]) == ("length", 6)
    assert "cut off" in result["notes"][0]
    assert "".join(data["text"] for _, data in told) == result["text"]


def test_thoughts_come_before_calls(load):
    """A model that thinks, says nothing and calls: three parts, and the text is empty."""
    pieces = [
        "<think>",
        "Hm.",
        "</think>",
        "<tool_call>",
        '{"name":"weather","arguments":{"city":"Oslo"}}',
        "</tool_call>",
    ]
    told, result = ask(load(script={**SCRIPT, "<|agent|>": pieces}), tools=[WEATHER], logprobs=0)
    assert (result["text"], result["reasoning"]) == ("", "Hm.")
    assert [kind for kind, _ in told] == ["reasoning", "tool_call"]
    lines = [line for _, data in told for line in data["logprobs"]]
    assert lines == result["logprobs"]
    assert [line["text"] for line in lines] == pieces


def test_one_call_ends_the_answer_where_one_is_wanted(load):
    """The tokens behind it are not even drawn."""
    body = '{"name":"weather","arguments":{}}'
    script = {"<|agent|>": ["<tool_call>", body, "</tool_call>", "<to", "ol_call>", f" {body}", "</tool_call >"]}
    session = load(script=script)
    _, result = ask(session, tools=[WEATHER], parallel_tool_calls=False)
    assert (result["finish_reason"], result["completion_tokens"]) == ("tool_calls", 3)
    assert len(result["tool_calls"]) == 1


@pytest.mark.skipif(not PAGE.exists(), reason="tested from an installed wheel, without the documentation")
def test_events_are_as_the_page_says(load):
    """Each kind of event has a row in the HTTP interface's documentation, and each of its keys stands there."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    pieces = ["<think>", "Hm.", "</think>", "Well,", "<tool_call>", '{"name":"weather","arguments":{}}', "</tool_call>"]
    session = load(script={**SCRIPT, "<|agent|>": pieces})
    told, _ = ask(session, tools=[WEATHER], logprobs=1, prompt="x " * 600)
    kinds = {kind: data.keys() for kind, data in told}
    assert set(kinds) == {"prefill", "reasoning", "token", "tool_call"}
    for kind, keys in kinds.items():
        row = rows[kind] + (rows["token"] if kind != "prefill" else "")
        assert [key for key in keys if f"`{key}`" not in row] == []


def test_a_model_without_calls_says_what_to_do(load):
    """Tools are refused with advice; in raw text and beside a schema there is no place for them."""
    session = load(template=PLAIN_TEMPLATE)
    assert session.info["tools"] is False
    with pytest.raises(ValueError, match="Leave tools out"):
        session.submit("x", {"prompt": "x", "tools": [WEATHER]})
    for wrong in ({"raw": True}, {"json_schema": {"type": "object"}}):
        with pytest.raises(ValueError, match="Tools cannot be used here"):
            session.submit("x", {"prompt": "x", "tools": [WEATHER], **wrong})
    with pytest.raises(ValueError, match=r"tools\.0\.function\.name"):
        session.submit("x", {"prompt": "x", "tools": [{"type": "function", "function": {}}]})
    assert not session.busy


def test_what_is_thought_stays_in_raw_text(load):
    """Raw text is all the model says."""
    pieces = ["<think>", "Hm.", "</think>", "Yes."]
    session = load(script={"<|agent|>": pieces})
    _, result = ask(session, prompt="<|agent|>", raw=True)
    assert result["text"] == "".join(pieces)
    assert "reasoning" not in result
