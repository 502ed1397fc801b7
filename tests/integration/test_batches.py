"""Large batches on a real ledger and executor with a scripted model: interrupted, killed, continued, and held small."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes_daemon import FakeClock, FakeModels, ScriptedCall
from fakes_tasks import FakeContext, loaded

from daemon.context import World
from daemon.events import Hub
from daemon.executor import Executor
from jobs.database import connect
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, Placement, State
from plugins.batch import Batch
from plugins.batch_params import Params
from plugins.task import OnEvent

PROMPTS = 2000
MANY = 10_000


class Answering(FakeModels):
    """Answers at once and counts; *at* answers it calls *then*."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: Counter[str] = Counter()
        self.at = 0
        self.then: Any = None
        self.most_threads = 0
        self.most_files = 0
        self._lock = threading.Lock()

    def submit(
        self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool = False
    ) -> ScriptedCall:
        with self._lock:
            self.answered[str(request["prompt"])] += 1
            total = self.answered.total()
            if total % 500 == 0:
                self.most_threads = max(self.most_threads, threading.active_count())
                self.most_files = max(self.most_files, psutil.Process().num_fds())
        if total == self.at:
            self.then()
        text = str(request["prompt"]).upper()
        return ScriptedCall({"text": text, "finish_reason": "stop", "prompt_tokens": 2, "completion_tokens": 1})


def unsynced(path: Path) -> sqlite3.Connection:
    """Open the ledger without waiting for the disk: these tests end daemons, not power."""
    connection = connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    # Or the ledger would set it again.
    connection.set_authorizer(
        lambda _, name, *__: sqlite3.SQLITE_IGNORE if name == "synchronous" else sqlite3.SQLITE_OK
    )
    return connection


class Floor:
    """One home, and daemons that come and go on it."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.hub = FakeClock(), Hub()
        self.ledger = Ledger(folder / "ledger.sqlite3", clock=self.clock, connect=unsynced)
        self.models = Answering()
        self.out = folder / "out"

    def executor(self, owner: str) -> Executor:
        plugins = loaded()
        world = World(
            ledger=self.ledger,
            hub=self.hub,
            models=self.models,
            task=plugins.task,
            parse=plugins.parse,
            defaults=lambda _: {},
            settings=lambda _: {},
            results=self.out,
        )
        nothing = lambda _: None  # noqa: E731 - two listeners that do not listen
        return Executor(world=world, owner=owner, clock=self.clock, ended=nothing, again=nothing)

    def submit(self, count: int, **params: Any) -> Job:
        lines = "".join(json.dumps({"id": f"q{number}", "prompt": f"p{number}"}) + "\n" for number in range(count))
        file = self.out.parent / "prompts.jsonl"
        file.write_text(lines)
        new = NewJob(task="batch", params={"file": str(file), **params}, placement=Placement(directory=self.out))
        return self.ledger.add(new)[0]

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    # That each file is forced to the disk is proved elsewhere; here thousands are made.
    monkeypatch.setattr("jobs.files.Files.sync", lambda *_: None)
    floor = Floor(tmp_path)
    yield floor
    floor.hub.close()
    floor.ledger.close()


def check(floor: Floor, count: int) -> None:
    """See that every prompt has its own answer, in the input's order."""
    results = floor.results()
    assert [(line["id"], line["text"]) for line in results] == [(f"q{n}", f"P{n}") for n in range(count)]
    assert len(list((floor.out / "items").iterdir())) == count


def test_a_batch_interrupted_at_a_third_goes_on_without_repeating_a_prompt(floor: Floor) -> None:
    """2,000 prompts, a drain at the 667th answer, a new daemon: each prompt was answered exactly once in all."""
    job = floor.submit(PROMPTS)
    first = floor.executor("first")
    floor.models.at, floor.models.then = PROMPTS // 3, lambda: first.drain(gently=False)
    first.execute(job.id)
    stopped = floor.ledger.get(job.id)
    assert (stopped.state, stopped.attempts) == (State.QUEUED, 0)
    assert PROMPTS // 3 <= floor.models.answered.total() < PROMPTS // 2

    floor.executor("second").execute(job.id)
    done = floor.ledger.get(job.id)
    assert (done.state, done.attempts) == (State.SUCCEEDED, 1)
    assert set(floor.models.answered.values()) == {1}
    assert len(floor.models.answered) == PROMPTS
    assert done.result is not None
    assert (done.result["succeeded"], done.result["completion_tokens"]) == (PROMPTS, PROMPTS)
    check(floor, PROMPTS)


def test_a_batch_whose_daemon_died_repeats_only_what_was_not_on_disk(floor: Floor) -> None:
    """Killed between two checkpoints: what has its file is done, though the checkpoint does not know of it."""
    job = floor.submit(40)
    first = floor.executor("first")
    floor.models.at, floor.models.then = 20, lambda: first.drain(gently=False)
    first.execute(job.id)
    written = {path.stem for path in (floor.out / "items").iterdir()}
    claimed = floor.ledger.claim(job.id, "dead")
    assert claimed is not None
    floor.ledger.checkpoint(job.id, claimed.fence, {"task": {"version": 1, "model": None, "done": {}}})
    floor.ledger.recover("second")

    before = Counter(floor.models.answered)
    floor.executor("second").execute(job.id)
    assert floor.ledger.get(job.id).state is State.SUCCEEDED
    repeated = set((floor.models.answered - before).elements())
    assert repeated == {f"p{number}" for number in range(40)} - {f"p{int(stem) - 1}" for stem in written}
    check(floor, 40)


def test_ten_thousand_items_need_neither_as_many_threads_nor_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window bounds both; memory grows by the records of the items and not by their answers."""
    monkeypatch.setattr("jobs.files.Files.sync", lambda *_: None)
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{number}"}) + "\n" for number in range(MANY)))
    ctx, model = FakeContext(tmp_path / "out"), Answering()
    ctx.lm = model  # type: ignore[assignment]
    threads, files, memory = threading.active_count(), psutil.Process().num_fds(), psutil.Process().memory_info().rss
    result = Batch().run(ctx, Params(file=file, concurrency=32, format="text"))
    grown = psutil.Process().memory_info().rss - memory
    assert result["succeeded"] == MANY
    assert model.most_threads <= threads + 33
    assert model.most_files <= files + 40
    assert grown < 200_000_000
