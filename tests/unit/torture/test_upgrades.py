"""Old ledgers, the places to die at, and the eyes that look at what is left."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from torture import old_ledgers, upgrades
from torture.upgrades import LATEST

from jobs.ledger import Ledger
from jobs.schema import MIGRATIONS


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_an_old_ledger_is_what_its_time_left(tmp_path: Path, version: int, log: bool) -> None:
    """It has its version's tables, each with rows in it, and today's program upgrades it and reads its jobs."""
    path = tmp_path / "ledger"
    old_ledgers.build(path, version, random.Random(version), log=log)
    seen = old_ledgers.look(path)
    ledger = Ledger(path)
    jobs = ledger.find(limit=1000)
    ledger.close()

    assert (seen.version, seen.damage) == (version, ())
    assert all(seen.rows.values())
    assert bool(old_ledgers.bytes_of(path).get("-wal")) is False  # folded in by the program that closed it
    assert {job.id for job in jobs} == {row["id"] for row in seen.rows["jobs"]}


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Not a byte of the file or its log."""
    path = tmp_path / "ledger"
    old_ledgers.build(path, LATEST, random.Random(1), log=True)
    before = old_ledgers.bytes_of(path)
    old_ledgers.look(path)

    assert old_ledgers.bytes_of(path) == before
    assert before["-wal"]


def test_there_is_a_place_to_die_at_after_every_statement() -> None:
    """As many as statements, from each version on, and two around every commit."""
    places = list(upgrades.deaths(1))
    statements = [place for place in places if place.failpoint == "migration.statement"]

    assert len(statements) == sum(map(len, MIGRATIONS[1:]))
    assert [place.nth for place in statements] == list(range(1, len(statements) + 1))
    assert len(places) - len(statements) == 2 * LATEST
    assert {place.then for place in places} == set(range(1, LATEST + 1))


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """A version between two, a lost row, a lost table and the wrong version are each told."""
    path = tmp_path / "ledger"
    old_ledgers.build(path, 2, random.Random(1))
    known, before = upgrades.references(), old_ledgers.look(path)
    assert list(upgrades.breaches(before, before, known, then=2)) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN colour")
        connection.execute("DELETE FROM recipes WHERE seq = 1")
        connection.execute("DROP TABLE notes")
    told = " ".join(upgrades.breaches(before, old_ledgers.look(path), known, then=3))

    assert "between two" in told
    assert "rows of recipes" in told
    assert "notes is gone" in told
    assert "instead of 3" in told
    assert list(upgrades.breaches(before, replace(before, version=9), known, then=9)) == ["there is no such version"]


def test_a_migration_without_a_transaction_is_caught(tmp_path: Path) -> None:
    """The control of the campaign: the checker sees what the real program never leaves."""
    death = next(place for place in upgrades.deaths(1) if place.nth == 2)
    known = upgrades.references()
    right, wrong = (tmp_path / "right", tmp_path / "wrong")
    for folder in (right, wrong):
        folder.mkdir()

    assert upgrades.attempt(right, death, known, random.Random(1)) == []
    assert "between two" in " ".join(
        upgrades.attempt(wrong, death, known, random.Random(1), program=upgrades.OPEN_WITHOUT_TRANSACTIONS)
    )
