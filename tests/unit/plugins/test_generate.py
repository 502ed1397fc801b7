"""The task generate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext, asked, echo, hold, loaded
from pydantic import ValidationError

from jobs.errors import InputChanged, Interrupted, InvalidInput, InvalidParams, RequestFailed
from jobs.model import Placement
from plugins.generate import Generate, Params
from plugins.task import OnEvent


def run(ctx: FakeContext, **params: Any) -> dict[str, Any]:
    return Generate().run(ctx, Params(**params))


def says(text: str, reason: str = "stop") -> Any:
    """Return a script that answers *text*."""

    def script(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        return {"text": text, "finish_reason": reason, "completion_tokens": 1}

    return script


def test_a_prompt_is_answered_streamed_and_written(tmp_path: Path) -> None:
    """Tokens reach the follower, progress counts them, the file and the result hold the answer and its usage."""
    ctx = FakeContext(tmp_path)
    result = run(ctx, prompt="hello world", model="demo:lm", max_tokens=9)
    assert result["text"] == "HELLO WORLD"
    assert (result["model"], result["completion_tokens"], result["finish_reason"]) == ("demo:lm", 2, "stop")
    assert ctx.emitted == [("token", {"text": "HELLO ", "n": 1}), ("token", {"text": "WORLD ", "n": 2})]
    assert ctx.told == [(1.0, 9, "tokens", ""), (2.0, 9, "tokens", "")]
    assert (tmp_path / "reply.txt").read_text() == "HELLO WORLD\n"
    assert result["output"] == str(tmp_path / "reply.txt")
    assert ctx.leases == [("lm", "demo:lm")]
    assert ctx.leased == 0


def test_what_the_model_remarks_is_in_the_result(tmp_path: Path) -> None:
    """An answer that is not all it might be says so; the others say nothing."""
    told = FakeContext(tmp_path, lm=lambda request, tell: {**echo(request, tell), "notes": ["max_tokens was lowered."]})
    assert Generate().run(told, Params(prompt="a"))["notes"] == ["max_tokens was lowered."]
    assert "notes" not in Generate().run(FakeContext(tmp_path), Params(prompt="b"))


def test_a_long_prompt_tells_that_it_is_being_read(tmp_path: Path) -> None:
    """Before the first token there is something to see."""

    def script(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        on_event("prefill", {"done": 512, "total": 9000})
        return {"text": "a"}

    ctx = FakeContext(tmp_path, lm=script)
    run(ctx, prompt="a", max_tokens=5)
    assert ctx.told == [(0, 5, "tokens", "reading the prompt, 512 of 9000 tokens")]


def test_the_request_carries_every_choice(tmp_path: Path) -> None:
    """Nothing the submitter chose is lost on the way to the runtime, and no default model is invented."""
    ctx = FakeContext(tmp_path)
    result = run(
        ctx,
        prompt="a",
        system="Be brief.",
        max_tokens=3,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=7,
        stop="END",
    )
    assert ctx.lm.requests == [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
            "max_tokens": 3,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "seed": 7,
            "stop": ["END"],
            "json_schema": None,
            "stream": True,
        }
    ]
    assert ctx.leases == [("lm", None)]
    assert result["model"] == "fake:model"


def test_a_chat_is_sent_as_it_is(tmp_path: Path) -> None:
    """Several turns keep their order and roles; a system text goes before them."""
    ctx = FakeContext(tmp_path)
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    run(ctx, messages=chat, system="s")
    assert ctx.lm.requests[0]["messages"] == [{"role": "system", "content": "s"}, *chat]


def test_a_prompt_alone_is_sent_as_one(tmp_path: Path) -> None:
    """The runtime knows whether the model has a chat template; raw asks it to leave that out."""
    ctx = FakeContext(tmp_path)
    run(ctx, prompt="a")
    run(ctx, prompt="a", raw=True)
    assert [(one["prompt"], one.get("raw")) for one in ctx.lm.requests] == [("a", None), ("a", True)]


def test_a_text_file_is_the_prompt(tmp_path: Path) -> None:
    """Its text goes into the template literally, braces and all; the result is named after the file."""
    source = tmp_path / "in" / "note.txt"
    source.parent.mkdir()
    source.write_text("x {y} {text}\n")
    ctx = FakeContext(tmp_path / "out")
    run(ctx, file=source, template="Title of: {text}!")
    assert ctx.lm.requests[0]["prompt"] == "Title of: x {y} {text}!"
    assert (tmp_path / "out" / "note.txt").is_file()


def test_a_prompt_that_changed_while_it_was_read_costs_no_model(tmp_path: Path) -> None:
    """What was read is said as soon as it was; a prompt that lies in no file is not asked about."""
    (tmp_path / "note.txt").write_text("hello")
    ctx = FakeContext(tmp_path / "out")
    run(ctx, prompt="hello")
    assert ctx.inputs_read == 0
    ctx.input_changed = True
    with pytest.raises(InputChanged):
        run(ctx, file=tmp_path / "note.txt")
    assert len(ctx.lm.requests) == 1


def test_beside_its_input_the_result_has_a_name_of_its_own(tmp_path: Path) -> None:
    """The answer to note.txt is note.out.txt: the input is never touched, nor is an answer taken for an input."""
    source = tmp_path / "note.txt"
    source.write_text("hello")
    result = run(FakeContext(tmp_path, stem="note"), file=source)
    assert result["output"] == str(tmp_path / "note.out.txt")
    assert source.read_text() == "hello"


def test_the_submitter_names_the_result(tmp_path: Path) -> None:
    """By the parameter output, or by the job's stem."""
    assert run(FakeContext(tmp_path), prompt="a", output="b.md")["output"] == str(tmp_path / "b.md")
    assert run(FakeContext(tmp_path, stem="c"), prompt="a")["output"] == str(tmp_path / "c.txt")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "got none of them"),
        ({"prompt": "a", "file": "/b"}, "got prompt and file"),
        ({"prompt": " \n"}, "prompt is blank"),
        ({"prompt": ""}, "at least 1 character"),
        ({"prompt": "a", "template": "b"}, "no {text} in it"),
        ({"messages": [{"role": "user", "content": "a"}], "template": "{text}"}, "needs prompt or file"),
        ({"messages": [{"role": "system", "content": "a"}], "system": "b"}, "given twice"),
        ({"prompt": "a", "raw": True, "system": "b"}, "raw text has no turns"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "'system', 'user', 'assistant' or 'tool'"),
        ({"prompt": "a", "temperature": float("nan")}, "finite"),
        ({"prompt": "a", "max_tokens": 0}, "greater than or equal to 1"),
        ({"prompt": "a", "stop": [""]}, "at least 1 character"),
        ({"file": "note.txt"}, "absolute path"),
        ({"prompt": "x" * 10_000_001}, "at most 10000000 characters"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], said: str) -> None:
    """Before the job is accepted, in words."""
    with pytest.raises(ValidationError, match="(?s)" + said.replace("{", r"\{")):
        Params(**params)


def test_every_parameter_describes_itself() -> None:
    """Help texts and the OpenAPI schema are made of these descriptions; the schema itself can be made."""
    for name, task in loaded().tasks.items():
        properties = task.params.model_json_schema()["properties"]
        assert [key for key, value in properties.items() if "description" not in value] == [], name


def test_a_file_that_cannot_be_used_costs_no_model(tmp_path: Path) -> None:
    """The input is read before a model is leased: a bad file does not cause a cold start."""
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff")
    ctx = FakeContext(tmp_path)
    with pytest.raises(InvalidInput, match="offset 0"):
        run(ctx, file=bad)
    bad.write_bytes(b"x" * 11)
    with pytest.raises(InvalidInput, match="more than the 10 allowed"):
        run(ctx, file=bad, max_input_bytes=10)
    assert ctx.leases == []
    assert ctx.outputs == ()


def test_a_link_in_a_watched_folder_is_refused(tmp_path: Path) -> None:
    """What a person names is followed; what lies in a watched folder is not."""
    (tmp_path / "secret").write_text("hello")
    link = tmp_path / "note.txt"
    link.symlink_to(tmp_path / "secret")
    assert run(FakeContext(tmp_path / "out"), file=link)["text"] == "HELLO"
    with pytest.raises(InvalidInput, match="is a link"):
        run(FakeContext(tmp_path / "out", placement=Placement(input=link)), file=link)


def test_json_is_asked_for_checked_and_written(tmp_path: Path) -> None:
    """A schema is sent along; the parsed answer is in the result, the file is indented JSON."""
    ctx = FakeContext(tmp_path, lm=says('{"who": "Änne"}'))
    schema = {"type": "object", "properties": {"who": {"type": "string"}}}
    result = run(ctx, prompt="a", json_schema=schema)
    assert ctx.lm.requests[0]["json_schema"] == schema
    assert result["json"] == {"who": "Änne"}
    assert (tmp_path / "reply.json").read_text() == '{\n  "who": "Änne"\n}\n'


def test_format_json_alone_asks_for_any_object(tmp_path: Path) -> None:
    """Without a schema of its own the answer is held to be some JSON object."""
    ctx = FakeContext(tmp_path, lm=says("{}"))
    run(ctx, prompt="a", format="json")
    assert ctx.lm.requests[0]["json_schema"] == {"type": "object"}


def test_a_schema_may_come_from_a_file(tmp_path: Path) -> None:
    """An absolute path is read; what is no JSON object is refused with the reason."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "array"}))
    ctx = FakeContext(tmp_path, lm=says("[1]"))
    assert run(ctx, prompt="a", json_schema=str(path))["json"] == [1]
    assert ctx.lm.requests[0]["json_schema"] == {"type": "array"}
    path.write_text("{")
    with pytest.raises(InvalidInput, match="is not JSON"):
        run(ctx, prompt="a", json_schema=str(path))
    path.write_text("[]")
    with pytest.raises(InvalidInput, match="not a JSON Schema object"):
        run(ctx, prompt="a", json_schema=str(path))


def test_an_answer_that_is_not_json_fails_and_writes_nothing(tmp_path: Path) -> None:
    """Cut off by max_tokens it is the request's fault, and not tried again; otherwise the model's."""
    cut = FakeContext(tmp_path, lm=says('{"who":', reason="length"))
    with pytest.raises(InvalidParams, match="cut off after max_tokens=512"):
        run(cut, prompt="a", format="json")
    wrong = FakeContext(tmp_path, lm=says("Sure!"))
    with pytest.raises(RequestFailed, match="not JSON"):
        run(wrong, prompt="a", format="json")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_job_writes_nothing_and_gives_the_model_back(tmp_path: Path) -> None:
    """Whatever ends the request ends the job with it; the lease is over."""
    ctx = FakeContext(tmp_path, lm=hold)
    ctx.emit = lambda kind, data: ctx.interrupt(Interrupted)  # type: ignore[method-assign]
    with pytest.raises(Exception, match="cancelled"):
        run(ctx, prompt="a")
    assert ctx.leased == 0
    assert list(tmp_path.iterdir()) == []


TOOL = {"type": "function", "function": {"name": "f", "description": "It.", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"n": 1}}}


def test_tools_and_conversations_with_calls_are_sent(tmp_path: Path) -> None:
    """Tools in full, calls with their arguments as objects however they were written; not offered means not sent."""
    written = {**CALL, "function": {"name": "f", "arguments": '{"n": 1}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [written]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    ]
    ctx = FakeContext(tmp_path)
    for more in ({}, {"tool_choice": "none"}, {"parallel_tool_calls": False}):
        Generate().run(ctx, Params(messages=messages, tools=[TOOL], logit_bias={"5": -100}, logprobs=0, **more))
    first, without, single = ctx.lm.requests
    assert (first["tools"], first["logit_bias"], first["logprobs"]) == ([TOOL], {"5": -100.0}, 0)
    assert first["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert first["messages"][2] == {"role": "tool", "content": "7", "tool_call_id": "c1"}
    assert "tools" not in without
    assert ("parallel_tool_calls" in first, single["parallel_tool_calls"]) == (False, False)


def test_what_belongs_to_an_answer_lies_beside_it(tmp_path: Path) -> None:
    """Calls and probabilities in a file of their own; of very many probabilities only that file holds all."""
    line = {"token": 1, "text": "a", "logprob": -0.5, "top": [{"token": 1, "text": "a", "logprob": -0.5}]}

    def call(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        many = 3000 if "many" in asked(request) else 1
        return {**echo(request, on_event), "reasoning": "Hm.", "tool_calls": [CALL], "logprobs": [line] * many}

    few = Generate().run(FakeContext(tmp_path / "few", lm=call), Params(prompt="few", logprobs=1))
    many = Generate().run(FakeContext(tmp_path / "many", lm=call), Params(prompt="many", logprobs=1, output="a.txt"))
    assert (few["tool_calls"], few["reasoning"], few["logprobs"]) == ([CALL], "Hm.", [line])
    assert "logprobs" not in many
    kept = json.loads((tmp_path / "many" / "a.parts.json").read_text())
    assert (kept["tool_calls"], kept["reasoning"], len(kept["logprobs"])) == ([CALL], "Hm.", 3000)
    assert json.loads((tmp_path / "few" / "reply.parts.json").read_text())["logprobs"] == [line]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"tools": [TOOL], "format": "json"}, "tools and JSON do not go together"),
        ({"tools": [TOOL], "raw": True}, "raw text has no place for tools"),
        ({"tools": [{"type": "retrieval"}]}, "'function'"),
        ({"tool_choice": "required"}, "'auto' or 'none'"),
        ({"logit_bias": {"5": 200}}, "less than or equal to 100"),
        ({"logprobs": 21}, "less than or equal to 20"),
    ],
)
def test_tools_that_make_no_sense_are_refused(params: dict[str, Any], said: str) -> None:
    """Before the job is accepted, in words."""
    with pytest.raises(ValidationError, match=said):
        Params(prompt="a", **params)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "only the assistant makes tool_calls"),
        ({"role": "user"}, "content is missing"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "must be JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "dictionary"),
    ],
)
def test_a_turn_that_makes_no_sense_is_refused(turn: dict[str, Any], said: str) -> None:
    """The message says what the turn lacks."""
    with pytest.raises(ValidationError, match=said):
        Params(messages=[turn])
