"""Queued work on more models than fit: everything real from the ledger to the model scheduler, runners of a script.

Models are loaded in no time and requests take none; what counts is how often a model is loaded and in which order jobs
ran, and that is counted, not timed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fakes_daemon import AnyParams, FunctionTask
from fakes_engine import FakeEngine

from daemon.context import World
from daemon.dispatcher import Dispatcher
from daemon.events import Hub
from daemon.executor import Executor
from daemon.models import residency
from daemon.models.load_deaths import DeathPolicy
from daemon.models.references import ResolvedModel
from daemon.models.scheduler import ModelScheduler
from daemon.planner import Planner
from jobs.errors import JobCancelled, RunnerDied
from jobs.ledger import Ledger, utcnow
from jobs.model import Job, Lane, NewJob, State
from jobs.queue import JobQueue

PATIENCE = 30.0
#: What each model takes; so the budget says how many fit.
SIZE = 100


class Call:
    """A request that lasts until the house lets it go."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate
        self._cancelled = False

    def result(self) -> dict[str, Any]:
        assert self._gate.wait(PATIENCE)
        if self._cancelled:
            raise JobCancelled
        return {"text": "x"}

    def cancel(self) -> None:
        self._cancelled = True
        self._gate.set()


class ScriptedEngine(FakeEngine):
    """A runner without a process; says what it was asked, and dies while loading if it is told to."""

    def __init__(self, house: House, model: ResolvedModel, **more: Any) -> None:
        super().__init__(model, **more)
        self._house, self.ref = house, model.ref

    def start(self) -> None:
        self._house.loads.append(self.ref)
        if self.ref in self._house.deadly:
            raise RunnerDied(f"The runner of {self.ref} is gone: it was ended by SIGKILL.", exit=-9)

    def submit(self, request: dict[str, Any], **_: Any) -> Call:
        gate = self._house.gates.get(request["job"])
        if gate is None:
            gate = threading.Event()
            gate.set()
        return Call(gate)


def resolve(ref: str | None, runtime: str) -> ResolvedModel:
    return ResolvedModel(ref=ref or "a", runtime=runtime, path=Path("/models") / (ref or "a"))


class House:
    """Everything between a job's acceptance and its end, with room for *room* models; *planned* or as it came."""

    def __init__(
        self,
        folder: Path,
        *,
        room: int,
        planned: bool = True,
        bound: float = 1000.0,
        workers: int = 2,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.loads: list[str] = []
        self.ran: list[str] = []
        self.deadly: set[str] = set()
        self.gates: dict[str, threading.Event] = {}
        self.began: dict[str, threading.Event] = {}
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.models = ModelScheduler(
            resolve=resolve,
            runtimes={},
            spawn=lambda model, **more: ScriptedEngine(self, model, **more),
            budget=room * SIZE,
            sizes=lambda model: sizes.get(model.ref, SIZE),
            deaths=lambda: DeathPolicy(most=3, rest_s=1000.0),
        )
        task = FunctionTask("ask", self._run)
        world = World(
            ledger=self.ledger,
            hub=Hub(),
            models=self.models,
            task=lambda _: task,
            parse=lambda _, params: AnyParams.model_validate(params),
            settings=lambda _: {},
            defaults=lambda _: {},
            results=folder / "results",
        )
        self.executor = Executor(world=world, owner="me", clock=utcnow, ended=lambda _: None, again=self.put)
        self.planner = Planner(
            models=self.models,
            asked=lambda _, params: ("fake", params["model"]) if params else None,
            resolve=resolve,
            bounds=lambda: dict.fromkeys(Lane, bound),
        )
        order = self.planner if planned else None
        self.queue = JobQueue(
            folder / "queue.sqlite3", self.executor.execute, workers=dict.fromkeys(Lane, workers), order=order
        )
        if planned:
            self.planner.start(self.queue.poke)
            self.models.follow(self.planner, self.queue.poke)
        self.dispatcher = Dispatcher(
            ledger=self.ledger, queue=self.queue, executor=self.executor, clock=utcnow, need=self.planner.need
        )

    def _run(self, ctx: Any, params: Any) -> dict[str, Any]:
        self.began.setdefault(ctx.job.id, threading.Event()).set()
        with ctx.models(params.model, runtime="fake") as model:
            model.submit({"job": ctx.job.id}).result()
            self.ran.append(params.model)
        return {}

    def add(self, model: str, lane: Lane = Lane.BATCH, *, held: bool = False) -> Job:
        """Take a job in; a *held* one runs until `let_go`."""
        job = self.ledger.add(NewJob(task="ask", params={"model": model}, lane=lane))[0]
        if held:
            self.gates[job.id] = threading.Event()
        return job

    def put(self, job: Job) -> None:
        """Leave the hint."""
        self.dispatcher.put(job)

    def open(self) -> None:
        """Begin to work."""
        self.models.start()
        self.dispatcher.look()
        self.queue.start()

    def let_go(self, job: Job) -> None:
        self.gates[job.id].set()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, (self.ledger.counts(), self.loads, self.ran)
            time.sleep(0.002)

    def done(self) -> int:
        return self.ledger.counts()[State.SUCCEEDED]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.executor.drain(gently=False)
        self.models.stop(5)
        assert self.queue.stop(5)
        self.ledger.close()


Make = Callable[..., House]


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Iterator[Make]:
    made: list[House] = []

    def make(**more: Any) -> House:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(House(folder, **more))
        return made[-1]

    yield make
    for house in made:
        house.close()


def backlog(house: House, count: int = 60) -> None:
    """Take in jobs that ask for three models in turn, and do them all."""
    for number in range(count):
        house.add("abc"[number % 3])
    house.open()
    house.until(lambda: house.done() == count)


@pytest.mark.parametrize("room", [1, 2])
def test_a_backlog_over_three_models_loads_each_once(make: Make, room: int) -> None:
    """Sixty interleaved jobs, room for one or two models: three loads, where it was about one for every job."""
    before, after = make(room=room, planned=False), make(room=room)
    backlog(before)
    backlog(after)
    assert after.loads == ["a", "b", "c"]
    assert len(before.loads) > 5 * len(after.loads)


def test_within_a_model_the_order_stays(make: Make) -> None:
    """With one worker, jobs of one model run as they came, and models in the order of their first job."""
    house = make(room=1, workers=1)
    backlog(house, 30)
    assert house.ran == ["a"] * 10 + ["b"] * 10 + ["c"] * 10


def test_a_bound_of_nothing_keeps_the_order(make: Make) -> None:
    """Who may not be overtaken at all runs in the order of acceptance, whatever that costs."""
    house = make(room=1, workers=1, bound=0.0)
    backlog(house, 12)
    assert house.ran == list("abc" * 4)


def test_an_overtaken_job_comes_to_its_turn_at_the_bound(make: Make) -> None:
    """Jobs for the resident model that never end to come do not keep another's waiting beyond the bound.

    Of those, one that a worker has just taken when room is made gets its model once more.
    """
    house = make(room=1, workers=1, bound=0.2)
    first = house.add("a", held=True)
    house.open()
    house.until(lambda: first.id in house.began)
    waits = house.add("b")
    house.put(waits)
    overtaking = [house.add("a") for _ in range(3)]
    for job in overtaking:
        house.put(job)
    house.let_go(first)

    def another() -> bool:
        house.put(house.add("a"))  # there is always one more
        return house.ledger.get(waits.id).state is State.SUCCEEDED

    house.until(another)
    assert house.loads[: house.loads.index("b")] in (["a"], ["a", "a"])
    assert len(house.ran) > 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_somebody_is_always_served(make: Make, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Every lane waits for models of which hardly two fit, and everybody has waited too long: all is done all the same.

    What comes for one lane was given up for the next before anybody had used it, thousands of times a minute.
    """
    monkeypatch.setattr(residency, "PATIENCE_S", 0.2)
    chance = random.Random(seed)
    house = make(room=6, workers=3, bound=0.3, sizes={"a": 120, "b": 160, "c": 200, "d": 240, "e": 370})
    jobs = [house.add(chance.choice("aabbccdde"), chance.choice(list(Lane))) for _ in range(250)]
    house.open()
    house.until(lambda: house.done() == len(jobs))
    assert len(house.loads) <= len(jobs)


def test_who_waits_for_a_model_holds_no_worker(make: Make) -> None:
    """With one worker and room for no second model, a job of the resident one runs although another was first."""
    house = make(room=1, workers=1)
    pinned = house.add("a", Lane.NORMAL, held=True)
    house.open()
    house.until(lambda: pinned.id in house.began)
    waits, able = house.add("b"), house.add("a")
    house.put(waits)
    house.put(able)
    house.until(lambda: house.ledger.get(able.id).state is State.SUCCEEDED)
    assert house.ledger.get(waits.id).state is State.QUEUED
    house.let_go(pinned)
    house.until(lambda: house.done() == 3)


def test_a_person_waits_for_no_batch_job_of_another_model(make: Make) -> None:
    """In the middle of a backlog on other models an interactive job waits for its load alone; nothing is lost by it."""
    house = make(room=1, workers=2)
    jobs = [house.add("ab"[number % 2], held=number % 2 == 0) for number in range(20)]
    house.open()
    house.until(lambda: len(house.began) == 2)
    person = house.add("c", Lane.INTERACTIVE)
    house.put(person)
    house.until(lambda: house.ledger.get(person.id).state is State.SUCCEEDED)
    # Not one of the jobs that were running was let go: they stepped aside.
    assert house.ran[0] == "c"
    assert house.loads[:2] == ["a", "c"]
    for job in jobs[::2]:
        house.let_go(job)
    house.until(lambda: house.done() == 21)
    again = [house.ledger.get(job.id) for job in jobs[:3:2]]
    assert [(job.attempts, job.failures, job.crashes) for job in again] == [(1, 0, 0)] * 2


def test_a_job_that_keeps_nothing_steps_aside_once(make: Make) -> None:
    """A batch job that would begin anew each time is not made to for ever: the second person waits for its end."""
    house = make(room=1, workers=1)
    batch = house.add("a", held=True)
    house.open()
    house.until(lambda: batch.id in house.began)
    first = house.add("b", Lane.INTERACTIVE)
    house.put(first)
    house.until(lambda: house.ledger.get(first.id).state is State.SUCCEEDED)
    house.gates[batch.id].clear()
    house.until(lambda: house.loads[-1] == "a" and house.models.status()[0].leases == 1)
    second = house.add("b", Lane.INTERACTIVE)
    house.put(second)
    house.until(lambda: not house.models.outlook.opened(resolve("a", "fake").key, Lane.INTERACTIVE))
    assert house.ledger.get(batch.id).state is State.RUNNING
    house.let_go(batch)
    house.until(lambda: house.done() == 3)
    assert house.ran == ["b", "a", "b"]


def test_a_model_whose_loads_die_is_set_aside_and_not_its_jobs(make: Make) -> None:
    """Its whole backlog is blocked with what to do, at no cost; other models' jobs go on; then it is tried and done."""
    house = make(room=1)
    house.deadly.add("b")
    jobs = [house.add("ab"[number % 2]) for number in range(20)]
    house.open()
    house.until(lambda: house.ledger.counts()[State.BLOCKED] == 10 and house.done() == 10)
    assert house.loads.count("b") == 3
    stuck = [house.ledger.get(job.id) for job in jobs[1::2]]
    assert {(job.attempts, job.failures, job.crashes) for job in stuck} == {(0, 0, 0)}
    assert {job.error.type for job in stuck if job.error} == {"model-unloadable"}
    assert "mlxd models load b" in (stuck[0].error.message if stuck[0].error else "")

    house.deadly.clear()
    house.models.load("b", "fake")
    for job in house.ledger.unblock():
        house.put(job)
    house.until(lambda: house.done() == 20)


def test_a_model_that_died_once_is_loaded_again(make: Make) -> None:
    """Fewer deaths than that make no difference to anybody but by the time they take."""
    house = make(room=1)
    house.deadly.add("a")
    start = ScriptedEngine.start

    def second_time(engine: ScriptedEngine) -> None:
        try:
            start(engine)
        finally:
            house.deadly.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedEngine, "start", second_time)
        job = house.add("a")
        house.open()
        house.until(lambda: house.done() == 1)
    done = house.ledger.get(job.id)
    assert (done.attempts, done.crashes, house.loads) == (1, 0, ["a", "a"])


def test_hints_of_another_life_are_planned_too(make: Make, tmp_path: Path) -> None:
    """Hints outlive the daemon and do not say what they need: the first look finds out."""
    house = make(room=1, workers=1)
    for number in range(12):
        house.queue.put(house.add("abc"[number % 3]).id, lane=Lane.BATCH)
    house.open()
    house.until(lambda: house.done() == 12)
    assert house.loads == ["a", "b", "c"]


def test_a_job_on_no_known_model_waits_for_nobody(make: Make) -> None:
    """While every model is in use, what needs none runs."""
    house = make(room=1, workers=1)
    held = house.add("a", Lane.NORMAL, held=True)
    house.open()
    house.until(lambda: held.id in house.began)
    for model in "bc":
        house.put(house.add(model))
    free = house.ledger.add(NewJob(task="ask", params={}, lane=Lane.BATCH))[0]
    house.put(free)
    house.until(lambda: house.ledger.get(free.id).state is State.FAILED)  # it was asked for a model in vain: it ran
