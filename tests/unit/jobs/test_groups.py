"""Group commit: who leads, who is led, and what each hears."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes_jobs import Disk
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from jobs.database import connect
from jobs.errors import LedgerUnavailable, QueueFull
from jobs.groups import MOST, Group, Write
from jobs.ledger import Ledger
from jobs.model import NewJob

PATIENCE = 20


class Slow:
    """Commits batches one by one; the first waits until `go` is called."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Event()
        self._going = threading.Event()
        self.go = self._going.set

    def commit(self, writes: Sequence[Write]) -> None:
        self.batches.append([write.verb for write in writes])
        self.begun.set()
        assert self._going.wait(PATIENCE)
        for write in writes:
            write.settle(f"{write.verb} done")


def _wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE * 200):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to pass")


def _nothing(_connection: Connection) -> None:
    return None


def test_who_comes_alone_leads_at_once() -> None:
    """A lone write is a batch of one, on the thread that asked."""
    threads = []

    def commit(writes: Sequence[Write]) -> None:
        threads.append(threading.current_thread())
        writes[0].settle(1)

    group = Group(commit)

    assert [group.run(Write("add", _nothing)) for _ in range(3)] == [1, 1, 1]
    assert threads == [threading.current_thread()] * 3


def test_what_waits_is_one_batch() -> None:
    """Whoever comes while a batch is committed is part of the next one, and hears of his own write."""
    slow = Slow()
    group = Group(slow.commit)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.run, Write("first", _nothing))
        assert slow.begun.wait(PATIENCE)
        others = [pool.submit(group.run, Write(f"w{n}", _nothing)) for n in range(5)]
        _wait_for(lambda: len(group._waiting) == 5)
        slow.go()
        assert first.result(PATIENCE) == "first done"
        assert [other.result(PATIENCE) for other in others] == [f"w{n} done" for n in range(5)]
    assert [sorted(batch) for batch in slow.batches] == [["first"], [f"w{n}" for n in range(5)]]


def test_a_leader_that_breaks_leaves_nobody_waiting() -> None:
    """If a commit ends by something nobody foresaw, all of its batch hear of it, and the next one goes on."""

    def commit(writes: Sequence[Write]) -> None:
        if writes[0].verb == "bad":
            raise KeyboardInterrupt
        writes[0].settle("fine")

    group = Group(commit)

    with pytest.raises(KeyboardInterrupt):
        group.run(Write("bad", _nothing))
    assert group.run(Write("good", _nothing)) == "fine"


def test_a_batch_has_a_bound() -> None:
    """The first of a batch never waits for more than `MOST`."""
    sizes = []

    def commit(writes: Sequence[Write]) -> None:
        sizes.append(len(writes))
        for write in writes:
            write.settle()

    group = Group(commit)
    group._waiting = [Write("add", _nothing) for _ in range(MOST + 5)]
    group.run(group._waiting.pop())

    assert max(sizes) <= MOST


# On a real file.


@pytest.fixture
def disk() -> Disk:
    """A disk that can be broken."""
    return Disk()


@pytest.fixture
def ledger(tmp_path: Path, disk: Disk) -> Iterator[Ledger]:
    """A ledger on that disk."""
    ledger = Ledger(tmp_path / "ledger.sqlite3", connect=disk.connect)
    yield ledger
    ledger.close()


def _together(ledger: Ledger, *bodies: Callable[[Connection], Any]) -> list[Write]:
    writes = [Write("add", body) for body in bodies]
    ledger._db._commit_together(writes)
    return writes


def test_one_that_fails_does_not_fail_its_neighbours(ledger: Ledger) -> None:
    """What a write said before it raised is undone; what the others said, before and after it, is there."""

    def refused(connection: Connection) -> None:
        ledger.insert(connection, NewJob(task="refused"))
        raise QueueFull("No.")

    def clash(connection: Connection) -> None:
        ledger.insert(connection, NewJob(task="t", idempotency_key="k"))
        ledger.insert(connection, NewJob(task="t", idempotency_key="k"))

    before, no, twice, after = _together(
        ledger,
        lambda connection: ledger.insert(connection, NewJob(task="before")),
        refused,
        clash,
        lambda connection: ledger.insert(connection, NewJob(task="after")),
    )

    assert [job.task for job in ledger.find(newest_first=False)] == ["before", "after"]
    assert [before.outcome().task, after.outcome().task] == ["before", "after"]
    with pytest.raises(QueueFull):
        no.outcome()
    with pytest.raises(IntegrityError):
        twice.outcome()


def test_after_a_disks_error_each_is_tried_alone(ledger: Ledger, disk: Disk) -> None:
    """When a shared transaction cannot be committed, nobody is told that it was; each has a try of his own."""
    disk.break_commits("SQLITE_IOERR_FSYNC", "disk I/O error")
    tries: list[str] = []

    def body(name: str) -> Callable[[Connection], Any]:
        def say(connection: Connection) -> Any:
            tries.append(name)
            if len(tries) == 4:
                disk.repair()
            return ledger.insert(connection, NewJob(task=name))

        return say

    first, second = _together(ledger, body("a"), body("b"))

    assert tries == ["a", "b", "a", "b"]
    with pytest.raises(LedgerUnavailable):
        first.outcome()
    assert second.outcome().task == "b"
    assert [job.task for job in ledger.find()] == ["b"]


def test_many_are_added_with_one_sync(ledger: Ledger, disk: Disk) -> None:
    """`add_all` answers each as `add` would: the new, the known key, the one too many; nothing else is there."""
    known = ledger.add(NewJob(task="t", idempotency_key="k"))[0]
    new = [NewJob(task="t", idempotency_key="k"), NewJob(task="a"), NewJob(task="b", idempotency_key="n")]

    told = ledger.add_all([*new, NewJob(task="b", idempotency_key="n"), NewJob(task="c")], limit=3)

    assert told[0] == (known, False)
    assert isinstance(told[1], tuple)
    assert isinstance(told[2], tuple)
    assert told[1][1]
    assert told[3] == (told[2][0], False)
    assert isinstance(told[4], QueueFull)
    assert ledger.find(newest_first=False) == [known, told[1][0], told[2][0]]


def test_one_that_cannot_be_written_costs_only_itself(tmp_path: Path) -> None:
    """A job too large for what is left of the disk is refused; those that came with it are accepted."""

    def small_disk(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 100").close()
        return connection

    ledger = Ledger(tmp_path / "ledger.sqlite3", connect=small_disk)
    large = NewJob(task="large", params={"text": "x" * 1_000_000})

    told = ledger.add_all([NewJob(task="a"), large, NewJob(task="b")])

    assert isinstance(told[1], LedgerUnavailable)
    assert [job.task for job in ledger.find(newest_first=False)] == ["a", "b"]
    ledger.close()


def test_many_threads_lose_nothing(ledger: Ledger) -> None:
    """Writers that get into each other's groups all get their own job, and every job is there once."""
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda n: ledger.add(NewJob(task=f"t{n}"))[0], range(200)))

    assert [job.task for job in told] == [f"t{n}" for n in range(200)]
    assert {job.id for job in ledger.find(limit=500)} == {job.id for job in told}
