"""The planner: what jobs need, what lines are told, what the model scheduler is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon.models.arrivals import loadable
from daemon.models.references import ResolvedModel
from daemon.models.wishes import NOBODYS, Outlook
from daemon.planner import Planner
from jobs.errors import ModelMissing
from jobs.model import ErrorInfo, Job, Lane, State
from jobs.storage import Place


class FakeModels:
    """A model scheduler that does nothing; `sizes` may hold an error."""

    def __init__(self) -> None:
        self.outlook = Outlook()
        self.nudges = 0
        self.sizes: dict[str, int | Exception] = {}
        self.barred_keys: set[str] = set()

    def nudge(self) -> None:
        self.nudges += 1

    def size(self, model: ResolvedModel) -> int:
        found = self.sizes.get(model.ref, 60)
        if isinstance(found, Exception):
            raise found
        return found

    def ready(self, *keys: str) -> None:
        self.outlook = Outlook(ready=dict.fromkeys(keys, NOBODYS))

    def barred(self, key: str) -> bool:
        return key in self.barred_keys


class Desk:
    """A planner, its models, and its background work, done when the test says so."""

    def __init__(self) -> None:
        self.models = FakeModels()
        self.now = 1000.0
        self.work: list[Callable[[], None]] = []
        self.pokes = 0
        self.resolved: list[str | None] = []
        self.held: set[Lane] = set()
        self.planner = Planner(
            models=self.models,
            asked=lambda task, params: ("lm", params["model"]) if task == "ask" else None,
            resolve=self._resolve,
            bounds=lambda: dict.fromkeys(Lane, 60.0),
            held=lambda lane: lane in self.held,
            clock=lambda: self.now,
            background=self.work.append,
        )
        self.planner.start(self._poke)

    def _poke(self) -> None:
        self.pokes += 1

    def _resolve(self, ref: str | None, runtime: str) -> ResolvedModel:
        self.resolved.append(ref)
        if ref == "missing":
            raise ModelMissing("not here")
        return ResolvedModel(ref=str(ref), runtime=runtime, path=Path("/models") / str(ref))

    def key(self, ref: str) -> str:
        return self.planner.need("ask", {"model": ref})

    def choose(self, *refs: str, lane: Lane = Lane.BATCH, out: tuple[str, ...] = ()) -> tuple[str | None, float | None]:
        heads: Mapping[str, Place] = {self.key(ref): (0, number) for number, ref in enumerate(refs)}
        return self.planner.choose(lane.value, heads, out)

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


@pytest.fixture(name="desk")
def _desk() -> Desk:
    return Desk()


def test_what_a_job_needs(desk: Desk) -> None:
    """The key of its first model; nothing for a task without one, a model that is not here, parameters that are odd."""
    assert desk.key("a") == ResolvedModel(ref="a", runtime="lm", path=Path("/models/a")).key
    assert desk.planner.need("other", {}) == ""
    assert desk.key("missing") == ""
    broken: Any = None
    assert desk.planner.need("ask", broken) == ""


def test_references_are_believed_for_a_moment(desk: Desk) -> None:
    """A backlog does not look up its model for each job; a moment later, or with new settings, it is asked again."""
    for _ in range(5):
        desk.key("a")
    desk.now += 2.0
    desk.key("a")
    desk.planner.forget()
    desk.key("a")
    assert desk.resolved == ["a"] * 3


def test_a_wish_reaches_the_scheduler_with_its_size(desk: Desk) -> None:
    """What no worker can take is wished for, once its size is known; and what the workers are busy with is demanded."""
    assert desk.choose("a", "b", out=(desk.key("c"),)) == (None, 30.0)
    assert desk.planner.wishes() == []
    desk.run()
    found = desk.planner.wishes()
    assert [(wish.model.ref, wish.lane, wish.need, wish.due) for wish in found] == [
        ("a", Lane.BATCH, 60, False),
        ("b", Lane.BATCH, 60, False),
    ]
    assert desk.planner.demand() == {desk.key(ref): Lane.BATCH for ref in "abc"}
    assert desk.models.nudges == 3
    desk.choose("a", "b", out=(desk.key("c"),))
    assert desk.models.nudges == 3  # nothing has changed


def test_the_most_urgent_lane_counts(desk: Desk) -> None:
    """A model that two lanes wait for is demanded by the more urgent one; wishes come in the order of lanes."""
    desk.choose("a", lane=Lane.BATCH)
    desk.choose("b", lane=Lane.INTERACTIVE)
    desk.choose("a", lane=Lane.NORMAL)
    desk.run()
    assert desk.planner.demand() == {desk.key("a"): Lane.NORMAL, desk.key("b"): Lane.INTERACTIVE}
    assert [wish.lane for wish in desk.planner.wishes()] == [Lane.INTERACTIVE, Lane.NORMAL, Lane.BATCH]


def test_a_ready_model_is_taken_and_no_longer_wished_for(desk: Desk) -> None:
    """Its jobs go, the others' wish becomes due at the bound."""
    desk.choose("a", "b")
    desk.models.ready(desk.key("a"))
    assert desk.choose("b", "a") == (desk.key("a"), 60.0)
    desk.run()
    assert [wish.model.ref for wish in desk.planner.wishes()] == ["b"]
    desk.now += 60.0
    desk.choose("b", "a")
    assert [(wish.due, wish.since) for wish in desk.planner.wishes()] == [(True, desk.now)]


def test_a_need_that_comes_while_all_are_busy_is_demanded(desk: Desk) -> None:
    """No worker asks then; the line says it."""
    desk.planner.waits("batch", desk.key("a"))
    desk.planner.waits("batch", "")
    assert desk.planner.demand() == {desk.key("a"): Lane.BATCH}


def test_what_cannot_be_sized_is_let_through(desk: Desk) -> None:
    """The job asks for the model itself and is told what is wrong; once the model is there it is planned again."""
    desk.models.sizes["a"] = ModelMissing("gone")
    assert desk.choose("a")[0] is None
    desk.run()
    assert desk.pokes == 1
    assert desk.choose("a") == (desk.key("a"), None)
    desk.models.ready(desk.key("a"))
    desk.choose("a")
    desk.models.outlook = Outlook()
    assert desk.choose("a")[0] is None


def test_no_model_is_loaded_for_a_lane_that_is_held(desk: Desk) -> None:
    """Its hints are taken as they come, for the gate to drop them, and nothing is wished for."""
    desk.held.add(Lane.BATCH)
    assert desk.choose("a", "b") == (desk.key("a"), None)
    desk.run()
    assert desk.planner.wishes() == []
    assert desk.planner.demand() == {}


def test_a_waiting_job_says_why(desk: Desk) -> None:
    """While its model is not there a queued job says what it waits for; when it is, or once it runs, nothing."""
    said = {"task": "ask", "params": {"model": "a"}, "id": "x", "seq": 1, "created_at": "2026-01-01T00:00:00Z"}
    queued = Job.model_validate(said)
    assert desk.planner.why(queued) == "a has to be loaded first"
    assert desk.planner.why(queued.model_copy(update={"state": State.RUNNING})) is None
    assert desk.planner.why(queued.model_copy(update={"task": "other"})) is None
    desk.models.ready(desk.key("a"))
    assert desk.planner.why(queued) is None


def job(number: int, key: str, kind: str = "model-unloadable") -> Job:
    error = ErrorInfo(type=kind, message="", facts={"key": key})
    return Job(task="t", id=f"job{number}", seq=number, created_at="2026-01-01T00:00:00Z", error=error)  # type: ignore[arg-type]


def test_blocked_jobs_go_on_when_their_model_can_be_loaded() -> None:
    """All of a model that is ready, the first of one that is to be tried again, none of one that is set aside."""
    models = FakeModels()
    models.ready("good")
    models.barred_keys.add("bad")
    blocked = [job(1, "good"), job(2, "bad"), job(3, "rested"), job(4, "good"), job(5, "rested"), job(6, "x", "other")]
    assert loadable(blocked, models) == ["job1", "job4", "job3"]
