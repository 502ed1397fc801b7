"""Jobs that are written down with one statement."""

from __future__ import annotations

import itertools
from pathlib import Path

from jobs.errors import QueueFull
from jobs.ledger import Ledger
from jobs.model import NewJob


def test_they_are_as_if_written_one_by_one(tmp_path: Path) -> None:
    """Each is read as it was returned, in the order in which they were given, and numbered in it."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    news = [NewJob(task=f"t{number}", params={"n": number}, priority=number % 3) for number in range(100)]

    told = [one[0] for one in ledger.add_all(news) if isinstance(one, tuple)]

    assert [job.task for job in told] == [new.task for new in news]
    assert told == ledger.find(newest_first=False, limit=200)
    ledger.close()


def test_twins_get_other_ids(tmp_path: Path) -> None:
    """Of those that drew the same id, or one that is taken, each is written down, under an id of its own."""
    ids = itertools.chain(["taken", "taken", "twin", "twin", "taken", "twin"], (f"free{n}" for n in itertools.count()))
    ledger = Ledger(tmp_path / "ledger.sqlite3", new_id=lambda: next(ids))
    first, _ = ledger.add(NewJob(task="first"))

    told = [one[0] for one in ledger.add_all([NewJob(task=name) for name in "abcd"]) if isinstance(one, tuple)]

    assert [job.task for job in told] == ["a", "b", "c", "d"]
    assert len({job.id for job in [first, *told]}) == 5
    assert {job.id: job for job in ledger.find()} == {job.id: job for job in [first, *told]}
    ledger.close()


def test_no_more_are_taken_than_there_is_room_for(tmp_path: Path) -> None:
    """Those beyond the limit hear that it is full, and are not there; where it is full already nobody is."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.add(NewJob(task="first"))

    told = ledger.add_all([NewJob(task=name) for name in "abc"], limit=3)
    again = ledger.add_all([NewJob(task="d")], limit=3)

    assert [isinstance(one, QueueFull) for one in told + again] == [False, False, True, True]
    assert [one.facts["unfinished"] for one in told + again if isinstance(one, QueueFull)] == [3, 3]
    assert [job.task for job in ledger.find(newest_first=False)] == ["first", "a", "b"]
    ledger.close()
