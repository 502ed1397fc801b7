"""The dispatcher: every job that could run has a hint, whatever was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes_daemon import Bench

from daemon.dispatcher import Dispatcher
from daemon.verdicts import Policy
from jobs.claims import RETRY_WITHIN, Ready
from jobs.errors import LedgerUnavailable
from jobs.model import ErrorInfo, Job, Lane, NewJob, State
from jobs.queue import JobQueue


class FakeQueue:
    """Hints in a list; `arrived` is set with each."""

    def __init__(self) -> None:
        self.hints: list[str] = []
        self.arrived = threading.Event()

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0, need: str = "") -> None:
        self.hints.append(job_id)
        self.arrived.set()

    def hinted(self, job_id: str, *, lane: Lane) -> bool:
        return job_id in self.hints


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def make(bench: Bench, queue: FakeQueue, every: float = 1000.0) -> Dispatcher:
    return Dispatcher(ledger=bench.ledger, queue=queue, executor=bench.executor, clock=bench.clock, every=every)


def add(bench: Bench, **more: object) -> Job:
    return bench.ledger.add(NewJob(task="t", **more))[0]  # type: ignore[arg-type]


def test_lost_hints_are_put_again(bench: Bench) -> None:
    """A queue that lost its hints gets one for each job that could run, and a full one is left alone."""
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    jobs = [add(bench), add(bench)]
    dispatcher.look()
    dispatcher.look()

    assert [job.id for job in jobs] == queue.hints


def test_what_was_interrupted_goes_on_first(bench: Bench, tmp_path: Path) -> None:
    """A job that ran when the daemon died does not wait for those behind it, whose hints outlived the daemon."""
    running, waiting, urgent, behind = add(bench), add(bench), add(bench, priority=1), add(bench)
    order: list[str] = []
    done = threading.Event()

    def execute(job_id: str, _lane: Lane) -> None:
        order.append(job_id)
        if len(order) == 4:
            done.set()

    queue = JobQueue(tmp_path / "queue.sqlite3", execute, workers={Lane.NORMAL: 1})
    dispatcher = Dispatcher(ledger=bench.ledger, queue=queue, executor=bench.executor, clock=bench.clock)
    for job in (waiting, urgent, behind):  # the last one's hint is one that came while its job was being claimed
        dispatcher.put(job)
    for job in (running, behind):
        bench.ledger.claim(job.id, "the one before")
    bench.ledger.recover("me")
    dispatcher.look()
    queue.start()
    try:
        assert done.wait(20)
    finally:
        queue.stop(5)

    assert order == [urgent.id, running.id, behind.id, waiting.id]


def test_garbage_hints_do_not_hide_lost_ones(bench: Bench) -> None:
    """However many hints wait that lead nowhere, each job without one gets its own."""
    queue = FakeQueue()
    queue.hints = ["garbage", "more", "and more"]
    jobs = [add(bench), add(bench)]
    make(bench, queue).look()

    assert queue.hints[3:] == [job.id for job in jobs]


def test_retries_that_are_put_off_cost_no_look(bench: Bench) -> None:
    """Of many jobs that fail together none makes the thread go through the ledger before its time."""
    queue, looks = FakeQueue(), []
    dispatcher = Dispatcher(
        ledger=bench.ledger,
        queue=queue,
        executor=bench.executor,
        clock=bench.clock,
        arrivals=lambda: looks.append(1),
        every=1000.0,
    )
    first = add(bench)
    dispatcher.start()
    assert queue.arrived.wait(10)
    for _ in range(50):
        dispatcher.put(add(bench, not_before=bench.clock.now + timedelta(hours=1)))
    dispatcher.stop()
    assert queue.hints == [first.id]
    assert len(looks) == 1


def test_a_retry_does_not_wait_for_the_clock_on_the_wall_to_come_back(bench: Bench) -> None:
    """A clock that is set back by a day delays a retry by no day; what a person put off waits for its time."""
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    failing, told = add(bench), add(bench, not_before=bench.clock.now + timedelta(seconds=30))
    bench.ledger.claim(failing.id, "me")
    retry_at = bench.clock.now + timedelta(seconds=30)
    bench.ledger.fail(failing.id, 1, ErrorInfo(type="x", message="y"), retry_at=retry_at)
    dispatcher.look()
    assert queue.hints == []

    bench.clock.now -= timedelta(days=1)
    dispatcher.look()
    assert queue.hints == [failing.id]
    assert bench.ledger.next_due() == told.not_before
    assert bench.ledger.claim(failing.id, "me") is not None
    assert bench.ledger.claim(told.id, "me") is None


def test_no_retry_is_longer_than_the_ledger_allows(bench: Bench) -> None:
    """The executor's longest pause fits, with its jitter; a longer one of somebody else is cut."""
    longest = max(Policy().backoff(failures) for failures in range(200))
    assert timedelta(seconds=longest) < RETRY_WITHIN
    job = add(bench)
    bench.ledger.claim(job.id, "me")
    error, far = ErrorInfo(type="x", message="y"), bench.clock.now + timedelta(days=3)
    assert bench.ledger.fail(job.id, 1, error, retry_at=far).not_before == bench.clock.now + RETRY_WITHIN
    assert bench.ledger.ready() == []


def test_put_waits_until_due(bench: Bench) -> None:
    """A job that is not due gets no hint now; the thread wakes, sleeps until it is due, and then leaves the hint."""
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    later = add(bench, not_before=bench.clock.now + timedelta(seconds=0.05))
    dispatcher.put(later)
    assert queue.hints == []
    dispatcher.start()
    dispatcher.put(later)
    bench.clock.advance(1)

    assert queue.arrived.wait(10)
    dispatcher.stop()
    assert queue.hints == [later.id]


def test_put_ignores_jobs_that_are_not_queued(bench: Bench) -> None:
    """A job that was blocked or has ended gets no hint."""
    queue = FakeQueue()
    job = add(bench)
    make(bench, queue).put(bench.ledger.cancel(job.id))

    assert queue.hints == []


def test_own_orphans_are_taken_back(bench: Bench) -> None:
    """A job that this process holds in the ledger but does not run goes back to the queue at no cost."""
    queue = FakeQueue()
    job = add(bench)
    bench.ledger.claim(job.id, "me")
    make(bench, queue).look()

    back = bench.ledger.get(job.id)
    assert (back.state, back.attempts) == (State.QUEUED, 0)
    assert queue.hints == [job.id]


def test_each_turn_asks_for_arrivals(bench: Bench) -> None:
    """What blocked jobs wait for may come unannounced: the look that happens anyway asks."""
    asked: list[int] = []
    one = Dispatcher(
        ledger=bench.ledger,
        queue=FakeQueue(),
        executor=bench.executor,
        clock=bench.clock,
        arrivals=lambda: asked.append(1),
    )
    one._turn()
    assert asked == [1]


def test_unreadable_ledger_is_a_problem_that_passes(bench: Bench) -> None:
    """While the ledger cannot be read the dispatcher says why; when it can be again the problem is gone."""
    dispatcher = make(bench, FakeQueue())
    ready_ids = bench.ledger.ready_ids

    def fail(**_: object) -> list[Ready]:
        raise LedgerUnavailable("the disk is full")

    bench.ledger.ready_ids = fail  # type: ignore[method-assign]
    dispatcher._turn()
    assert dispatcher.problem == "the disk is full"
    bench.ledger.ready_ids = ready_ids  # type: ignore[method-assign]
    dispatcher._turn()
    assert dispatcher.problem is None


def test_stop_without_start(bench: Bench) -> None:
    """A dispatcher that never started can be stopped."""
    make(bench, FakeQueue()).stop()


def test_held_lanes_are_left_alone(bench: Bench) -> None:
    """Jobs of a lane that is held get no hint from the look; when it is held no more they do."""
    queue, held = FakeQueue(), {Lane.BATCH}
    dispatcher = Dispatcher(
        ledger=bench.ledger, queue=queue, executor=bench.executor, clock=bench.clock, held=lambda: held
    )
    waits, runs = add(bench, lane=Lane.BATCH), add(bench)
    dispatcher.look()
    assert queue.hints == [runs.id]
    held.clear()
    dispatcher.look()
    assert queue.hints == [runs.id, waits.id]


def test_a_job_that_went_astray_is_looked_for_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look does not wait for its usual time, nor does it come at once."""
    monkeypatch.setattr("daemon.dispatcher.ASTRAY_AFTER", 0.02)
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    dispatcher.start()
    job = add(bench)
    dispatcher.look_soon()
    bench.clock.advance(1)
    assert queue.arrived.wait(10)
    dispatcher.stop()
    assert job.id in queue.hints


def test_a_job_that_becomes_due_during_a_look_is_not_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time passes after the ready jobs were read: it gets its hint at once, not at the next usual look."""
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    job = add(bench, not_before=bench.clock.now + timedelta(seconds=5))
    read = bench.ledger.ready_ids

    def slow(**more: object) -> object:
        found = read(**more)  # type: ignore[arg-type]
        bench.clock.advance(10)
        return found

    monkeypatch.setattr(bench.ledger, "ready_ids", slow)
    dispatcher.start()
    assert queue.arrived.wait(10)
    dispatcher.stop()
    assert job.id in queue.hints
