"""Tables, migrations and column types."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from jobs import schema
from jobs.errors import LedgerUnavailable
from jobs.schema import MIGRATIONS, Instant, PathText, metadata, upgrade

DIALECT = sqlite_dialect()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An empty database, transactions begun by hand as the ledger does."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "db", isolation_level=None)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _upgrade_all(connection: Connection, steps: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    taken = 0
    while upgrade(connection, Path("x"), steps):
        taken += 1
    return taken


def _shape(connection: Connection) -> dict[str, object]:
    found = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
            found.get_pk_constraint(table)["constrained_columns"],
            sorted((i["name"], tuple(i["column_names"])) for i in found.get_indexes(table)),
            sorted(tuple(u["column_names"]) for u in found.get_unique_constraints(table)),
            sorted((f["referred_table"], tuple(f["constrained_columns"])) for f in found.get_foreign_keys(table)),
        )
        for table in found.get_table_names()
    }


def test_migrations_build_the_tables_the_program_uses(connection: Connection) -> None:
    """A ledger built step by step has the tables, columns, keys and indexes that the code declares."""
    assert _upgrade_all(connection) == len(MIGRATIONS)
    migrated = _shape(connection)
    other = create_engine("sqlite://")
    with other.begin() as fresh:
        metadata.create_all(fresh)
        assert migrated == _shape(fresh)
    other.dispose()


def test_an_up_to_date_ledger_is_left_alone(connection: Connection) -> None:
    """Opening again takes no step."""
    _upgrade_all(connection)
    assert _upgrade_all(connection) == 0


def test_a_later_step_is_taken_by_an_older_ledger(connection: Connection) -> None:
    """A ledger of an earlier version goes on from where it is."""
    _upgrade_all(connection)
    later = (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN colour VARCHAR",))
    assert _upgrade_all(connection, later) == 1
    assert "colour" in {column["name"] for column in inspect(connection).get_columns("jobs")}


def test_a_step_that_fails_leaves_the_old_version(connection: Connection) -> None:
    """A migration happens whole or not at all, its version number included."""
    _upgrade_all(connection)
    broken = (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN colour VARCHAR", "ALTER TABLE nowhere ADD COLUMN x"))
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError):
        upgrade(connection, Path("x"), broken)
    connection.rollback()
    assert connection.exec_driver_sql("PRAGMA user_version").scalar_one() == len(MIGRATIONS)
    assert "colour" not in {column["name"] for column in inspect(connection).get_columns("jobs")}


def test_a_newer_ledger_is_refused(connection: Connection) -> None:
    """An older program does not touch what a newer one wrote, and says which versions meet."""
    _upgrade_all(connection)
    connection.exec_driver_sql("PRAGMA user_version = 99")
    with pytest.raises(LedgerUnavailable, match=r"newer mlxd.*99") as caught:
        upgrade(connection, Path("/l"))
    assert caught.value.facts == {"path": "/l", "found": 99, "known": len(MIGRATIONS)}


@pytest.mark.parametrize("version", [0, 1])
def test_somebody_elses_database_is_refused(connection: Connection, version: int) -> None:
    """A SQLite file that is not a ledger is not filled with our tables."""
    connection.exec_driver_sql("CREATE TABLE photos (id)")
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    with pytest.raises(LedgerUnavailable, match="not a ledger"):
        upgrade(connection, Path("x"))
    assert inspect(connection).get_table_names() == ["photos"]


@given(st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.just(timezone(timedelta(hours=5, minutes=45)))))
def test_instants_are_exact(moment: datetime) -> None:
    """A time comes back as the same moment, to the microsecond, from any zone."""
    column = Instant()
    stored = column.process_bind_param(moment, DIALECT)
    assert isinstance(stored, int)
    assert column.process_result_value(stored, DIALECT) == moment


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_instants_sort_as_time_does(one: datetime, other: datetime) -> None:
    """Comparing what is stored compares the times."""
    column = Instant()
    stored = [column.process_bind_param(moment, DIALECT) for moment in (one, other)]
    assert (stored[0] < stored[1]) == (one < other)  # type: ignore[operator]


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_paths_of_any_bytes_come_back(raw: bytes) -> None:
    """A name that is not UTF-8 is stored as bytes and comes back as the same path."""
    path = Path("/x") / os.fsdecode(raw)
    column = PathText()
    assert column.process_result_value(column.process_bind_param(path, DIALECT), DIALECT) == path


def test_nothing_stays_nothing() -> None:
    """NULL is None in both directions and both types."""
    for column in (Instant(), PathText()):
        assert column.process_bind_param(None, DIALECT) is None
        assert column.process_result_value(None, DIALECT) is None


def test_the_file_says_what_it_is(connection: Connection) -> None:
    """The application id is set with the first step."""
    _upgrade_all(connection)
    assert connection.exec_driver_sql("PRAGMA application_id").scalar_one() == schema.APPLICATION_ID
