"""OpenAI's Batch lines, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext, asked, echo

from jobs.errors import RequestFailed
from plugins.batch import Batch
from plugins.batch_params import Params
from plugins.items import from_jsonl
from plugins.openai_batch import CHAT, TEXT, parameters


def line(body: Any, *, url: str = CHAT, custom_id: str = "r1", **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more}


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def test_a_chat_request_becomes_an_item() -> None:
    """Roles, parts, limits and formats are translated; the model's name and what says nothing are left out."""
    body = chat(
        max_completion_tokens=9,
        temperature=0.2,
        seed=1,
        stop=None,
        n=1,
        tools=[],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    )
    body["messages"].insert(0, {"role": "developer", "content": [{"type": "text", "text": "Be "}, TEXT_PART]})
    assert parameters(line(body)) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.2,
        "seed": 1,
        "json_schema": {"type": "object"},
    }


TEXT_PART = {"type": "text", "text": "brief."}


def test_a_completion_is_raw_text() -> None:
    """What is to be continued gets no chat template; JSON may be asked for without a schema."""
    body = {"model": "m", "prompt": ["Once"], "response_format": {"type": "json_object"}}
    assert parameters(line(body, url=TEXT)) == {"prompt": "Once", "raw": True, "format": "json"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (line(chat(), url="/v1/embeddings"), "url must be"),
        ({**line(chat()), "method": "GET"}, "method must be POST"),
        (line("text"), "body is not a JSON object"),
        (line({"model": "m"}), "messages is missing"),
        (line(chat(n=2)), "n is not supported"),
        (line(chat(tool_choice="required")), "tool_choice is not supported"),
        (line(chat(top_logprobs=2)), "top_logprobs needs logprobs"),
        (line(chat(logprobs=2)), "logprobs must be true or false"),
        (line(chat(stream=True)), "stream is not supported"),
        (line(chat(max_tokns=5)), "max_tokns is not known"),
        (line(chat(response_format={"type": "grammar"})), "response_format 'grammar'"),
        (line({"messages": ["hi"]}), "a message is not a JSON object"),
        (line({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "parts that are no text"),
        (line({"messages": [{"role": "assistant", "content": None}]}), "a message has no text"),
        (line({"prompt": ["a", "b"]}, url=TEXT), "prompt must be one text"),
    ],
)
def test_what_cannot_be_done_is_said(wrong: dict[str, Any], said: str) -> None:
    """A line that asks for more than mlxd can do becomes an item with a problem, under its own id."""
    (item,) = from_jsonl(json.dumps(wrong), template=None)
    assert (item.id, item.url is not None) == ("r1", True)
    assert said in (item.problem or "")


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
WRITTEN = {**CALL, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def test_tools_biases_and_probabilities_are_translated() -> None:
    """A conversation with calls comes as OpenAI writes it; a choice that cannot be made is refused elsewhere."""
    body = chat(tools=[WEATHER], tool_choice="auto", logprobs=True, top_logprobs=2, logit_bias={"5": -100})
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [WRITTEN]},
        {"role": "tool", "tool_call_id": "c1", "content": "-3"},
    ]
    found = parameters(line(body))
    assert found["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [WRITTEN]}
    assert found["messages"][2] == {"role": "tool", "content": "-3", "tool_call_id": "c1"}
    assert (found["tools"], found["logprobs"], found["logit_bias"]) == ([WEATHER], 2, {"5": -100})
    assert "tool_choice" not in found
    assert parameters(line(chat(tools=[WEATHER], tool_choice="none")))["tool_choice"] == "none"
    assert parameters(line(chat(logprobs=True)))["logprobs"] == 0
    assert parameters(line({"prompt": "x", "logprobs": 3}, url=TEXT))["logprobs"] == 3


LINE = {"token": 1, "text": "Hi", "logprob": -0.5, "top": [{"token": 1, "text": "Hi", "logprob": -0.5}]}
HALF = {"token": 2, "text": "\ufffd", "logprob": -1.0, "top": []}


def test_calls_and_probabilities_are_answered_as_openai_writes_them(tmp_path: Path) -> None:
    """Arguments are JSON in a string, content is null beside calls alone; half a character has no bytes."""

    def script(request: Any, on_event: Any) -> dict[str, Any]:
        done = echo(request, on_event)
        if "tools" in request:
            done |= {"text": "", "tool_calls": [CALL], "reasoning": "Hm.", "finish_reason": "tool_calls"}
        return done | ({"logprobs": [LINE, HALF]} if "logprobs" in request else {})

    requests = [
        line(chat("say a", tools=[WEATHER]), custom_id="call"),
        line(chat("say b", logprobs=True, top_logprobs=1), custom_id="chat"),
        line({"prompt": "go on", "logprobs": 1}, custom_id="text", url=TEXT),
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, requests)))
    ctx = FakeContext(tmp_path / "out", lm=script)
    Batch(clock=lambda: 0.0).run(ctx, Params(file=file))
    lines = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    call, said, text = (one["response"]["body"]["choices"][0] for one in lines)

    assert call["message"] == {"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [WRITTEN]}
    assert call["finish_reason"] == "tool_calls"
    own = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert said["logprobs"]["content"] == [
        {**own, "top_logprobs": [own]},
        {"token": "\ufffd", "logprob": -1.0, "bytes": None, "top_logprobs": []},
    ]
    assert text["logprobs"] == {
        "tokens": ["Hi", "\ufffd"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"Hi": -0.5}, {}],
        "text_offset": [0, 2],
    }


def test_an_id_that_comes_twice_is_refused() -> None:
    """Nobody could tell the answers apart; the first keeps it."""
    items = from_jsonl("\n".join(json.dumps(line(chat(), custom_id=name)) for name in ("a", "b", "a")), template=None)
    assert [item.problem for item in items] == [None, None, "line 3 repeats the custom_id 'a' of line 1"]


def test_answers_come_in_the_same_format(tmp_path: Path) -> None:
    """Success, failure and a refused line: each under its custom_id, in the input's order, as OpenAI writes them."""

    def script(request: Any, on_event: Any) -> dict[str, Any]:
        if "never" in asked(request):
            raise RequestFailed("too hard")
        return echo(request, on_event)

    requests = [
        line(chat("say a"), custom_id="good"),
        line(chat("never"), custom_id="bad"),
        line(chat(n=3), custom_id="odd"),
        line({"prompt": "go on"}, custom_id="text", url=TEXT),
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, requests)))
    ctx = FakeContext(tmp_path / "out", lm=script)
    Batch(clock=lambda: 0.0).run(ctx, Params(file=file, model="demo:lm", system="s"))
    good, bad, odd, text = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())

    assert (good["id"], good["custom_id"], good["error"]) == (f"batch_req_{ctx.job.id}-1", "good", None)
    assert good["response"]["status_code"] == 200
    assert good["response"]["body"] == {
        "id": f"chatcmpl-{ctx.job.id}-1",
        "object": "chat.completion",
        "created": int(ctx.job.created_at.timestamp()),
        "model": "demo:lm",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": "SAY A"},
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 500)
    assert bad["error"] == {"code": "request-failed", "message": "too hard"}
    assert (odd["response"]["status_code"], odd["response"]["body"]["error"]["code"]) == (400, "invalid-input")
    assert (text["response"]["body"]["object"], text["response"]["body"]["choices"][0]["text"]) == (
        "text_completion",
        "GO ON",
    )
    raw = [request for request in ctx.lm.requests if request.get("raw")]
    assert [request["prompt"] for request in raw] == ["go on"]
