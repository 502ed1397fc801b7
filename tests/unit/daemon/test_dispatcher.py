"""The dispatcher: every job that could run has a hint, whatever was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes_daemon import Bench

from daemon.dispatcher import Dispatcher
from jobs.errors import LedgerUnavailable
from jobs.model import Job, Lane, NewJob, State


class FakeQueue:
    """Hints in a list; `arrived` is set with each."""

    def __init__(self) -> None:
        self.hints: list[str] = []
        self.arrived = threading.Event()

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0) -> None:
        self.hints.append(job_id)
        self.arrived.set()

    def clear(self) -> None:
        self.hints.clear()

    def waiting(self) -> int:
        return len(self.hints)


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


def test_garbage_hints_do_not_hide_lost_ones(bench: Bench) -> None:
    """Hints that nobody needs are cleared away when real ones are missing."""
    queue = FakeQueue()
    queue.hints = ["garbage"]
    jobs = [add(bench), add(bench)]
    make(bench, queue).look()

    assert [job.id for job in jobs] == queue.hints


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
    counts = bench.ledger.counts

    def fail() -> dict[State, int]:
        raise LedgerUnavailable("the disk is full")

    bench.ledger.counts = fail  # type: ignore[method-assign]
    dispatcher._turn()
    assert dispatcher.problem == "the disk is full"
    bench.ledger.counts = counts  # type: ignore[method-assign]
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


def test_a_hint_that_comes_while_the_queue_is_mended_is_kept(bench: Bench) -> None:
    """A job that is put between the look at the ledger and the clearing of the queue is put again."""
    queue = FakeQueue()
    dispatcher = make(bench, queue)
    first = add(bench)
    late: list[str] = []
    clear = queue.clear

    def clearing() -> None:
        late.append(add(bench).id)
        dispatcher.put(bench.ledger.get(late[0]))
        clear()

    queue.clear = clearing  # type: ignore[method-assign]
    dispatcher.look()
    assert queue.hints == [first.id, *late]
