"""The gate: what must wait waits at no cost, what may go on goes on, and no hint is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes_daemon import Bench, FakeModels

from daemon.conditions.gate import Gate
from daemon.conditions.policy import Fact, Facts
from daemon.conditions.readers import Readings
from daemon.config.lanes import LaneConfig
from daemon.dispatcher import Dispatcher
from jobs.errors import LedgerUnavailable
from jobs.model import Job, Lane, NewJob, State

BATTERY = Facts(mains=False, battery=34)
MAINS = Facts(mains=True)
PATIENCE = 10.0


class FakeQueue:
    """Hints in a list."""

    def __init__(self) -> None:
        self.hints: list[str] = []

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0, need: str = "") -> None:
        if job_id not in self.hints:
            self.hints.append(job_id)

    def hinted(self, job_id: str, *, lane: Lane) -> bool:
        return job_id in self.hints


class House:
    """A bench whose batch lane runs on mains power only, and everything around the gate."""

    def __init__(self, folder: Path, *, models: FakeModels | None = None, **lane: Any) -> None:
        self.bench = Bench(folder, models=models)
        self.lanes = {Lane.BATCH: LaneConfig.model_validate(lane or {"power": "mains"})}
        self.facts = BATTERY
        self.reads = 0
        self.held_back: list[Job] = []
        self.queue = FakeQueue()
        self.gate = Gate(
            lanes=lambda: self.lanes,
            ledger=self.bench.ledger,
            readings=Readings(self._read, monotonic=self.bench.clock.monotonic),
            clock=self.bench.clock,
            held_back=self.held_back.append,
        )
        self.executor = self.bench.executor
        self.executor._gate = self.gate
        self.dispatcher = Dispatcher(
            ledger=self.bench.ledger,
            queue=self.queue,
            executor=self.executor,
            clock=self.bench.clock,
            held=self.gate.held,
        )
        self.gate._runs, self.gate._put = self.executor, self.dispatcher.put
        self.bench.task("t", lambda ctx, params: {})

    def _read(self, wanted: frozenset[Fact]) -> Facts:
        self.reads += 1
        return self.facts

    def add(self, lane: Lane = Lane.BATCH, **more: Any) -> Job:
        return self.bench.ledger.add(NewJob(task="t", lane=lane, **more))[0]

    def state(self, job: Job) -> tuple[State, int]:
        now = self.bench.ledger.get(job.id)
        return now.state, now.attempts

    def work(self) -> None:
        """Do what a worker does: take each hint once."""
        hints = list(self.queue.hints)
        self.queue.hints.clear()
        for hint in hints:
            self.executor.execute(hint)

    def close(self) -> None:
        self.gate.stop()
        self.bench.close()


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def until(true: Callable[[], Any], patience: float = PATIENCE) -> None:
    deadline, nothing = time.monotonic() + patience, threading.Event()
    while not true():
        assert time.monotonic() < deadline
        nothing.wait(0.005)


def test_a_job_waits_at_no_cost_and_says_why(house: House) -> None:
    """On battery the job stays queued with no attempt spent, and says why, to whoever asks and to followers."""
    job = house.add()
    house.executor.execute(job.id)

    assert house.state(job) == (State.QUEUED, 0)
    assert house.gate.why(house.bench.ledger.get(job.id)) == "on battery (34 %), goes on at mains power"
    assert [each.waiting for each in house.held_back] == ["on battery (34 %), goes on at mains power"]
    assert house.gate.held() == {Lane.BATCH}


def test_other_lanes_go_on_unasked(house: House) -> None:
    """A lane without conditions runs, and nothing is read for it."""
    job = house.add(Lane.NORMAL)
    house.executor.execute(job.id)

    assert house.state(job) == (State.SUCCEEDED, 1)
    assert (house.reads, house.gate.held()) == (0, frozenset())


def test_what_was_held_back_gets_its_hint_when_the_lane_opens(house: House) -> None:
    """Back on mains every waiting job of the lane gets a hint, and then runs; nothing is said of waiting any more."""
    jobs = [house.add() for _ in range(3)]
    for job in jobs:
        house.executor.execute(job.id)
    house.gate._turn()
    assert house.queue.hints == [], "still on battery"
    house.facts = MAINS
    pause = house.gate._turn()

    assert house.queue.hints == [job.id for job in jobs]
    assert pause is None, "nothing waits: no more looks"
    house.work()
    assert {house.state(job) for job in jobs} == {(State.SUCCEEDED, 1)}
    assert house.gate.why(jobs[0]) is None


def test_a_held_lane_is_read_once_for_many_jobs(house: House) -> None:
    """A thousand hints of a held lane cost one reading."""
    jobs = [house.add() for _ in range(20)]
    for job in jobs:
        house.executor.execute(job.id)
    assert house.reads == 1


def test_the_dispatcher_leaves_held_lanes_alone(house: House) -> None:
    """The dispatcher's look puts no hints of a held lane, so that nothing goes round in circles; others it does."""
    held, free = house.add(), house.add(Lane.NORMAL)
    house.executor.execute(held.id)
    house.dispatcher.look()
    assert house.queue.hints == [free.id]


def test_looks_only_while_something_waits(house: House) -> None:
    """The lane is looked at every 30 s while a job waits; when that is cancelled, no more."""
    job = house.add()
    house.executor.execute(job.id)
    assert house.gate._turn() == 30.0
    house.bench.ledger.cancel(job.id)
    assert house.gate._turn() is None
    reads = house.reads
    assert house.gate._turn() is None
    assert house.reads == reads


def test_only_the_clock_needs_no_looks(tmp_path: Path) -> None:
    """Where only the time of day counts nothing is read; the next look is when it comes, in five minutes at most."""
    house = House(tmp_path, between="22:00-07:00")
    house.gate._zone = house.bench.clock.now.tzinfo
    job = house.add()
    house.executor.execute(job.id)
    assert house.gate._turn() == 300.0
    house.bench.clock.advance(9 * 3600 + 58 * 60)
    assert house.gate._turn() == 120.0
    (status,) = house.gate.status()
    assert status.until == house.bench.clock.now + timedelta(minutes=2)
    house.bench.clock.advance(120)
    house.gate._turn()

    assert (house.queue.hints, house.reads) == ([job.id], 0)
    house.close()


def test_a_late_hold_reopens(house: House) -> None:
    """A worker that notes the lane as held after the thread has opened it wakes the thread, which opens it again."""
    job = house.add()
    readings = house.gate._readings
    stale = readings(frozenset({Fact.POWER}))

    def late(wanted: frozenset[Fact], *, anew: bool = False) -> Facts:
        # Between this worker's reading and its note, the thread opens the lane for others.
        house.gate._readings = readings
        house.facts = MAINS
        house.gate._held[Lane.BATCH] = house.gate._judge(Lane.BATCH, house.lanes[Lane.BATCH])
        house.gate._open(Lane.BATCH)
        house.queue.hints.clear()
        return stale

    house.gate._readings = late  # type: ignore[assignment]
    house.executor.execute(job.id)
    assert house.state(job) == (State.QUEUED, 0)
    assert house.gate._woken
    house.gate._turn()
    assert house.queue.hints == [job.id]


def test_a_ledger_that_cannot_be_read_keeps_the_lane_held(house: House) -> None:
    """If the waiting jobs cannot be listed at the opening, the lane stays held and is tried again."""
    job = house.add()
    house.executor.execute(job.id)
    house.facts = MAINS
    ready = house.bench.ledger.ready

    def fail(*_: object, **__: object) -> list[Job]:
        raise LedgerUnavailable("disk full")

    house.bench.ledger.ready = fail  # type: ignore[method-assign]
    assert house.gate._turn() == 30.0
    assert house.gate.held() == {Lane.BATCH}
    house.bench.ledger.ready = ready  # type: ignore[method-assign]
    house.gate._turn()
    assert house.queue.hints == [job.id]


def test_a_reload_that_drops_the_condition_opens(house: House) -> None:
    """When the configuration no longer has the condition, a nudge lets the jobs go."""
    job = house.add()
    house.executor.execute(job.id)
    house.lanes = {}
    house.gate._turn()
    assert house.queue.hints == [job.id]


def test_delayed_jobs_wait_for_their_time_not_for_power(house: House) -> None:
    """A job that is not due yet does not keep the lane looked at, and does not say it waits for power."""
    later = house.add(not_before=house.bench.clock.now + timedelta(hours=1))
    house.executor.execute(later.id)
    assert house.gate.why(later) is None
    assert house.gate._turn() is None


def test_what_cannot_be_read_holds_nothing_back(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A machine that does not tell its power source runs the job, says so in the log once, and in the status."""
    house.facts = Facts()
    jobs = [house.add(), house.add()]
    for job in jobs:
        house.executor.execute(job.id)
    assert {house.state(job) for job in jobs} == {(State.SUCCEEDED, 1)}
    assert [status.unread for status in house.gate.status()] == [("power",)]
    said = [record for record in caplog.records if getattr(record, "action", "") == "condition_unread"]
    assert len(said) == 1


def running_house(folder: Path, **lane: Any) -> tuple[House, Job, threading.Thread]:
    """Return a house on mains with one job of the lane under way."""
    models = FakeModels(None)
    house = House(folder, models=models, **lane)
    house.facts = MAINS

    def run(ctx: Any, params: Any) -> dict[str, Any]:
        ctx.checkpoint({"page": 3})
        with ctx.models(None, runtime="lm") as model:
            got: dict[str, Any] = model.submit({}).result()
            return got

    house.bench.task("t", run)
    job = house.add()
    worker = threading.Thread(target=house.executor.execute, args=(job.id,))
    worker.start()
    assert models.submitted.wait(PATIENCE)
    return house, job, worker


def test_running_jobs_step_aside_if_asked(tmp_path: Path) -> None:
    """With ``stop``, unplugging sends the running job back with its checkpoint and its attempt, and it says why."""
    house, job, worker = running_house(tmp_path, power="mains", stop=True)
    assert house.gate._turn() == 30.0, "while it runs the lane is watched"
    house.facts = BATTERY
    house.bench.clock.advance(30)
    house.gate._turn()
    house.gate._turn()
    assert house.gate.held() == {Lane.BATCH}, "held from now on, though nothing is ready yet"
    worker.join(PATIENCE)

    assert house.state(job) == (State.QUEUED, 0)
    assert house.bench.ledger.checkpointed(job.id) == {"task": {"page": 3}}
    assert [each.id for each in house.bench.again] == [job.id], "it is handed back to the queue"
    house.executor.execute(job.id)
    assert house.gate.why(house.bench.ledger.get(job.id)) == "on battery (34 %), goes on at mains power"
    house.facts = MAINS
    house.gate._turn()
    assert house.queue.hints == [job.id]
    house.close()


def test_running_jobs_finish_otherwise(tmp_path: Path) -> None:
    """Without ``stop`` a running job goes on, unwatched."""
    house, job, worker = running_house(tmp_path, power="mains")
    house.facts = BATTERY
    house.bench.clock.advance(30)
    assert house.gate._turn() is None
    house.bench.models.calls[0].end({"text": "done"})
    worker.join(PATIENCE)
    assert house.state(job) == (State.SUCCEEDED, 1)
    house.close()


def test_a_lane_without_running_jobs_is_watched_no_more(tmp_path: Path) -> None:
    """When the last running job of a lane with ``stop`` has ended, nothing is looked at."""
    house, _, worker = running_house(tmp_path, power="mains", stop=True)
    house.bench.models.calls[0].end({"text": "done"})
    worker.join(PATIENCE)
    assert house.gate._turn() is None
    house.close()


def test_a_job_claimed_as_the_lane_closes_stops_at_once(tmp_path: Path) -> None:
    """A job that passed just before the lane was held is stopped when it begins, before its task runs."""
    house = House(tmp_path, power="mains", stop=True)
    house.facts = MAINS
    ran: list[int] = []
    house.bench.task("t", lambda ctx, params: ran.append(1) or {})
    job = house.add()
    claim = house.bench.ledger.claim

    def closing(job_id: str, owner: str, **_: object) -> Job | None:
        house.facts = BATTERY
        house.bench.clock.advance(30)
        house.gate._closed(Lane.BATCH, house.lanes)
        return claim(job_id, owner)

    house.bench.ledger.claim = closing  # type: ignore[method-assign]
    house.executor.execute(job.id)
    assert (house.state(job), ran) == ((State.QUEUED, 0), [])
    house.close()


def test_the_thread_opens_by_itself_and_ends(house: House) -> None:
    """Started, the thread sleeps, is woken by a held job, and after a nudge lets it go; it ends when told to."""
    house.gate.start(house.executor, house.dispatcher.put)
    job = house.add()
    house.executor.execute(job.id)
    assert house.gate.held() == {Lane.BATCH}
    house.facts = MAINS
    house.gate.nudge()
    until(lambda: house.queue.hints == [job.id])
    house.gate.stop()
    assert not house.gate._thread.is_alive()


def test_many_workers_and_a_flapping_cable(tmp_path: Path) -> None:
    """With four workers, a real thread and a cable that is pulled again and again, each job runs exactly once."""
    house = House(tmp_path)
    house.gate._readings = Readings(house._read, fresh=0.0)
    ran: list[str] = []
    house.bench.task("t", lambda ctx, params: ran.append(ctx.job.id) or {})
    hints: list[str] = []
    news = threading.Condition()
    over = threading.Event()

    def put(job: Job) -> None:
        with news:
            if job.id not in hints:
                hints.append(job.id)
                news.notify()

    def worker() -> None:
        while True:
            with news:
                news.wait_for(lambda: hints or over.is_set())
                if over.is_set():
                    return
                hint = hints.pop(0)
            house.executor.execute(hint)

    house.gate.start(house.executor, put)
    workers = [threading.Thread(target=worker) for _ in range(4)]
    for thread in workers:
        thread.start()
    jobs = []
    for number in range(30):
        house.facts = BATTERY if number % 3 else MAINS
        house.gate.nudge()
        jobs.append(house.add())
        put(jobs[-1])
    house.facts = MAINS
    house.gate.nudge()
    until(lambda: len(ran) >= len(jobs))
    over.set()
    with news:
        news.notify_all()
    for thread in workers:
        thread.join(PATIENCE)
    assert sorted(ran) == sorted(job.id for job in jobs)
    assert {house.state(job) for job in jobs} == {(State.SUCCEEDED, 1)}
    house.close()


class ShortMemory:
    """Memory that is as short as the test says."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.stopping = False

    def holds(self, lane: Lane) -> str | None:
        return self.reason if lane is Lane.BATCH else None

    def stops(self, lane: Lane) -> bool:
        return self.stopping and lane is Lane.BATCH


def test_short_memory_holds_a_lane_that_has_no_conditions(house: House) -> None:
    """The batch lane's jobs wait at no cost and say why; the other lanes go on; when there is enough, so do they."""
    house.lanes.clear()
    house.gate._memory = memory = ShortMemory()
    memory.reason = "memory is short"
    batch, person = house.add(), house.add(Lane.INTERACTIVE)
    house.dispatcher.put(batch)
    house.dispatcher.put(person)
    house.work()
    assert (house.state(batch), house.state(person)) == ((State.QUEUED, 0), (State.SUCCEEDED, 1))
    assert house.gate.why(house.bench.ledger.get(batch.id)) == "memory is short"
    assert [(one.lane, one.waiting) for one in house.gate.status()] == [(Lane.BATCH, "memory is short")]
    memory.reason = None
    house.gate._turn()
    house.work()
    assert house.state(batch) == (State.SUCCEEDED, 1)
    assert house.reads == 0, "nothing else of the machine was asked for"


def test_very_short_memory_lets_running_jobs_step_aside(house: House) -> None:
    """A job that has just begun stops at once, one that runs at the gate's next turn; none of it costs an attempt."""
    house.lanes.clear()
    house.gate._memory = memory = ShortMemory()
    asked: list[Lane] = []
    house.executor.step_aside = lambda lane: asked.append(lane) or 1  # type: ignore[method-assign, func-returns-value]
    memory.reason, memory.stopping = "memory is short", True
    house.gate._turn()
    assert asked == [Lane.BATCH]
    job = house.add()
    assert house.gate.must_stop(job)
    assert not house.gate.must_stop(house.add(Lane.NORMAL))
