"""What is found after a power cut, held against what was promised before it."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.ledger import Ledger
from jobs.model import NewJob, State
from torture.crash_disk import Event, Image, Op, materialise
from torture.crash_ledger import NAME, contents


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One cut."""

    #: How many acknowledged changes are gone.
    lost: int = 0
    #: Whether SQLite or the ledger cannot read what is there, or it does not fit together.
    corrupt: bool = False
    #: What is wrong, "" if nothing is.
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What was said before a cut."""

    #: The last change that was acknowledged as durable, and the last that had begun.
    acknowledged: int
    begun: int


def promised(events: Sequence[Event], first: int) -> list[Promise]:
    """Return the promise that holds before each event, counted from event *first*, and after the last."""
    acknowledged = begun = 0
    promises = []
    for event in events[first:]:
        promises.append(Promise(acknowledged=acknowledged, begun=begun))
        if event.op is Op.MARK and event.note[0] == "begin":
            begun = event.note[1]
        elif event.op is Op.MARK and event.note[2]:
            acknowledged = event.note[1]
    return [*promises, Promise(acknowledged=acknowledged, begun=begun)]


def examine(image: Image, folder: Path, states: Sequence[str], promise: Promise, random_: random.Random) -> Finding:
    """Start on *image* in the empty *folder*, as the program does after a power cut; *folder* is empty afterwards."""
    materialise(image, folder)
    if image and random_.random() < 0.3:
        # The shared memory's file is nobody's to sync: it may hold anything, or not be there.
        (folder / f"{NAME}-shm").write_bytes(random_.randbytes(32_768))
    try:
        return _examine(folder, states, promise, random_)
    except Exception as error:  # noqa: BLE001 - whatever a start on this disk raises, the ledger is damaged
        return Finding(corrupt=True, sentence=f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder)
        folder.mkdir()


def _examine(folder: Path, states: Sequence[str], promise: Promise, random_: random.Random) -> Finding:
    # Whoever comes first finds what was left; the other one finds what that one made of it.
    plainly = random_.random() < 0.5
    if plainly:
        with contextlib.closing(sqlite3.connect(folder / NAME, isolation_level=None)) as plain:
            found = _look(plain)
    ledger = Ledger(folder / NAME, connect=_quickly)
    try:
        with ledger.reading() as connection:
            seen = _look(connection.connection.dbapi_connection)
        assert not plainly or seen == found, "the ledger sees something else than SQLite does"
        _recover(ledger)
        if random_.random() < 0.25:
            _work(ledger)
    finally:
        ledger.close()
    return _judge(seen, states, promise)


def _quickly(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def _look(connection: sqlite3.Connection) -> str:
    for check in ("integrity_check", "foreign_key_check"):
        trouble = [row[0] for row in connection.execute(f"PRAGMA {check}") if row[0] != "ok"]
        assert not trouble, f"{check}: {trouble[:3]}"
    return contents(connection.execute)


def _recover(ledger: Ledger) -> None:
    """Do what every start does."""
    running = {job.id: job for job in ledger.find(states=[State.RUNNING], limit=1000)}
    back = {job.id: job for job in ledger.recover("the next")}
    assert back.keys() == running.keys(), "recovery left a job out"
    for job in back.values():
        wanted = State.CANCELLED if job.cancel_requested else State.QUEUED
        assert (job.state, job.attempts) == (wanted, running[job.id].attempts - 1), "recovery cost an attempt"


def _work(ledger: Ledger) -> None:
    """Take a job to its end."""
    new, created = ledger.add(NewJob(task="t", idempotency_key="after the cut"))
    claimed = ledger.claim(new.id, "the next")
    assert created, "a key that nobody used"
    assert claimed is not None, "a fresh job cannot be claimed"
    assert ledger.finish(new.id, claimed.fence, {}, []).state is State.SUCCEEDED, "a job does not end"


def _judge(found: str, states: Sequence[str], promise: Promise) -> Finding:
    if found in states[promise.acknowledged : promise.begun + 1]:
        return Finding()
    older = [number for number in range(promise.acknowledged) if states[number] == found]
    if older:
        lost = promise.acknowledged - max(older)
        return Finding(lost=lost, sentence=f"{lost} acknowledged changes are gone, from number {max(older) + 1} on")
    return Finding(lost=1, sentence="the ledger holds something that it never held before")
