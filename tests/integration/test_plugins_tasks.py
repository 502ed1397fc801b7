"""The shipped tasks in their real world: ledger, executor, context, output files. Only the models are scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_daemon import FakeClock
from fakes_tasks import FakeModel, asked, echo, hear, loaded

from daemon.context import World
from daemon.events import Hub
from daemon.executor import Executor
from daemon.verdicts import Policy
from jobs.errors import RunnerDied
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, Placement, State
from plugins.task import OnEvent


class Lease:
    def __init__(self, model: FakeModel) -> None:
        self.engine = model
        self.info = model.info
        self.ref = "fake"

    def release(self) -> None:
        """Nothing to give back."""


class Models:
    """Resident models that answer by script."""

    def __init__(self) -> None:
        self.lm = FakeModel(echo)
        self.whisper = FakeModel(hear)

    def acquire(self, ref: str | None, runtime: str, **_: Any) -> Lease:
        return Lease({"lm": self.lm, "whisper": self.whisper}[runtime])


class House:
    """A daemon's inside, with the tasks that ship."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(folder / "ledger.sqlite3", clock=self.clock)
        self.hub = Hub()
        self.plugins = loaded()
        self.models = Models()
        self.world = World(
            ledger=self.ledger,
            hub=self.hub,
            models=self.models,
            task=self.plugins.task,
            parse=self.plugins.parse,
            settings=lambda task: {},
            defaults=lambda task: {},
            results=folder / "results",
            monotonic=self.clock.monotonic,
        )
        self.executor = self.start("first")

    def start(self, owner: str) -> Executor:
        """Start the executor of another daemon process."""
        self.executor = Executor(
            world=self.world,
            owner=owner,
            clock=self.clock,
            ended=lambda job: None,
            again=lambda job: None,
            policy=Policy(),
        )
        return self.executor

    def add(self, task: str, placement: Placement | None = None, **params: Any) -> Job:
        valid = self.plugins.validate(task, params)
        return self.ledger.add(NewJob(task=task, params=valid, placement=placement or Placement()))[0]

    def run(self, job: Job) -> Job:
        self.executor.execute(job.id)
        return self.ledger.get(job.id)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "home")
    yield house
    house.hub.close()
    house.ledger.close()


def test_a_drained_batch_asks_each_item_once(house: House, tmp_path: Path) -> None:
    """Stopped in the middle and started again, the job costs one attempt, no item is done twice or lost."""
    prompts, out, many = tmp_path / "in", tmp_path / "out", 12
    prompts.mkdir()
    for number in range(many):
        (prompts / f"p{number:02d}.txt").write_text(f"say {number}")
    done, lock = [], threading.Lock()

    def drain_in_the_middle(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        with lock:
            done.append(asked(request))
            if len(done) == many // 2:
                house.executor.drain(gently=False)
        return echo(request, on_event)

    house.models.lm = FakeModel(drain_in_the_middle)
    job = house.add("batch", Placement(directory=out), folder=str(prompts), concurrency=1)
    drained = house.run(job)
    assert (drained.state, drained.attempts) == (State.QUEUED, 0)
    finished = {path.name for path in out.glob("*.out.txt")}
    assert 0 < len(finished) < many

    house.models.lm = FakeModel(echo)
    house.start("second")
    ended = house.run(job)
    assert (ended.state, ended.attempts, ended.result and ended.result["succeeded"]) == (State.SUCCEEDED, 1, many)
    again = {f"p{int(asked(request).split()[1]):02d}.out.txt" for request in house.models.lm.requests}
    assert again.isdisjoint(finished)
    assert len(again) + len(finished) == many
    assert len(list(out.iterdir())) == many + 1
    manifest = json.loads((out / "manifest.json").read_text())
    assert {item["status"] for item in manifest["items"]} == {"succeeded"}


def test_a_memo_whose_second_model_dies_listens_only_once(house: House, tmp_path: Path) -> None:
    """The transcript is kept over the crash; the second attempt asks the language model only."""
    audio = tmp_path / "memo.flac"
    audio.write_bytes(b"fLaC")

    def die(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        raise RunnerDied

    house.models.lm = FakeModel(die)
    job = house.add("memo", Placement(directory=tmp_path, stem="memo", input=audio), file=str(audio))
    assert house.run(job).crashes == 1
    house.models.lm = FakeModel(echo)
    ended = house.run(job)
    assert ended.state is State.SUCCEEDED
    assert len(house.models.whisper.requests) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "memo.actions.txt",
        "memo.flac",
        "memo.transcript.txt",
    ]


def test_generate_streams_to_whoever_follows(house: House) -> None:
    """Tokens and progress reach the hub, the answer the ledger and the disk."""
    job = house.add("generate", prompt="hello world")
    subscription = house.hub.subscribe(job.id)
    ended = house.run(job)
    assert ended.result is not None
    assert ended.result["text"] == "HELLO WORLD"
    assert [output.path.read_text() for output in ended.outputs] == ["HELLO WORLD\n"]
    kinds = []
    while (event := subscription.get(0)) is not None:
        kinds.append(event.kind)
    subscription.close()
    assert kinds.count("token") == 2
    assert "progress" in kinds


def test_a_pipeline_keeps_only_the_files_it_is_asked_to(house: House) -> None:
    """A step with output false leaves no file, its text still feeds the next step."""
    steps = [{"task": "generate", "output": False}, {"task": "generate", "name": "last"}]
    ended = house.run(house.add("pipeline", steps=steps, text="hello"))
    assert ended.result is not None
    assert ended.result["text"] == "HELLO"
    assert [output.path.name for output in ended.outputs] == ["pipeline.last.txt"]


def test_a_pipeline_whose_task_went_away_is_blocked(house: House) -> None:
    """It was accepted while the plugin was there; now it waits until it is back."""
    job = house.add("pipeline", steps=[{"task": "generate"}], text="hello")
    gone = loaded(disabled=["generate"])
    house.world.task, house.world.parse = gone.task, gone.parse
    blocked = house.run(job)
    assert blocked.state is State.BLOCKED
    assert blocked.error is not None
    assert blocked.error.type == "unknown-task"


def test_settings_of_the_configuration_reach_every_step(house: House) -> None:
    """What [tasks.generate] says holds for a pipeline's generate too, unless the step says otherwise."""
    house.world.defaults = lambda task: {"max_tokens": 7} if task == "generate" else {}
    steps = [{"task": "generate"}, {"task": "generate", "params": {"max_tokens": 3}}]
    house.run(house.add("pipeline", steps=steps, text="hello"))
    assert [request["max_tokens"] for request in house.models.lm.requests] == [7, 3]
