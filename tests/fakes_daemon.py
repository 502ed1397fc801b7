"""Fakes for the daemon's inner parts: tasks made of a function, models made of a script, a clock that is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from daemon.context import World
from daemon.events import Hub
from daemon.executor import Executor
from daemon.verdicts import Policy
from jobs.errors import InvalidParams, JobCancelled, UnknownTask
from jobs.ledger import Ledger
from jobs.model import Job, Lane


class FakeClock:
    """A wall clock and a monotonic one that move only when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
        self.seconds = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


class AnyParams(BaseModel):
    """Takes whatever is given, except what is called ``wrong``."""

    model_config = ConfigDict(extra="allow")
    wrong: None = None


class FunctionTask:
    """A task made of a function."""

    summary = "A function."
    params = AnyParams

    def __init__(self, name: str, run: Callable[[Any, AnyParams], Mapping[str, Any]]) -> None:
        self.name = name
        self._run = run

    def run(self, ctx: Any, params: AnyParams) -> Mapping[str, Any]:
        return self._run(ctx, params)


class ScriptedCall:
    """A call that ends when it is told to, or at once with *outcome*."""

    def __init__(self, outcome: dict[str, Any] | Exception | None) -> None:
        self._outcome = outcome
        self._ended = threading.Event()
        self.cancelled = False
        if outcome is not None:
            self._ended.set()

    def end(self, outcome: dict[str, Any] | Exception) -> None:
        self._outcome = outcome
        self._ended.set()

    def result(self) -> dict[str, Any]:
        assert self._ended.wait(20), "the call never ended"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def cancel(self) -> None:
        self.cancelled = True
        if not self._ended.is_set():
            self.end(JobCancelled())


class FakeModels:
    """Leases on nothing; every submitted request gets the next scripted outcome (None: stays under way)."""

    def __init__(self, *outcomes: dict[str, Any] | Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[ScriptedCall] = []
        self.leased = 0
        self.released = 0
        self.requests: list[Mapping[str, Any]] = []
        self.alone: list[bool] = []
        self.submitted = threading.Event()
        self.info: Mapping[str, Any] = {"fake": True}
        self.ref = "fake"

    def acquire(
        self,
        ref: str | None,
        runtime: str,
        *,
        lane: Lane,
        cancelled: Any = None,
        on_progress: Any = None,
        recall: Any = None,
        draft_model: str | None = None,
    ) -> Any:
        if cancelled is not None and cancelled.is_set():
            raise JobCancelled
        if on_progress is not None:
            on_progress(f"loading {ref or runtime}")
        self.leased += 1
        return self

    @property
    def engine(self) -> FakeModels:
        return self

    def submit(self, request: Mapping[str, Any], *, on_event: Any = None, alone: bool = False) -> ScriptedCall:
        self.requests.append(request)
        self.alone.append(alone)
        call = ScriptedCall(self.outcomes.pop(0) if self.outcomes else None)
        self.calls.append(call)
        self.submitted.set()
        return call

    def release(self) -> None:
        self.released += 1


class Bench:
    """An executor with a real ledger and everything else at hand."""

    def __init__(self, folder: Path, *, models: FakeModels | None = None, policy: Policy | None = None) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(folder / "ledger.sqlite3", clock=self.clock)
        self.hub = Hub()
        self.models = models or FakeModels()
        self.tasks: dict[str, FunctionTask] = {}
        self.settings: dict[str, Mapping[str, Any]] = {}
        self.defaults: dict[str, Mapping[str, Any]] = {}
        self.ended: list[Job] = []
        self.again: list[Job] = []
        #: How often somebody was asked to look for a job.
        self.astray = 0
        self.world = World(
            ledger=self.ledger,
            hub=self.hub,
            models=self.models,
            task=self._task,
            parse=self._parse,
            settings=lambda task: self.settings.get(task, {}),
            defaults=lambda task: self.defaults.get(task, {}),
            results=folder / "results",
            monotonic=self.clock.monotonic,
        )
        self.executor = Executor(
            world=self.world,
            owner="me",
            clock=self.clock,
            ended=self.ended.append,
            again=self.again.append,
            astray=self._went_astray,
            policy=policy or Policy(max_crashes=3, backoff=lambda failures: 10.0 * (failures + 1)),
        )

    def _went_astray(self) -> None:
        self.astray += 1

    def task(self, name: str, run: Callable[[Any, Any], Mapping[str, Any]]) -> None:
        self.tasks[name] = FunctionTask(name, run)

    def _task(self, name: str) -> FunctionTask:
        if name not in self.tasks:
            raise UnknownTask(f"no task {name}")
        return self.tasks[name]

    def _parse(self, name: str, params: Mapping[str, Any]) -> BaseModel:
        try:
            return self._task(name).params.model_validate(params)
        except ValidationError as error:
            raise InvalidParams(str(error)) from error

    def close(self) -> None:
        self.hub.close()
        self.ledger.close()
