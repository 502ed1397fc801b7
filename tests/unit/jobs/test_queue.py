"""The queue: order, lanes, and what may not disturb it."""

from __future__ import annotations

import json
import logging
import queue as stdlib_queue
import signal
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

from jobs.model import Lane
from jobs.queue import TASK_NAME, HintSerializer, JobQueue
from jobs.storage import Place

PATIENCE = 20.0


class Recorder:
    """Notes what is executed; `hold` keeps executions waiting until `let_go`."""

    def __init__(self) -> None:
        self.started: stdlib_queue.Queue[str] = stdlib_queue.Queue()
        self.lanes: list[Lane] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, job_id: str, lane: Lane) -> None:
        self.started.put(job_id)
        self.lanes.append(lane)
        assert self.gate.wait(PATIENCE)

    def hold(self) -> None:
        self.gate.clear()

    def let_go(self) -> None:
        self.gate.set()

    def next(self) -> str:
        return self.started.get(timeout=PATIENCE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue's file lies."""
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def recorder() -> Recorder:
    """What executes."""
    return Recorder()


Make = Callable[..., JobQueue]


@pytest.fixture
def make(path: Path, recorder: Recorder) -> Iterator[Make]:
    """Makes queues and stops them in the end."""
    made: list[JobQueue] = []

    def make(execute: Callable[[str], None] = recorder, *, workers: int = 1) -> JobQueue:
        made.append(JobQueue(path, execute, workers=dict.fromkeys(Lane, workers)))
        return made[-1]

    yield make
    recorder.let_go()
    assert all(queue.stop(PATIENCE) for queue in made)


def test_higher_priority_goes_first_then_order(make: Make, recorder: Recorder) -> None:
    """Within a lane priority decides, and among equals the order of arrival."""
    queue = make()
    for job_id, priority in (("low", -5), ("one", 0), ("two", 0), ("high", 100), ("three", 0)):
        queue.put(job_id, priority=priority)
    assert queue.waiting() == 5
    queue.start()
    assert [recorder.next() for _ in range(5)] == ["high", "one", "two", "three", "low"]
    assert queue.waiting() == 0


def test_a_full_lane_delays_no_other(make: Make, recorder: Recorder) -> None:
    """While every batch worker is busy and more batch jobs wait, an interactive job starts at once."""
    recorder.hold()
    queue = make(workers=2)
    queue.start()
    for number in range(6):
        queue.put(f"batch{number}", lane=Lane.BATCH)
    assert {recorder.next(), recorder.next()} == {"batch0", "batch1"}
    queue.put("urgent", lane=Lane.INTERACTIVE)
    assert recorder.next() == "urgent"
    assert recorder.lanes == [Lane.BATCH, Lane.BATCH, Lane.INTERACTIVE]
    assert queue.waiting() == 4


def test_a_waiting_hint_is_not_doubled(make: Make, recorder: Recorder) -> None:
    """Asking again for a job that waits adds nothing; once it is taken, it may be asked for again."""
    queue = make()
    queue.put("same", priority=3)
    queue.put("same", priority=3)
    queue.put("same")
    assert queue.waiting() == 1
    queue.start()
    assert recorder.next() == "same"
    queue.put("same")
    assert recorder.next() == "same"


def test_a_more_urgent_hint_takes_the_place_of_the_one_that_waits(make: Make, recorder: Recorder) -> None:
    """It moves up instead of being there twice, in the file too."""
    queue = make()
    for job_id in ("one", "two", "three"):
        queue.put(job_id)
    queue.put("three", priority=1)
    assert queue.waiting() == 3
    queue.stop(10)
    queue = make()
    assert queue.waiting() == 3
    queue.start()
    assert [recorder.next() for _ in range(3)] == ["three", "one", "two"]
    assert queue.waiting() == 0


def test_what_execute_raises_ends_no_worker(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Errors, and even SystemExit from a plugin, are logged with the job's id; the one worker goes on."""
    done: stdlib_queue.Queue[str] = stdlib_queue.Queue()

    def execute(job_id: str, _lane: Lane) -> None:
        done.put(job_id)
        if job_id == "error":
            raise ValueError(job_id)
        if job_id == "exit":
            raise SystemExit(3)

    queue = make(execute)
    queue.start()
    for job_id in ("error", "exit", "good"):
        queue.put(job_id)
    assert [done.get(timeout=PATIENCE) for _ in range(3)] == ["error", "exit", "good"]
    failures = [record for record in caplog.records if getattr(record, "action", "") == "execute_failed"]
    assert [record.job for record in failures] == ["error", "exit"]  # type: ignore[attr-defined]


def test_hints_that_nobody_took_wait_for_the_next_start(make: Make, recorder: Recorder) -> None:
    """Stopping lets the running call finish, starts no other, and leaves the rest on disk in order."""
    recorder.hold()
    queue = make()
    queue.start()
    for job_id in ("running", "next", "last"):
        queue.put(job_id)
    assert recorder.next() == "running"
    assert queue.stop(0.01) is False
    recorder.let_go()
    assert queue.stop(PATIENCE) is True
    assert recorder.started.empty()
    again = make()
    assert again.waiting() == 2
    again.start()
    assert [recorder.next(), recorder.next()] == ["next", "last"]


def test_a_queue_that_never_started_stops(make: Make) -> None:
    """Stopping is right at any time, twice too; a hint that comes after it is harmless."""
    queue = make()
    assert queue.stop(1)
    assert queue.stop(1)
    queue.put("late")


def test_it_knows_which_hints_wait(make: Make) -> None:
    """A hint is known in its own lane, in no other, and after a restart too."""
    queue = make()
    queue.put("job", lane=Lane.BATCH, priority=7)
    assert queue.hinted("job", lane=Lane.BATCH)
    assert not queue.hinted("job", lane=Lane.NORMAL)
    assert not queue.hinted("jo", lane=Lane.BATCH)
    assert queue.stop(1)
    assert make().hinted("job", lane=Lane.BATCH)


def test_a_lane_without_workers_keeps_its_hints(path: Path, recorder: Recorder) -> None:
    """No workers for a lane means that its hints wait."""
    queue = JobQueue(path, recorder, workers={Lane.NORMAL: 1})
    queue.start()
    queue.put("never", lane=Lane.BATCH)
    queue.put("now")
    assert recorder.next() == "now"
    assert queue.waiting() == 1
    assert queue.stop(PATIENCE)


def test_messages_on_disk_are_json_under_a_fixed_name(make: Make, path: Path) -> None:
    """Nothing of our module path and no pickle is stored."""
    queue = make()
    queue.put("abc", lane=Lane.BATCH, priority=7)
    assert queue.stop(1)
    connection = sqlite3.connect(path)
    ((lane, priority, data),) = connection.execute("SELECT lane, priority, data FROM hints").fetchall()
    connection.close()
    assert (lane, priority) == ("batch", 7)
    assert json.loads(data) == {"name": TASK_NAME, "job_id": "abc", "v": 1}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x80\x04\x95garbage",
        b"[]",
        b"{}",
        b'{"name":"mlxd.run_job","v":1}',
        b'{"name":"mlxd.run_job","v":1,"job_id":7}',
        b'{"name":"mlxd.run_job","v":2,"job_id":"a"}',
        b'{"name":"os.system","v":1,"job_id":"a"}',
        b'{"name":"mlxd.run_job","v":1,"job_id":"' + b"a" * 65 + b'"}',
        b"[" * 900,
    ],
)
def test_a_broken_message_is_skipped(
    make: Make, path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture, message: bytes
) -> None:
    """Whatever somebody put into the file, the messages around it are served and nothing crashes."""
    make().stop(1)
    connection = sqlite3.connect(path)
    good = [json.dumps({"name": TASK_NAME, "job_id": job_id, "v": 1}).encode() for job_id in ("before", "after")]
    rows = [("normal", 0, data) for data in (good[0], message, good[1])]
    connection.executemany("INSERT INTO hints (lane, priority, data) VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    with caplog.at_level(logging.WARNING):
        queue = make()
        queue.start()
        assert [recorder.next(), recorder.next()] == ["before", "after"]
    assert "hint_skipped" in {getattr(record, "action", "") for record in caplog.records}


def test_only_our_own_messages_are_written() -> None:
    """What is serialised comes back as the same task for the same job."""
    serializer = HintSerializer()
    message = serializer.deserialize(b'{"name":"mlxd.run_job","job_id":"a","v":1}')
    assert (message.name, message.args) == (TASK_NAME, ("a",))
    assert serializer.deserialize(serializer.serialize(message)) == message


def test_no_signal_handler_is_installed(make: Make) -> None:
    """Signals belong to the daemon: huey would turn TERM into a loss of work."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in signals]
    make().start()
    assert [signal.getsignal(number) for number in signals] == before


def test_the_workers_are_all_there_is(make: Make) -> None:
    """One thread a worker, named after its lane; no scheduler, no consumer loop."""
    before = set(threading.enumerate())
    make(workers=2).start()
    names = sorted(thread.name for thread in set(threading.enumerate()) - before)
    assert names == sorted(f"{lane.value}-worker-{number}" for lane in Lane for number in (1, 2))


class Permission:
    """An order that lets nothing be taken but what is in `able`; remembers what it was asked."""

    def __init__(self, *able: str) -> None:
        self.able = set(able)
        self.asked: list[tuple[dict[str, tuple[int, int]], frozenset[str]]] = []
        self.heard: list[str] = []

    def choose(self, lane: str, heads: Mapping[str, Place], out: Collection[str]) -> tuple[str | None, float | None]:
        self.asked.append((dict(heads), frozenset(out)))
        return min((need for need in heads if need in self.able), key=heads.__getitem__, default=None), None

    def waits(self, lane: str, need: str) -> None:
        self.heard.append(need)


@pytest.fixture(name="ordered")
def _ordered(path: Path, recorder: Recorder) -> Iterator[Callable[[Permission], JobQueue]]:
    made: list[JobQueue] = []

    def ordered(order: Permission) -> JobQueue:
        made.append(JobQueue(path, recorder, workers={Lane.NORMAL: 1}, order=order))
        return made[-1]

    yield ordered
    recorder.let_go()
    assert all(queue.stop(PATIENCE) for queue in made)


def test_an_order_decides_what_is_taken(ordered: Callable[[Permission], JobQueue], recorder: Recorder) -> None:
    """What may not be taken stays where it was, and what stands behind it goes; a poke lets the workers ask again."""
    order = Permission("b", "")
    queue = ordered(order)
    for job_id, need in (("a1", "a"), ("b1", "b"), ("n1", ""), ("a2", "a"), ("b2", "b")):
        queue.put(job_id, need=need)
    queue.start()
    assert [recorder.next() for _ in range(3)] == ["b1", "n1", "b2"]
    assert queue.waiting() == 2
    assert queue.hinted("a1", lane=Lane.NORMAL)

    order.able.add("a")
    queue.poke()
    assert [recorder.next() for _ in range(2)] == ["a1", "a2"]


def test_an_order_hears_what_waits_and_what_workers_are_busy_with(
    ordered: Callable[[Permission], JobQueue], recorder: Recorder
) -> None:
    """It is shown the first of each need, told when a new need waits, and a worker is busy until it comes back."""
    order = Permission("a")
    queue = ordered(order)
    recorder.hold()
    queue.put("a1", need="a")
    queue.put("a2", need="a")
    assert order.heard == ["a"]
    queue.start()
    assert recorder.next() == "a1"
    queue.put("b1", need="b")
    assert order.heard == ["a", "b"]
    recorder.let_go()
    assert recorder.next() == "a2"
    heads, out = order.asked[1]
    assert set(heads) == {"a", "b"}
    assert heads["a"] < heads["b"]
    assert out == frozenset()


def test_what_a_waiting_hint_needs_can_be_said_later(
    ordered: Callable[[Permission], JobQueue], recorder: Recorder
) -> None:
    """A hint that waits already is not doubled; it keeps its place and goes by the new need."""
    order = Permission("b")
    queue = ordered(order)
    queue.put("x", need="a")
    queue.put("y", need="b")
    queue.put("x", need="b")
    assert queue.waiting() == 2
    queue.start()
    assert [recorder.next() for _ in range(2)] == ["x", "y"]
