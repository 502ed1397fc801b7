"""The queue's file: which jobs wait, as a hint that may be lost.

The ledger is the truth and the queue is filled from it at every start, so nothing here is synced to disk, and nothing
that happens to the file may stop a job: it is rebuilt from memory, or done without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

#: Bytes; a longer message is not one of ours.
_LONGEST: Final = 1024
#: A higher number was never given by us, and the next one may be more than SQLite's 64 bits hold.
_HIGHEST: Final = 2**62

_LAYOUT: Final = "CREATE TABLE IF NOT EXISTS hints (id INTEGER PRIMARY KEY, lane TEXT, priority INTEGER, data BLOB)"
_INSERT: Final = "INSERT INTO hints (id, lane, priority, data) VALUES (?, ?, ?, ?)"


class Hint(NamedTuple):
    """One waiting message."""

    lane: str
    priority: int
    data: bytes


class HintFile:
    """A copy on disk of the hints in memory. Any thread may call; no method raises for what is wrong with the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rows: dict[int, Hint] = {}
        self._last = 0
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._failing = False
        try:
            self._connection = _open(path)
            self._rows = _read(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._rebuild(error)
        self._last = max(self._rows, default=0)

    def rows(self) -> Mapping[int, Hint]:
        """Return the hints by number; a lower number came earlier."""
        with self._lock:
            return dict(self._rows)

    def add(self, hint: Hint) -> int:
        """Write *hint* down and return its number."""
        with self._lock:
            self._last += 1
            self._rows[self._last] = hint
            self._execute(_INSERT, (self._last, *hint))
            return self._last

    def remove(self, number: int) -> None:
        """Strike out the hint *number*."""
        with self._lock:
            del self._rows[number]
            self._execute("DELETE FROM hints WHERE id = ?", (number,))

    def close(self) -> None:
        """Close the file and leave it as it is; hints that come later stay in memory only."""
        with self._lock:
            self._closed = True
            self._drop()

    def _execute(self, statement: str, values: tuple[int | str | bytes, ...]) -> None:
        """Write to the file what memory has already; if that fails, write the file anew."""
        if self._closed:
            return
        try:
            if self._connection is None:
                raise sqlite3.OperationalError("not open")
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            self._rebuild(error)

    def _rebuild(self, reason: Exception) -> None:
        self._drop()
        try:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._connection = _open(self._path)
            self._connection.execute("BEGIN")
            self._connection.executemany(_INSERT, [(number, *hint) for number, hint in self._rows.items()])
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._drop()
            self._complain(error)
            return
        self._failing = False
        log.warning("Queue file rebuilt: %s", reason, extra={"action": "queue_rebuilt", "path": str(self._path)})

    def _complain(self, error: Exception) -> None:
        """Say once that the file cannot be had: a full disk would say it for every job."""
        if not self._failing:
            self._failing = True
            log.warning(
                "The queue is kept in memory only: %s", error, extra={"action": "queue_memory", "path": str(self._path)}
            )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # No patience with a foreign lock: workers wait behind this, and a new file is made in no time.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # Nobody else has business here. It also does without the shared memory that WAL otherwise has: a file mapped
        # into this process, and whoever truncated it would end the daemon with a bus error.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # No sync at all: a write costs microseconds, and a power cut costs hints, which the ledger replaces.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -256")
        connection.execute(_LAYOUT)
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)  # noqa: TRY301 - the handler only closes
    except BaseException:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection) -> dict[int, Hint]:
    """Return the usable rows and delete the others: somebody wrote them who is not us."""
    wanted = "typeof(lane) = 'text' AND typeof(priority) = 'integer' AND typeof(data) = 'blob' AND length(data) <= ?"
    strange = f"id NOT BETWEEN 1 AND ? OR NOT ({wanted})"
    connection.execute(f"DELETE FROM hints WHERE {strange}", (_HIGHEST, _LONGEST))  # noqa: S608 - our own words
    rows = connection.execute("SELECT id, lane, priority, data FROM hints ORDER BY id")
    return {number: Hint(lane, priority, data) for number, lane, priority, data in rows}
