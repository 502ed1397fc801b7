"""Real runner processes: how lanes share a model's steps, seeds after a death, tools through the tasks."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes_models import tiny_llama
from fakes_scripts import WEATHER, scripted_llama
from fakes_tasks import FakeContext

from daemon.models.engine import Engine
from daemon.models.launch import Launch
from jobs.errors import InvalidRequest, RunnerDied
from jobs.model import Lane
from plugins.batch import Batch
from plugins.batch_params import Params as BatchParams
from plugins.generate import Generate
from plugins.generate import Params as GenerateParams

pytestmark = pytest.mark.models

#: Makes every token the same letter, so that each is told as it comes and nobody ends by himself.
ENDLESS = {"logit_bias": {"70": 100}, "prompt": "the cat"}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.fixture(name="run")
def _run():
    """Start runners; they end with the test."""
    engines = []

    def start(model: Path, **options) -> Engine:
        engines.append(Engine(Launch(runtime="lm", model=model, options=options, label="tiny")))
        engines[-1].start()
        return engines[-1]

    yield start
    for engine in engines:
        engine.stop(10)


def test_a_batch_gets_its_steps_beside_an_interactive_answer(run, tmp_path):
    """Of four steps it gets one at least, counted in tokens as they come over the wire, and ends first."""
    engine = run(tiny_llama(tmp_path / "m"), one_step_in={"batch": 4})
    told: list[tuple[str, int]] = []
    person = engine.submit(
        {**ENDLESS, "max_tokens": 400},
        on_event=lambda _, data: told.append(("person", data["n"])),
        lane=Lane.INTERACTIVE,
    )
    batch = engine.submit(
        {**ENDLESS, "max_tokens": 25}, on_event=lambda _, data: told.append(("batch", data["n"])), lane=Lane.BATCH
    )
    assert batch.result()["completion_tokens"] == 25
    assert person.result()["completion_tokens"] == 400
    places = [at for at, (who, _) in enumerate(told) if who == "batch"]
    assert [told[at][1] for at in places] == list(range(1, 26))
    assert places[-1] < len(told) - 100, "the interactive answer was not under way all the time"
    between = [second - first - 1 for first, second in itertools.pairwise(places)]
    # Three interactive steps between two of its own, not more and, as it is less urgent, not fewer.
    assert set(between) == {3}


def test_a_share_that_is_none_is_refused_when_the_model_is_loaded(tmp_path):
    """With a sentence that says what it has to be."""
    launch = Launch(runtime="lm", model=tiny_llama(tmp_path / "m"), options={"one_step_in": 1}, label="tiny")
    with pytest.raises(Exception, match="one_step_in has to be a number of at least 3"):
        Engine(launch).start()


def test_a_seed_is_worth_the_same_after_a_death(run, tmp_path):
    """The runner is killed in the middle of the answer; the next one draws the same text, beside others."""
    model, begun = tiny_llama(tmp_path / "m"), threading.Event()
    request = {"prompt": "the cat", "max_tokens": 600, "temperature": 1.3, "seed": 5, "logit_bias": {"1": -100}}
    engine = run(model)
    call = engine.submit(request, on_event=lambda *_: begun.set())
    assert begun.wait(60)
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(RunnerDied):
        call.result()
    engine = run(model)
    short = {**request, "max_tokens": 40}
    others = [engine.submit({**short, "seed": seed}) for seed in (6, 7)]
    again, third = engine.submit(short), engine.submit(short, lane=Lane.BATCH)
    text = again.result()["text"]
    assert third.result()["text"] == text
    assert all(other.result()["text"] != text for other in others)
    assert engine.submit(short).result()["text"] == text


class Through(FakeContext):
    """A task's world whose language model is a real runner."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        super().__init__(directory)
        self._engine = engine

    @contextmanager
    def models(self, ref, *, runtime):
        yield self

    @property
    def info(self):
        return {"ref": "tiny"}

    def submit(self, request, *, on_event=None, alone=None):
        return self._engine.submit(request, on_event=on_event, alone=bool(alone))


def test_tools_through_generate_and_batch(run, tmp_path):
    """The call is an event, in the result, and in a file beside the text; OpenAI's lines are answered in kind."""
    engine = run(scripted_llama(tmp_path / "m"))
    ctx = Through(tmp_path / "one", engine)
    result = Generate().run(ctx, GenerateParams(prompt="Is it cold in Oslo?", tools=[WEATHER]))
    assert (result["text"], result["finish_reason"]) == ("Letmesee.", "tool_calls")
    assert [call["function"] for call in result["tool_calls"]] == [CALL]
    assert [kind for kind, _ in ctx.emitted] == ["token", "token", "token", "tool_call"]
    assert json.loads((tmp_path / "one" / "reply.parts.json").read_text()) == {"tool_calls": result["tool_calls"]}

    (said,) = result["tool_calls"]
    written = {**said, "function": {**CALL, "arguments": json.dumps(CALL["arguments"])}}
    chat = [{"role": "user", "content": "Is it cold in Oslo?"}]
    after = [*chat, {"role": "assistant", "content": None, "tool_calls": [written]}]
    after += [{"role": "tool", "tool_call_id": said["id"], "content": "-3"}]
    bodies = [{"messages": messages, "tools": [WEATHER], "logprobs": True} for messages in (chat, after)]
    bodies += [{"messages": chat, "tools": [WEATHER], "tool_choice": "none"}]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Batch(clock=lambda: 0.0).run(Through(tmp_path / "out", engine), BatchParams(file=tmp_path / "in.jsonl"))
    answers = [
        json.loads(line)["response"]["body"]["choices"][0]
        for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    ]
    assert [answer["finish_reason"] for answer in answers] == ["tool_calls", "stop", "stop"]
    assert answers[0]["message"]["tool_calls"] == [written]
    assert answers[1]["message"] == {"role": "assistant", "content": "ItiscoldinOslo."}
    assert [line["token"] for line in answers[1]["logprobs"]["content"]] == ["It", "is", "cold", "in", "Oslo."]
    assert answers[2]["message"] == {"role": "assistant", "content": "Hellothere."}


def test_a_model_without_calls_refuses_tools(run, tmp_path):
    """The job fails with a sentence that says what to do; it is the request's fault and not tried again."""
    engine = run(tiny_llama(tmp_path / "m"))
    with pytest.raises(InvalidRequest, match="Leave tools out"):
        Generate().run(Through(tmp_path / "one", engine), GenerateParams(prompt="x", tools=[WEATHER]))
