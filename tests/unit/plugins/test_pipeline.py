"""The tasks pipeline and memo, and the step machinery under them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext, asked, echo, hear, loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.errors import Interrupted, InvalidInput, InvalidParams, RequestFailed, RunnerDied, UnknownTask
from plugins.pipeline import Memo, MemoParams, Params, Pipeline
from plugins.steps import Given, Step, expand, names
from plugins.task import OnEvent

ASK = {"task": "generate", "params": {"prompt": "a {text}"}}


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "memo.flac"
    path.parent.mkdir()
    path.write_bytes(b"fLaC")
    return path


def run(ctx: FakeContext, **params: Any) -> dict[str, Any]:
    return Pipeline().run(ctx, Params(**params))


def given_all() -> Given:
    return Given(text="TEXT", file=Path("/f"), texts={"one": "ONE", "none": None})


def test_each_step_gets_the_text_of_the_one_before(tmp_path: Path, audio: Path) -> None:
    """Audio to transcript to answer: the result is the last step's, every step is summarised and has its file."""
    ctx = FakeContext(tmp_path / "out", lm=echo)
    steps = [
        {"task": "transcribe", "params": {"file": "{file}"}},
        {"task": "generate", "name": "title", "params": {"prompt": "Title: {text}"}},
        {"task": "generate", "params": {"prompt": "{steps.title.text} / {steps.transcribe.text}"}},
    ]
    result = run(ctx, steps=steps, file=audio)
    title = "TITLE: CALL ANNA ON MONDAY. BUY MILK."
    assert [asked(request) for request in ctx.lm.requests] == [
        "Title: Call Anna on Monday. Buy milk.",
        f"{title} / Call Anna on Monday. Buy milk.",
    ]
    assert result["text"] == f"{title} / CALL ANNA ON MONDAY. BUY MILK."
    assert [(step["name"], step["task"]) for step in result["steps"]] == [
        ("transcribe", "transcribe"),
        ("title", "generate"),
        ("generate", "generate"),
    ]
    assert result["steps"][0]["duration"] == 3.0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "memo.generate.txt",
        "memo.title.txt",
        "memo.transcribe.txt",
    ]
    steps_told = [told for told in ctx.told if told[2] == "steps"]
    assert steps_told[1] == (1, 3, "steps", "step 2 of 3: title")
    assert steps_told[-1] == (3, 3, "steps", "")


def test_what_a_step_remarks_is_kept(tmp_path: Path, audio: Path) -> None:
    """That a recording is cut short must not get lost because something else was made of its transcript."""
    ctx = FakeContext(tmp_path, whisper=lambda request, tell: {**hear(request, tell), "notes": ["It is cut short."]})
    result = Memo().run(ctx, MemoParams(file=audio))
    assert [step.get("notes") for step in result["steps"]] == [["It is cut short."], None]


def test_a_step_that_names_no_input_gets_the_obvious_one(tmp_path: Path, audio: Path) -> None:
    """The first step the file, the following ones the text; so a short pipeline needs no placeholders."""
    ctx = FakeContext(tmp_path, stem="x")
    run(ctx, steps=[{"task": "transcribe"}, {"task": "generate", "params": {"max_tokens": 5}}], file=audio)
    assert ctx.whisper.requests[0]["file"] == str(audio)
    assert asked(ctx.lm.requests[0]) == "Call Anna on Monday. Buy milk."
    run(FakeContext(tmp_path), steps=[{"task": "generate"}], text="hello")


def test_a_step_may_keep_its_files_to_itself(tmp_path: Path) -> None:
    """With output false only the last step's file appears."""
    run(FakeContext(tmp_path), steps=[{**ASK, "output": False}, ASK], text="b")
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.generate-2.txt"]


def test_replaced_text_is_not_looked_at_again() -> None:
    """What a model wrote may contain anything: it neither expands nor breaks on braces."""
    given_text = Given(text="{file} {steps.one.text} {0} {", file=Path("/f"), texts={"one": "ONE"})
    assert expand({"prompt": "<{text}> {unknown} {{}}"}, given_text) == {
        "prompt": "<{file} {steps.one.text} {0} {> {unknown} {{}}"
    }


@settings(deadline=None)  # a loaded machine is no finding
@given(st.text())
def test_any_text_survives_unchanged(text: str) -> None:
    """Plain replacement, whatever the characters."""
    assert expand({"prompt": "{text}"}, Given(text=text, file=None, texts={})) == {"prompt": text}


def test_placeholders_are_replaced_wherever_strings_are() -> None:
    """In lists and nested objects too; other values stay as they are."""
    params = {"messages": [{"role": "user", "content": "{text}"}], "stop": ["{steps.one.text}"], "seed": 3, "x": None}
    assert expand(params, given_all()) == {
        "messages": [{"role": "user", "content": "TEXT"}],
        "stop": ["ONE"],
        "seed": 3,
        "x": None,
    }


@pytest.mark.parametrize("key", ["file", "folder", "output", "model"])
def test_text_never_becomes_a_path(key: str) -> None:
    """A model's words must not choose which file is read or written, nor which model is loaded."""
    with pytest.raises(InvalidParams, match="text never becomes a path"):
        expand({key: "/home/{text}"}, given_all())
    assert expand({key: "{file}"}, given_all()) == {key: "/f"}


def test_a_placeholder_for_nothing_is_an_error() -> None:
    """Each says what is missing, rather than sending the placeholder to the model."""
    nothing = Given(text=None, file=None, texts={"none": None})
    for value, said in [
        ("{text}", "there is no text yet"),
        ("{file}", "the pipeline has no file"),
        ("{steps.two.text}", "no text of an earlier step 'two'"),
        ("{steps.none.text}", "no text of an earlier step 'none'"),
    ]:
        with pytest.raises(InvalidParams, match=said):
            expand({"prompt": value}, nothing)


def test_steps_are_named_after_their_tasks() -> None:
    """A second one of the same task gets its number."""
    steps = [Step(task="generate"), Step(task="generate"), Step(task="generate", name="last")]
    assert names(steps) == ["generate", "generate-2", "last"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"steps": []}, "at least 1 item"),
        ({"steps": [ASK]}, "step generate: prompt: {text} stands for nothing"),
        ({"steps": [{"task": "pipeline", "params": {"steps": [ASK]}}], "text": "a"}, "cannot be a step of a pipeline"),
        ({"steps": [{**ASK, "name": "a"}, {**ASK, "name": "a"}], "text": "a"}, "two steps have the same name"),
        (
            {"steps": [{"task": "generate", "params": {"prompt": "a", "top": 1}}]},
            "step generate: generate: top: there is",
        ),
        ({"steps": [ASK, {"task": "transcribe", "params": {}}], "text": "a"}, "step transcribe: transcribe: file"),
        ({"steps": [{"task": "generate", "params": {"prompt": "{steps.later.text}"}}]}, "earlier step 'later'"),
    ],
)
def test_every_step_is_checked_before_the_job_is_accepted(params: dict[str, Any], said: str) -> None:
    """The message names the step and what is wrong with it."""
    with pytest.raises(InvalidParams) as caught:
        loaded().validate("pipeline", params)
    assert said in caught.value.message


def test_a_step_of_an_unknown_task_blocks_the_pipeline() -> None:
    """It is what an unknown task is anywhere: Unavailable, so the job can wait for the plugin."""
    with pytest.raises(UnknownTask, match="'shout'"):
        loaded().validate("pipeline", {"steps": [{"task": "shout"}], "text": "a"})


def test_without_a_manager_the_form_is_still_checked() -> None:
    """The params model alone knows nothing of other tasks, but of placeholders."""
    Params.model_validate({"steps": [{"task": "shout"}], "text": "a"})
    with pytest.raises(ValidationError, match="stands for nothing"):
        Params.model_validate({"steps": [{"task": "shout"}]})


def test_a_crashed_pipeline_goes_on_at_the_next_step(tmp_path: Path) -> None:
    """Finished steps are in the checkpoint with their texts and are not run again."""

    def dies_at_second(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if "SAY" in asked(request):
            raise RunnerDied("gone")
        return echo(request, on_event)

    steps = [
        {"task": "generate", "name": "one", "params": {"prompt": "say {text}"}},
        {"task": "generate", "name": "two", "params": {"prompt": "{text} twice"}},
    ]
    first = FakeContext(tmp_path, lm=dies_at_second)
    with pytest.raises(RunnerDied, match=r"^gone$"):
        run(first, steps=steps, text="b")
    second = FakeContext(tmp_path, saved=first.saved, mine=first.intended)
    assert run(second, steps=steps, text="b")["text"] == "SAY B TWICE"
    assert [asked(request) for request in second.lm.requests] == ["SAY B twice"]


def test_a_checkpoint_of_other_steps_is_not_believed(tmp_path: Path) -> None:
    """Only as far as names and tasks agree; another version not at all."""
    before = {"version": 1, "steps": [{"name": "other", "task": "generate", "text": "X"}]}
    for saved in (before, {"version": 0}):
        ctx = FakeContext(tmp_path, saved=saved)
        run(ctx, steps=[ASK], text="b")
        assert len(ctx.lm.requests) == 1


def test_an_interrupted_pipeline_stops_between_steps(tmp_path: Path) -> None:
    """After a drain the first step is saved and the second is not begun."""
    ctx = FakeContext(tmp_path)
    ctx.on_checkpoint = lambda _: ctx.interrupt(Interrupted)
    with pytest.raises(Interrupted):
        run(ctx, steps=[ASK, ASK], text="b")
    assert len(ctx.lm.requests) == 1
    assert (ctx.saved or {})["steps"][0]["text"] == "A B"


def test_a_failing_step_is_named(tmp_path: Path) -> None:
    """The error keeps its class, so that it is retried or blocks as it would alone."""

    def fails(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        raise RequestFailed("too hard")

    with pytest.raises(RequestFailed, match="Step generate: too hard") as caught:
        run(FakeContext(tmp_path, lm=fails), steps=[ASK], text="b")
    assert caught.value.facts["step"] == "generate"


def test_a_context_that_lets_pydantic_speak_is_understood(tmp_path: Path) -> None:
    """Wrong parameters found only when the step runs are InvalidParams that name it."""
    ctx = FakeContext(tmp_path)

    def refuse(task: str, params: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {"text": Params.model_validate({"steps": 3})}

    ctx.run = refuse  # type: ignore[method-assign]
    with pytest.raises(InvalidParams, match="Step generate: steps: input should be a valid list"):
        run(ctx, steps=[ASK], text="b")


def test_a_step_without_text_cannot_feed_the_next(tmp_path: Path) -> None:
    """A task that returns no text is fine as long as nobody asks for it."""
    ctx = FakeContext(tmp_path)
    ctx.run = lambda task, params, **_: {"count": 3, "long": "x" * 999}  # type: ignore[method-assign]
    assert run(ctx, steps=[ASK], text="b") == {
        "text": None,
        "steps": [{"name": "generate", "task": "generate", "count": 3}],
    }
    with pytest.raises(InvalidParams, match="there is no text yet"):
        run(FakeContext(tmp_path, saved=ctx.saved), steps=[ASK, ASK], text="b")


def test_a_memo_becomes_transcript_and_action_items(tmp_path: Path, audio: Path) -> None:
    """Two files with names that say what they are; both texts in the result."""
    out = tmp_path / "out"
    ctx = FakeContext(out)
    result = Memo().run(ctx, MemoParams(file=audio, whisper="demo:whisper", lm="demo:lm", language="en", max_tokens=9))
    assert result["transcript"] == "Call Anna on Monday. Buy milk."
    assert result["text"] == "LIST THE ACTION ITEMS: CALL ANNA ON MONDAY. BUY MILK."
    assert ctx.lm.requests[0]["prompt"] == "List the action items:\nCall Anna on Monday. Buy milk."
    assert ctx.lm.requests[0]["max_tokens"] == 9
    assert ctx.whisper.requests[0]["language"] == "en"
    assert ctx.leases == [("whisper", "demo:whisper"), ("lm", "demo:lm")]
    assert (out / "memo.transcript.txt").read_text() == "Call Anna on Monday.\nBuy milk.\n"
    assert (out / "memo.actions.txt").read_text() == result["text"] + "\n"


def test_a_memo_is_named_by_its_stem_and_uses_the_default_models(tmp_path: Path, audio: Path) -> None:
    """As any job: the submitter's stem, the configured models, an instruction of one's own."""
    ctx = FakeContext(tmp_path, stem="monday", whisper=hear)
    Memo().run(ctx, MemoParams(file=audio, instruction="Who? {text}"))
    assert ctx.leases == [("whisper", None), ("lm", None)]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "monday.transcript.txt",
        "monday.actions.txt",
    }
    with pytest.raises(ValidationError, match="the transcript would be lost"):
        MemoParams(file=audio, instruction="Who?")


def test_a_memo_without_a_recording_costs_no_model(tmp_path: Path) -> None:
    """The file is looked at first."""
    ctx = FakeContext(tmp_path)
    with pytest.raises(InvalidInput, match="does not exist"):
        Memo().run(ctx, MemoParams(file=tmp_path / "nowhere.flac"))
    assert ctx.leases == []


def test_a_steps_calls_are_in_its_summary(tmp_path: Path) -> None:
    """A step may be given tools; what it calls stands with it in the result, and its text goes on."""
    tool = {"type": "function", "function": {"name": "f"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {}}}

    def lm(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        return {**echo(request, on_event), **({"tool_calls": [call]} if "tools" in request else {})}

    steps = [{"task": "generate", "name": "ask", "params": {"prompt": "a {text}", "tools": [tool]}}, ASK]
    result = run(FakeContext(tmp_path, lm=lm), steps=steps, text="b")
    assert result["text"] == "A A B"
    assert [step.get("tool_calls") for step in result["steps"]] == [[call], None]
