"""What the daemon can be asked for."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes_daemon import Bench, FunctionTask

from daemon.config.model import Config, ModelConfig, QueueConfig
from daemon.dispatcher import Dispatcher
from daemon.models.watermarks import RELAXED
from daemon.paths import find_home
from daemon.service import Service
from daemon.views import Condition, FolderStatus, LaneStatus, ModelStatus, ReloadReport, Residency, ServiceFacade
from jobs.errors import InvalidParams, JobConflict, LedgerUnavailable, QueueFull, UnknownTask
from jobs.files import explain
from jobs.model import ErrorInfo, Job, Lane, NewJob, State
from plugins.manager import PluginManager


class FakeQueue:
    """Hints in a list."""

    def __init__(self) -> None:
        self.hints: list[str] = []

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0, need: str = "") -> None:
        self.hints.append(job_id)

    def hinted(self, job_id: str, *, lane: Lane) -> bool:
        return job_id in self.hints


class FakeScheduler:
    """One resident model."""

    strain = RELAXED

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def status(self) -> list[ModelStatus]:
        return [ModelStatus(ref="m", runtime="lm", state=Residency.READY, pid=7, memory_bytes=100)]

    def load(self, ref: str, *, runtime: str | None = None, pin: bool | None = None) -> ModelStatus:
        self.asked.append((ref, runtime, pin))
        return self.status()[0]

    def unload(self, ref: str) -> bool:
        return ref == "m"


@dataclass
class Desk:
    """A service and what is behind it."""

    service: Service
    bench: Bench
    queue: FakeQueue
    models: FakeScheduler
    config: list[Config]
    stopped: list[int]
    #: How many submissions the service said it was writing down together, each time.
    taken: list[int]


@pytest.fixture(name="desk")
def _desk(tmp_path: Path) -> Iterator[Desk]:
    bench, queue, models, config, stopped = Bench(tmp_path), FakeQueue(), FakeScheduler(), [Config()], []
    taken: list[int] = []
    plugins = PluginManager(builtins=())
    noop = FunctionTask("noop", lambda ctx, params: {})
    plugins.tasks = {"noop": noop, "pull": FunctionTask("pull", lambda ctx, params: {})}  # type: ignore[dict-item]
    dispatcher = Dispatcher(ledger=bench.ledger, queue=queue, executor=bench.executor, clock=bench.clock)
    service = Service(
        home=find_home({"MLXD_HOME": str(tmp_path)}),
        config=lambda: config[0],
        ledger=bench.ledger,
        hub=bench.hub,
        plugins=plugins,
        models=models,  # type: ignore[arg-type]
        executor=bench.executor,
        dispatcher=dispatcher,
        reload=lambda: ReloadReport(changed=("log.level",)),
        shutdown=lambda: stopped.append(1),
        taking=taken.append,
    )
    facade: ServiceFacade = service
    assert facade is service
    yield Desk(service, bench, queue, models, config, stopped, taken)
    bench.close()


def test_submit_is_durable_then_hinted(desk: Desk) -> None:
    """A submitted job is in the ledger, has a hint, and followers hear of it; the same key gives the same job."""
    with desk.service.hub.subscribe() as events:
        job, created = desk.service.submit(NewJob(task="noop", idempotency_key="k"))
        again, created_again = desk.service.submit(NewJob(task="noop", idempotency_key="k"))
        event = events.get(5)

    assert (created, created_again, again.id) == (True, False, job.id)
    assert desk.queue.hints == [job.id]
    assert event.data["id"] == desk.service.get(job.id[:6]).id == job.id


def test_a_crowd_is_told_before_it_is_written_down(desk: Desk) -> None:
    """Who runs jobs hears how many come together, also of those that are refused: reading them cost its time."""
    told = desk.service.submit_all([NewJob(task="noop"), NewJob(task="nothing"), NewJob(task="noop")])
    assert desk.taken == [3]
    assert [isinstance(one, UnknownTask) for one in told] == [False, True, False]


def test_submit_refuses_what_cannot_run(desk: Desk) -> None:
    """An unknown task and wrong parameters are refused before anything is written; settings count as parameters."""
    with pytest.raises(UnknownTask):
        desk.service.submit(NewJob(task="nothing"))
    with pytest.raises(InvalidParams):
        desk.service.submit(NewJob(task="noop", params={"wrong": 1}))
    desk.config[0] = Config(tasks={"noop": {"wrong": 1}})
    with pytest.raises(InvalidParams):
        desk.service.submit(NewJob(task="noop"))

    assert desk.service.counts().get(State.QUEUED, 0) == 0


def test_full_and_stopping_queues_say_so(desk: Desk) -> None:
    """A queue at its limit, and a daemon that drains, refuse with QueueFull, and say when to come back."""
    desk.config[0] = Config(queue=QueueConfig(limit=1, retry_after_s=30))
    desk.service.submit(NewJob(task="noop"))
    with pytest.raises(QueueFull) as full:
        desk.service.submit(NewJob(task="noop"))
    (alike,) = desk.service.submit_all([NewJob(task="noop")])
    desk.service.drain()
    with pytest.raises(QueueFull, match="stopping") as stopping:
        desk.service.submit(NewJob(task="noop"))
    assert [error.facts["retry_after_s"] for error in (full.value, alike, stopping.value)] == [30, 30, 30]
    assert desk.service.health().status is Condition.DRAINING


def test_cancel_a_waiting_job(desk: Desk) -> None:
    """A waiting job is cancelled at once; a second time it is a conflict."""
    job, _ = desk.service.submit(NewJob(task="noop"))
    assert desk.service.cancel(job.id).state is State.CANCELLED
    with pytest.raises(JobConflict):
        desk.service.cancel(job.id)


def test_cancel_a_running_job_reaches_the_executor(desk: Desk) -> None:
    """A running job is asked to stop."""
    told: list[str] = []
    desk.bench.executor.cancel = lambda job_id: told.append(job_id) or True  # type: ignore[method-assign,func-returns-value]
    job, _ = desk.service.submit(NewJob(task="noop"))
    desk.bench.ledger.claim(job.id, "me")

    assert desk.service.cancel(job.id).cancel_requested
    assert told == [job.id]


def test_retry_repeats_an_ended_job(desk: Desk) -> None:
    """Terminal states do not change: a retry is a new job that names its parent and its origin."""
    job, _ = desk.service.submit(NewJob(task="noop", params={"a": 1}, idempotency_key="k"))
    desk.service.cancel(job.id)
    again = desk.service.retry(job.id)

    assert (again.parent, again.params, again.source.kind) == (job.id, {"a": 1}, "retry")
    assert again.id != job.id
    assert desk.service.get(job.id).state is State.CANCELLED


def test_retry_releases_a_quarantined_job(desk: Desk) -> None:
    """A quarantined job gets another chance as itself; a queued one cannot be retried."""
    job, _ = desk.service.submit(NewJob(task="noop"))
    with pytest.raises(JobConflict):
        desk.service.retry(job.id)
    claimed = desk.bench.ledger.claim(job.id, "me")
    desk.bench.ledger.crash(job.id, claimed.fence, _error(), limit=1)
    again = desk.service.retry(job.id)

    assert (again.id, again.state) == (job.id, State.QUEUED)


def test_reload_unblocks(desk: Desk) -> None:
    """After a reload blocked jobs try again."""
    job, _ = desk.service.submit(NewJob(task="noop"))
    claimed = desk.bench.ledger.claim(job.id, "me")
    desk.bench.ledger.block(job.id, claimed.fence, _error())
    desk.queue.hints.clear()

    assert desk.service.reload().changed == ("log.level",)
    assert desk.queue.hints == [job.id]


def test_models_pull_is_a_job(desk: Desk) -> None:
    """Load and unload go to the scheduler; a pull is a job like any other."""
    assert desk.service.load("m", runtime="lm", pin=True).ref == "m"
    assert desk.models.asked == [("m", "lm", True)]
    assert desk.service.unload("m")
    job = desk.service.pull("org/name")
    assert (job.task, job.params) == ("pull", {"model": "org/name"})
    desk.config[0] = Config(models={"writer": ModelConfig(path="org/writer")})
    assert desk.service.pull("writer").params == {"model": "org/writer"}, "an alias stands for its model"
    assert [model.ref for model in desk.service.models()] == ["m"]


def test_folders_come_from_the_watcher(desk: Desk, tmp_path: Path) -> None:
    """Without a watcher there are no folders; with one its problems degrade the health."""
    assert (desk.service.folders(), desk.service.rescan()) == ([], 0)
    status = FolderStatus(path=tmp_path, problem="no permission")
    desk.service.watch(SimpleNamespace(status=lambda: [status], rescan=lambda: 3))  # type: ignore[arg-type]

    assert (desk.service.folders(), desk.service.rescan()) == ([status], 3)
    health = desk.service.health()
    assert health.status is Condition.DEGRADED
    assert health.problems == (f"folder {tmp_path}: no permission",)


def test_health_survives_the_ledger(desk: Desk) -> None:
    """Health answers while the ledger does not, and says what is wrong, the configuration included."""

    def fail() -> dict[State, int]:
        raise LedgerUnavailable("disk full")

    assert desk.service.health().status is Condition.OK
    assert desk.service.health().memory.used_bytes == 100
    desk.bench.ledger.counts = fail  # type: ignore[method-assign]
    desk.service.config_problem = "config.toml: broken"

    assert desk.service.health().problems == ("config.toml: broken", "disk full")


def test_health_tells_of_an_interface_that_is_not_there(desk: Desk) -> None:
    """A daemon whose routes could not be loaded lives on, and health says why they fail and what to do."""
    desk.service.miss_routes(ImportError("no fastapi"))

    health = desk.service.health()
    assert health.status is Condition.DEGRADED
    assert "(ImportError: no fastapi). Install mlxd anew" in health.problems[0]


def test_only_jobs_whose_model_came_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was copied here by hand frees the jobs that wait for it, and no others."""
    waiting = []
    for model in ("here", "gone"):
        job, _ = desk.service.submit(NewJob(task="noop"))
        claimed = desk.bench.ledger.claim(job.id, "me")
        assert claimed is not None
        desk.bench.ledger.block(job.id, claimed.fence, ErrorInfo(type="model-missing", message="", facts={"m": model}))
        waiting.append(job.id)
    monkeypatch.setattr("daemon.service.arrived", lambda facts: facts["m"] == "here")
    desk.queue.hints.clear()

    assert desk.service.unblock_arrived() == 1
    assert [desk.service.get(job_id).state for job_id in waiting] == [State.QUEUED, State.BLOCKED]
    assert desk.queue.hints == waiting[:1]


def test_health_tells_of_a_ledger_that_only_reads(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk everything can still be read, but nothing is accepted: that is not well."""
    monkeypatch.setattr(type(desk.bench.ledger), "problem", "The disk is full.")
    health = desk.service.health()
    assert (health.status, health.problems) == (Condition.DEGRADED, ("The disk is full.",))


def test_views(desk: Desk) -> None:
    """Tasks have a schema, the configuration and the metrics are shown, shutdown is passed on."""
    assert [task.name for task in desk.service.tasks()] == ["noop", "pull"]
    assert desk.service.tasks()[0].params["type"] == "object"
    assert desk.service.plugins() == []
    assert desk.service.config()["queue"]["limit"] == 10_000
    assert 'mlxd_jobs{state="queued"} 0' in desk.service.metrics()
    assert desk.service.find() == []
    desk.service.shutdown()
    assert desk.stopped == [1]


def _error() -> Any:
    from jobs.model import ErrorInfo

    return ErrorInfo(type="x", message="y")


def test_find_passes_filters(desk: Desk) -> None:
    """Filters reach the ledger."""
    job, _ = desk.service.submit(NewJob(task="noop", lane=Lane.BATCH))

    def ids(**filters: Any) -> list[str]:
        found: list[Job] = desk.service.find(**filters)
        return [each.id for each in found]

    assert ids(lane=Lane.BATCH, task="noop") == [job.id]
    assert ids(states=(State.FAILED,)) == []


def test_a_held_job_says_why(desk: Desk) -> None:
    """What the gate says of a queued job is in the job wherever it is asked for, and in health; a reload nudges it."""
    nudges: list[int] = []
    status = LaneStatus(lane=Lane.BATCH, waiting="on battery")
    desk.service._lanes = SimpleNamespace(  # type: ignore[assignment]
        why=lambda job: "on battery" if job.lane is Lane.BATCH else None,
        status=lambda: [status],
        nudge=lambda: nudges.append(1),
    )
    held, _ = desk.service.submit(NewJob(task="noop", lane=Lane.BATCH))
    free, _ = desk.service.submit(NewJob(task="noop"))

    assert desk.service.get(held.id).waiting == "on battery"
    assert [job.waiting for job in desk.service.find()] == [None, "on battery"]
    assert desk.bench.ledger.get(held.id).waiting is None, "it is not written down"
    assert desk.service.get(free.id).waiting is None
    assert desk.service.health().lanes == (status,)
    desk.service.reload()
    assert nudges == [1]


def test_jobs_go_on_when_their_results_have_room(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health says at once why they wait; as many go on as there is room for; then health says nothing any more."""
    waiting = []
    for number in range(3):
        job, _ = desk.service.submit(NewJob(task="noop"))
        claimed = desk.bench.ledger.claim(job.id, "me")
        assert claimed is not None
        full = explain(OSError(errno.ENOSPC, "full"), tmp_path / str(number) / "a.txt", needs=1 << 20)
        error = ErrorInfo(type=full.slug, message=full.message, facts=full.facts)
        desk.service.note_blocked(desk.bench.ledger.block(job.id, claimed.fence, error))
        waiting.append(job.id)
    assert "the disk is full" in desk.service.health().problems[0]
    free = {"bytes": 0}
    monkeypatch.setattr("jobs.room._free", lambda _facts: free["bytes"])
    for room, left in ((0, 3), (3 << 20, 1), (2 << 20, 0)):
        free["bytes"] = room
        desk.service.unblock_arrived()
        assert [desk.service.get(job_id).state for job_id in waiting].count(State.BLOCKED) == left
        assert desk.service.waits_for_room == (left > 0)
    assert desk.service.health().problems == ()
