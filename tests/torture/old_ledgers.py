"""Ledgers as earlier versions of mlxd left them: built by the real migrations of their time, filled with rows.

And a look at a ledger that uses none of mlxd's code and changes nothing: it reads a copy.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from jobs.schema import MIGRATIONS, upgrade

#: What a version of mlxd that is not written yet might do.
FUTURE = (
    "ALTER TABLE jobs ADD COLUMN colour VARCHAR",
    "CREATE TABLE fleet (name VARCHAR NOT NULL PRIMARY KEY, address VARCHAR)",
    "INSERT INTO fleet VALUES ('studio', 'studio.local')",
)
Steps = tuple[tuple[str, ...], ...]
Row = Mapping[str, Any]

_NOW = 1_790_000_000_000_000
#: The states that a ledger at rest after a death may hold; "running" is what `recover` is for.
_STATES = ("queued", "running", "succeeded", "failed", "cancelled", "blocked", "quarantined")


@dataclass(frozen=True)
class Seen:
    """What a ledger's file holds."""

    version: int
    application: int
    #: Everything that ``sqlite_master`` says, sorted.
    shape: tuple[tuple[str, ...], ...]
    #: Table -> its rows, sorted by their text.
    rows: Mapping[str, list[dict[str, Any]]]
    #: What ``integrity_check`` and ``foreign_key_check`` complain of.
    damage: tuple[str, ...]


def build(path: Path, version: int, rng: random.Random, *, steps: Steps = MIGRATIONS, log: bool = False) -> None:
    """Make the ledger *path* of *version* with rows in it; *log*: in the log as after a death."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "made"
        engine = create_engine("sqlite://", creator=lambda: _connect(made), poolclass=NullPool)
        with engine.connect() as connection:
            for _ in range(version):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                upgrade(connection, made, steps[:version])
                connection.commit()
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for table, row in _rows(rng) if version else ():
                if connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).first():
                    marks = ", ".join("?" * len(row))
                    names = ", ".join(f'"{name}"' for name in row)
                    connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608 - our own names
            connection.commit()
            if log:  # copied while it is open: closing would fold the log into the file
                _copy(made, path)
        if not log:
            _copy(made, path)
        engine.dispose()


def look(path: Path) -> Seen:
    """Return what the ledger *path* holds, read from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "ledger"
        _copy(path, copied)
        with closing(sqlite3.connect(copied, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return Seen(
                version=connection.execute("PRAGMA user_version").fetchone()[0],
                application=connection.execute("PRAGMA application_id").fetchone()[0],
                shape=tuple(sorted(tuple(map(str, row)) for row in connection.execute(_SHAPE))),
                rows={name: _content(connection, name) for (name,) in connection.execute(_TABLES).fetchall()},
                damage=tuple(_damage(connection)),
            )


def bytes_of(path: Path) -> dict[str, bytes]:
    """Return the content of a ledger's files by the ending of their names; the index of the log is none of it."""
    return {ending: Path(f"{path}{ending}").read_bytes() for ending in ("", "-wal") if Path(f"{path}{ending}").exists()}


_SHAPE = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _copy(source: Path, target: Path) -> None:
    for ending in ("", "-wal"):
        Path(f"{target}{ending}").unlink(missing_ok=True)
        if Path(f"{source}{ending}").exists():
            shutil.copyfile(f"{source}{ending}", f"{target}{ending}")
    Path(f"{target}-shm").unlink(missing_ok=True)


def _content(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    rows = [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]  # noqa: S608 - the file's own name
    return sorted(rows, key=repr)


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield said
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield f"foreign key: {tuple(row)}"


def _rows(rng: random.Random) -> Iterator[tuple[str, Row]]:
    """Yield rows for every table there ever was, what they refer to first; the tables a version lacks are skipped."""
    ids = [f"j{number:03}{rng.randrange(10**6):06}" for number in range(rng.randrange(20, 60))]
    for seq, job_id in enumerate(ids, 1):
        yield "jobs", _job(rng, seq, job_id)
        if rng.random() < 0.5:
            yield "notes", {"seq": seq, "progress": None, "checkpoint": json.dumps({"done": rng.randrange(99)})}
        path = rng.choice([f"/out/{job_id}/ä {seq}.txt", f"/out/{job_id}/".encode() + b"\xff\xfe"])
        yield "intents", {"seq": seq, "path": path, "key": path, "contents": json.dumps(["ab" * 32])}
        yield "seen", {"folder": "/in", "key": f"key-{job_id}", "job_id": job_id}
        yield "recipes", {"seq": seq, "key": f"recipe-{seq}", "details": json.dumps({"models": [], "names": {}})}
        yield (
            "journal",
            {"seq": seq, "source": f"/in/{seq}", "target": f"/in/done/{seq}", "sha256": "cd" * 32}
            | {"moved_at": _NOW + seq},
        )
    yield "reverts", {"seq": 1, "reverted_at": _NOW}
    yield "pauses", {"folder": "/in", "since": _NOW}
    for name in ("nightly", "hourly"):
        yield from _schedule(rng, name, ids)


def _job(rng: random.Random, seq: int, job_id: str) -> Row:
    state = rng.choice(_STATES)
    ended = state in ("succeeded", "failed", "cancelled")
    return {
        "seq": seq,
        "id": job_id,
        "task": "stub",
        "params": json.dumps({"key": job_id, "size": rng.randrange(1, 99)}),
        "lane": rng.choice(["interactive", "normal", "batch"]),
        "priority": rng.randrange(-100, 101),
        "idempotency_key": rng.choice([None, f"key-{seq}"]),
        "parent": None,
        "source_kind": "api",
        "source_detail": rng.choice([None, "Grüße"]),
        "source_rule": None,
        "placement": json.dumps({"directory": None, "stem": None, "input": None, "after": "leave"}),
        "max_failures": 3,
        "not_before": None,
        "state": state,
        "attempts": 1,
        "failures": 0,
        "crashes": 0,
        "fence": rng.randrange(1, 9),
        "owner": "a daemon long gone" if state == "running" else None,
        "cancel_requested": 0,
        "created_at": _NOW + seq,
        "started_at": _NOW + seq + 1,
        "finished_at": _NOW + seq + 2 if ended else None,
        "result": json.dumps({"text": job_id}) if state == "succeeded" else None,
        "error": json.dumps({"type": "t", "message": "m", "facts": {}}) if state == "failed" else None,
        "outputs": json.dumps([]) if ended else None,
    }


def _schedule(rng: random.Random, name: str, ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
    definition = json.dumps({"name": name, "task": "stub", "every": "1h", "params": {"key": name}})
    yield (
        "schedules",
        {"name": name, "origin": "added", "definition": definition, "fingerprint": "f"}
        | {
            "anchor": _NOW,
            "next_at": 4_000_000_000_000_000,
            "paused": 0,
        },
    )
    for number in range(3):
        job_id = rng.choice([None, *ids])
        yield "fires", {"schedule": name, "fire_at": _NOW + number, "kind": "on-time", "job_id": job_id}
    yield (
        "misses",
        {"schedule": name, "first_at": _NOW, "last_at": _NOW + 1, "count": 2}
        | {
            "reason": "mlxd did not run",
            "noticed_at": _NOW,
        },
    )
