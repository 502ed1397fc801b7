"""Schedules in the ledger's file: one transaction, each time once, bounded memory of what was missed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes_jobs import START, Clock

from jobs.errors import QueueFull, ScheduleConflict, ScheduleNotFound
from jobs.firing import Fire, Miss, Situation, Standing, Step
from jobs.ledger import Ledger
from jobs.model import NewJob, Source, State
from jobs.schedules import ScheduleBook

SECOND = timedelta(seconds=1)
LATER = START + timedelta(hours=1)


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3", clock=Clock())
    yield ledger
    ledger.close()


@pytest.fixture(name="book")
def _book(ledger: Ledger) -> ScheduleBook:
    book = ScheduleBook(ledger)
    book.add(Standing(name="s", origin="added", definition={"a": 1}, fingerprint="f", anchor=START, next_at=START))
    return book


def job(fire: Fire) -> NewJob:
    return NewJob(task="t", source=Source(kind="schedule", rule="s", detail=fire.at.isoformat()))


def taking(*seconds: int, **more: Any) -> Step:
    times = tuple((START + second * SECOND, "on-time") for second in seconds)
    return Step(next_at=LATER, take=times, job=job, **more)


def test_what_is_put_is_found(book: ScheduleBook) -> None:
    """A schedule comes back as it was written; names are there once, and unknown ones are refused."""
    assert book.all() == [book.get("s")]
    assert (book.get("s").definition, book.get("s").next_at) == ({"a": 1}, START)
    with pytest.raises(ScheduleConflict, match="already"):
        book.add(book.get("s"))
    for ask in (book.get, book.remove, lambda name: book.turn(name, lambda _: None)):
        with pytest.raises(ScheduleNotFound, match="'x'"):
            ask("x")
    changed = book.change("s", lambda standing: standing.model_copy(update={"paused": True}))
    assert book.get("s") == changed
    assert changed.paused


def test_a_turn_is_one_step(book: ScheduleBook, ledger: Ledger) -> None:
    """The decision sees the situation; its job, its fire and the next time are there together."""
    seen: list[Situation] = []
    turned = book.turn("s", lambda situation: seen.append(situation) or taking(0, 1))

    assert (seen[0].busy, seen[0].waiting) == ((), ())
    assert [one.id for one in turned.created] == [one.id for one in ledger.find()]
    assert book.get("s").next_at == LATER
    assert [(fire.at, fire.job) for fire in book.fires("s")] == [(START + SECOND, None), (START, turned.created[0].id)]
    assert book.waiting() == {"s": 1}
    assert book.known("s", [START, LATER]) == {START}

    book.turn("s", seen.append)
    assert [one.id for one in seen[1].busy] == [turned.created[0].id]
    assert seen[1].waiting == (START + SECOND,)


def test_each_time_once(book: ScheduleBook, ledger: Ledger) -> None:
    """A time that became a job, or waits, is not taken again; after its job's end it is not either."""
    first = book.turn("s", lambda _: taking(0)).created[0]
    assert book.turn("s", lambda _: taking(0)).created == []
    ledger.cancel(first.id)
    assert book.turn("s", lambda _: taking(0)).created == []
    assert book.take("s", [START, LATER], "backfill") == 1
    assert len(ledger.find()) == 1


def test_a_full_queue_undoes_the_whole_step(book: ScheduleBook, ledger: Ledger) -> None:
    """With no room for the job nothing of the step is written."""
    ledger.add(NewJob(task="t"))
    with pytest.raises(QueueFull):
        book.turn("s", lambda _: taking(0), limit=1)
    assert (book.get("s").next_at, book.fires("s")) == (START, [])
    with pytest.raises(QueueFull):
        book.manual("s", job, limit=1)


def test_cancelling_makes_room_in_the_same_step(book: ScheduleBook) -> None:
    """A job that has not begun is cancelled, and the next one takes its place at once."""
    first = book.turn("s", lambda _: taking(0)).created[0]
    turned = book.turn("s", lambda _: taking(5, cancel=True))
    assert [(one.id, one.state) for one in turned.cancelled] == [(first.id, State.CANCELLED)]
    assert len(turned.created) == 1


def test_waiting_times_can_be_dropped_but_not_fired_ones(book: ScheduleBook) -> None:
    """Only a time without a job is forgotten."""
    book.turn("s", lambda _: taking(0, 1))
    book.turn("s", lambda _: Step(next_at=LATER, drop=(START, START + SECOND)))
    assert [fire.at for fire in book.fires("s")] == [START]


def test_misses_are_joined_and_bounded(book: ScheduleBook) -> None:
    """Neighbours with the same reason are one row; of many different ones the latest hundred stay."""

    def miss(number: int, reason: str) -> None:
        time = START + number * SECOND
        told = Miss(first=time, last=time, count=1, reason=reason, noticed_at=time)
        book.turn("s", lambda _: Step(next_at=LATER, missed=(told,)))

    for number in range(3):
        miss(number, "same")
    (joined,) = book.misses("s")
    assert (joined.first, joined.last, joined.count) == (START, START + 2 * SECOND, 3)
    for number in range(110):
        miss(number + 3, f"reason {number}")
    kept = book.misses("s", 1000)
    assert (len(kept), kept[0].reason) == (100, "reason 109")


def test_removing_forgets_the_history_and_keeps_the_jobs(book: ScheduleBook, ledger: Ledger) -> None:
    """Fires and misses go with their schedule."""
    book.turn("s", lambda _: taking(0, 1))
    standing = book.get("s")
    book.remove("s")
    book.add(standing)
    assert (book.fires("s"), book.misses("s"), book.waiting()) == ([], [], {})
    assert len(ledger.find()) == 1
