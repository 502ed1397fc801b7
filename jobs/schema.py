"""The ledger's tables, and the numbered steps that build them.

The tables say what the program uses; the migrations are what was ever run on somebody's disk, so they are plain SQL
and never edited once released. A test keeps the two in agreement.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)

from jobs.errors import LedgerUnavailable
from jobs.failpoints import reach

#: SQLite's ``application_id`` of a ledger: "mlxd" in ASCII.
APPLICATION_ID: Final = 0x6D6C7864

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware time as whole microseconds since 1970: exact, and sorts as numbers do."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's
        """Turn a time into microseconds."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Turn microseconds into a time in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class PathText(TypeDecorator[Path]):
    """A path as text; as bytes when its name is not UTF-8, which Linux allows and SQLite's text does not."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Path | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's
        """Turn a path into text or bytes."""
        if value is None:
            return None
        raw = os.fsencode(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    def process_result_value(self, value: Any, dialect: Dialect) -> Path | None:  # noqa: ARG002 - SQLAlchemy's
        """Turn text or bytes into a path."""
        return None if value is None else Path(os.fsdecode(value))


_Json = JSON(none_as_null=True)
metadata = MetaData()

#: One row a job: what was asked, where it stands.
jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("task", String, nullable=False),
    Column("params", _Json, nullable=False),
    Column("lane", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", String, unique=True),
    Column("parent", String),
    Column("source_kind", String, nullable=False),
    Column("source_detail", String),
    Column("source_rule", String),
    Column("placement", _Json, nullable=False),
    Column("max_failures", Integer, nullable=False),
    Column("not_before", Instant),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("owner", String),
    Column("cancel_requested", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("result", _Json),
    Column("error", _Json),
    Column("outputs", _Json),
    Column("reuse", Integer),
    Column("provenance", Integer),
    Index("jobs_state", "state", "lane", "priority", "seq"),
    Index("jobs_parent", "parent"),
    sqlite_autoincrement=True,
)

#: What a running job writes often, apart from ``jobs`` so that a progress report never rewrites a long prompt.
notes = Table(
    "notes",
    metadata,
    Column("seq", ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    Column("progress", _Json),
    Column("checkpoint", _Json),
)

#: Files that a job wrote or was about to write, recorded before they get their names.
intents = Table(
    "intents",
    metadata,
    Column("seq", ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    Column("path", PathText, primary_key=True),
    # The path in Unicode's composed form: macOS may report a name decomposed that was written composed.
    Column("key", PathText, nullable=False),
    # SHA-256 of each content the file may have by now, the latest first.
    Column("contents", _Json, nullable=False),
    Index("intents_key", "key"),
)

#: Watched files that have become jobs.
seen = Table(
    "seen",
    metadata,
    Column("folder", PathText, primary_key=True),
    Column("key", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
)

#: What jobs did, so that the same work need not be done twice.
recipes = Table(
    "recipes",
    metadata,
    Column("seq", ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    # The same for the same input bytes, task, parameters and programs.
    Column("key", String, nullable=False),
    # The models it used, and what each output was to be called.
    Column("details", _Json, nullable=False),
    Index("recipes_key", "key"),
)

#: Schedules: what they are, and when each comes next.
schedules = Table(
    "schedules",
    metadata,
    Column("name", String, primary_key=True),
    # "config" or "added".
    Column("origin", String, nullable=False),
    Column("definition", _Json, nullable=False),
    # Tells whether the timing is the one that ``anchor`` and ``next_at`` were made for.
    Column("fingerprint", String, nullable=False),
    Column("anchor", Instant, nullable=False),
    Column("next_at", Instant),
    Column("paused", Integer, nullable=False),
)

#: Times of schedules that became jobs, or wait for their turn to become one (``job_id`` is null).
fires = Table(
    "fires",
    metadata,
    Column("schedule", ForeignKey("schedules.name", ondelete="CASCADE"), primary_key=True),
    Column("fire_at", Instant, primary_key=True),
    Column("kind", String, nullable=False),
    Column("job_id", String),
)

#: Times of schedules that became no job, and why; neighbours with the same reason are one row.
misses = Table(
    "misses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schedule", ForeignKey("schedules.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
    Column("count", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("noticed_at", Instant, nullable=False),
)

#: Inputs and outputs that were moved, or were about to be.
journal = Table(
    "journal",
    metadata,
    Column("seq", ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    Column("source", PathText, primary_key=True),
    Column("target", PathText, nullable=False),
    Column("sha256", String, nullable=False),
    Column("moved_at", Instant, nullable=False),
)

#: Jobs that were taken back.
reverts = Table(
    "reverts",
    metadata,
    Column("seq", ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    Column("reverted_at", Instant, nullable=False),
)

#: Watched folders of which nothing is taken for now.
pauses = Table(
    "pauses",
    metadata,
    Column("folder", PathText, primary_key=True),
    Column("since", Instant, nullable=False),
)

#: ``MIGRATIONS[n]`` brings a ledger from version n to n + 1. Never edit one that was released; append.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """CREATE TABLE jobs (
            seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            id VARCHAR NOT NULL UNIQUE,
            task VARCHAR NOT NULL,
            params JSON NOT NULL,
            lane VARCHAR NOT NULL,
            priority INTEGER NOT NULL,
            idempotency_key VARCHAR UNIQUE,
            parent VARCHAR,
            source_kind VARCHAR NOT NULL,
            source_detail VARCHAR,
            source_rule VARCHAR,
            placement JSON NOT NULL,
            max_failures INTEGER NOT NULL,
            not_before BIGINT,
            state VARCHAR NOT NULL,
            attempts INTEGER NOT NULL,
            failures INTEGER NOT NULL,
            crashes INTEGER NOT NULL,
            fence INTEGER NOT NULL,
            owner VARCHAR,
            cancel_requested INTEGER NOT NULL,
            created_at BIGINT NOT NULL,
            started_at BIGINT,
            finished_at BIGINT,
            result JSON,
            error JSON,
            outputs JSON
        )""",
        "CREATE INDEX jobs_state ON jobs (state, lane, priority, seq)",
        "CREATE INDEX jobs_parent ON jobs (parent)",
        """CREATE TABLE notes (
            seq INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
            progress JSON,
            checkpoint JSON
        )""",
        """CREATE TABLE intents (
            seq INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            path VARCHAR NOT NULL,
            "key" VARCHAR NOT NULL,
            contents JSON NOT NULL,
            PRIMARY KEY (seq, path)
        )""",
        'CREATE INDEX intents_key ON intents ("key")',
        """CREATE TABLE seen (
            folder VARCHAR NOT NULL,
            "key" VARCHAR NOT NULL,
            job_id VARCHAR NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
            PRIMARY KEY (folder, "key")
        )""",
        "CREATE INDEX ix_seen_job_id ON seen (job_id)",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN reuse INTEGER",
        "ALTER TABLE jobs ADD COLUMN provenance INTEGER",
        """CREATE TABLE recipes (
            seq INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
            "key" VARCHAR NOT NULL,
            details JSON NOT NULL
        )""",
        'CREATE INDEX recipes_key ON recipes ("key")',
    ),
    (
        """CREATE TABLE schedules (
            name VARCHAR NOT NULL PRIMARY KEY,
            origin VARCHAR NOT NULL,
            definition JSON NOT NULL,
            fingerprint VARCHAR NOT NULL,
            anchor BIGINT NOT NULL,
            next_at BIGINT,
            paused INTEGER NOT NULL
        )""",
        """CREATE TABLE fires (
            schedule VARCHAR NOT NULL REFERENCES schedules (name) ON DELETE CASCADE,
            fire_at BIGINT NOT NULL,
            kind VARCHAR NOT NULL,
            job_id VARCHAR,
            PRIMARY KEY (schedule, fire_at)
        )""",
        """CREATE TABLE misses (
            id INTEGER NOT NULL PRIMARY KEY,
            schedule VARCHAR NOT NULL REFERENCES schedules (name) ON DELETE CASCADE,
            first_at BIGINT NOT NULL,
            last_at BIGINT NOT NULL,
            "count" INTEGER NOT NULL,
            reason VARCHAR NOT NULL,
            noticed_at BIGINT NOT NULL
        )""",
        "CREATE INDEX ix_misses_schedule ON misses (schedule)",
    ),
    (
        """CREATE TABLE journal (
            seq INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            source VARCHAR NOT NULL,
            target VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            moved_at BIGINT NOT NULL,
            PRIMARY KEY (seq, source)
        )""",
        """CREATE TABLE reverts (
            seq INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
            reverted_at BIGINT NOT NULL
        )""",
        """CREATE TABLE pauses (
            folder VARCHAR NOT NULL PRIMARY KEY,
            since BIGINT NOT NULL
        )""",
    ),
)


def upgrade(connection: Connection, path: Path, steps: tuple[tuple[str, ...], ...] = MIGRATIONS) -> bool:
    """Take the next one of *steps* that the ledger behind *connection* lacks; return whether there was one.

    The caller opens a transaction around each call, so a step happens whole or not at all.

    Raises:
        LedgerUnavailable: a newer mlxd wrote this ledger, or the file is somebody else's database.

    """
    version = _pragma(connection, "user_version")
    require_known(version, path, known=len(steps))
    if _is_foreign(connection, version):
        raise LedgerUnavailable(
            f"{path} is a database, but not a ledger of mlxd. Move it away, or choose another home.", path=str(path)
        )
    if version == len(steps):
        return False
    for statement in steps[version]:
        connection.exec_driver_sql(statement)
        reach("migration.statement")
    connection.exec_driver_sql(f"PRAGMA user_version = {version + 1}")
    return True


def require_known(version: int, path: Path, *, known: int = len(MIGRATIONS)) -> None:
    """Raise `LedgerUnavailable` if the ledger *path* is of a later *version* than this program knows."""
    if version > known:
        raise LedgerUnavailable(
            f"A newer mlxd wrote the ledger {path} (version {version}; this one knows up to {known}). "
            "Install that mlxd again, or move the file away to start afresh.",
            path=str(path),
            found=version,
            known=known,
        )


def _is_foreign(connection: Connection, version: int) -> bool:
    if version:
        return _pragma(connection, "application_id") != APPLICATION_ID
    return bool(connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one())


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
