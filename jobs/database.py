"""The ledger's SQLite file: one writer, some readers, whole transactions, errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.pool import QueuePool

from jobs import schema
from jobs.errors import LedgerUnavailable
from jobs.failpoints import reach
from jobs.files import make_folder

#: Opens one SQLite connection in autocommit mode.
Connect = Callable[[Path], sqlite3.Connection]

#: Seconds to wait for a lock that another program holds on the file.
_PATIENCE: Final = 5.0

#: FULL and the two full fsyncs make an acknowledged commit survive a power cut: plain fsync on macOS does not flush
#: the drive, and both are no-ops elsewhere. They come before the mode, whose setting writes a new file's first page.
#: Readers need little cache; the operating system has the file anyway.
_PRAGMAS: Final = (
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
    "synchronous = FULL",
    "journal_mode = WAL",
    "foreign_keys = ON",
    "cache_size = -512",
    "journal_size_limit = 16777216",
)

#: What a person can do about it, by SQLite's primary error name.
_ADVICE: Final = {
    "SQLITE_FULL": "the disk is full. Free some space; mlxd goes on by itself",
    "SQLITE_IOERR": "the disk reported an error. Check the disk and its free space; mlxd goes on by itself",
    "SQLITE_READONLY": "it may not be written. Check the permissions of the file and its folder",
    "SQLITE_PERM": "it may not be written. Check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened. Check that its folder exists and may be written",
    "SQLITE_BUSY": "another program holds it locked. Close that program",
    "SQLITE_LOCKED": "another program holds it locked. Close that program",
    "SQLITE_CORRUPT": "it is damaged. Restore a copy, or move it away to start afresh",
    "SQLITE_NOTADB": "it is not a SQLite database. Restore a copy, or move it away to start afresh",
}

#: Mistakes of ours, not of the disk: let them be seen as what they are.
_OURS: Final = (IntegrityError, ProgrammingError, DataError, NotSupportedError)

#: After these the log may have holes on the disk that no later sync fills: after a failed fsync the system calls the
#: lost pages clean (https://lwn.net/Articles/752063). A full disk is not among them: SQLite hears of that beforehand.
_LYING: Final = "SQLITE_IOERR"


def connect(path: Path) -> sqlite3.Connection:
    """Open *path*; transactions are begun by hand, because sqlite3's own idea of them leaves out DDL and reads."""
    return sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


class Database:
    """The file at *path*, created (mode 0600) and migrated on the way in."""

    def __init__(self, path: Path, *, connect: Connect = connect) -> None:
        self._path = path
        self._connect = connect
        # Held for the length of each write: SQLite has one writer, and waiting here is fairer than its busy polling.
        self._lock = threading.Lock()
        self._writers: dict[bool, Connection] = {}
        self._closed = False
        #: Device and inode of the file, once it is there.
        self._file: tuple[int, int] | None = None
        #: Why the last write failed, None since one succeeded.
        self.problem: str | None = None
        #: Called when `problem` comes up, with the lock held: it must return at once and not write.
        self.on_problem: Callable[[], None] = lambda: None
        #: Whether a write or sync failed since the log was last folded into the file.
        self._doubtful = False
        self._engine: Engine = create_engine(
            "sqlite://",
            creator=self._open,
            poolclass=QueuePool,
            pool_size=3,
            max_overflow=16,
            pool_reset_on_return=None,
        )
        try:
            self._create()
            self._refuse_newer()
            while self._upgrade():
                pass
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; SQLite then folds the log into the file. Closing twice is fine."""
        with self._lock:
            self._closed = True
            for connection in self._writers.values():
                connection.close()
            self._writers.clear()
            self._engine.dispose()

    @contextlib.contextmanager
    def write(self, verb: str, *, durable: bool = True) -> Iterator[Connection]:
        """Run the body as one transaction and commit it, on disk when *durable*; roll back if it raises.

        *verb* names its failpoints: one of `jobs.failpoints.VERBS`.

        Raises:
            LedgerUnavailable: it could not be written, and nothing was.

        """
        with self._transaction(durable=durable) as connection:
            yield connection
            reach(f"ledger.{verb}.commit")
        reach(f"ledger.{verb}.committed")

    def probe(self) -> bool:
        """Find out by a durable write that changes nothing whether `problem` has passed; return whether all is well."""
        with contextlib.suppress(LedgerUnavailable), self._transaction(durable=True) as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            connection.exec_driver_sql(f"PRAGMA user_version = {version}")
        return self.problem is None

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[Connection]:
        with self._lock, self._remembered(), self._translated():
            self._require_same_file()
            self._fold_doubtful_log()
            connection = self._writer(durable=durable)
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
            except BaseException as error:
                self._undo(connection, drop=isinstance(error, DatabaseError) and not isinstance(error, _OURS))
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Lend a connection for one SELECT; it sees everything committed before."""
        with self._translated():
            if self._closed:
                raise self._gone()
            self._require_same_file()
            with self._engine.connect() as connection:
                yield connection

    def _create(self) -> None:
        try:
            make_folder(self._path.parent, mode=0o700)
            # SQLite's own files beside it inherit the mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
            self._file = _identity(self._path)
        except OSError as error:
            raise LedgerUnavailable(
                f"The ledger {self._path} cannot be opened: {error.strerror}. Check the folder and its permissions.",
                path=str(self._path),
            ) from error

    def _refuse_newer(self) -> None:
        """Refuse a newer mlxd's ledger before anything touches its log: who may write folds it in when they close."""
        with contextlib.suppress(OSError, sqlite3.Error):  # whatever is wrong, the first write says it
            if not Path(f"{self._path}-wal").stat().st_size:
                return
            only_reading = f"{self._path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(only_reading, timeout=_PATIENCE, uri=True)) as connection:
                ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            schema.require_known(version, self._path)

    def _upgrade(self) -> bool:
        with self.write("migrate") as connection:
            return schema.upgrade(connection, self._path)

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(self._path)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    def _writer(self, *, durable: bool) -> Connection:
        if self._closed:
            raise self._gone()
        connection = self._writers.get(durable)
        if connection is None:
            connection = self._engine.connect()
            # In WAL mode a commit that is not synced is carried to disk by the next one that is.
            connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            if not durable:
                # SQLite keeps quiet about a checkpoint's failed sync: let only those begin one who have just synced.
                connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 0")
            connection.commit()
            # It leaves the pool: its pragmas differ, and a broken one is never lent again.
            connection.detach()
            self._writers[durable] = connection
        return connection

    def _fold_doubtful_log(self) -> None:
        """After a failed write or sync: copy the whole log into the file, synced, and begin an empty one.

        Nothing is acknowledged on top of pages that the disk may have lost: what was acknowledged before is written
        once more, to another place, by a handle that has seen no error. What was refused is not in it.
        """
        if not self._doubtful:
            return
        connection = self._writer(durable=True)
        try:
            busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            connection.commit()
        except DatabaseError:
            self._undo(connection, drop=True)
            raise
        if busy:
            raise LedgerUnavailable(
                f"The ledger {self._path} recovers from an error of the disk, and somebody reads it. Try again.",
                path=str(self._path),
            )
        self._doubtful = False

    def _undo(self, connection: Connection, *, drop: bool) -> None:
        """Roll back; after an error of the disk also *drop* the connection, whose file handle may lie by now."""
        with contextlib.suppress(DatabaseError):
            connection.rollback()
        if drop:
            self._writers = {durable: writer for durable, writer in self._writers.items() if writer is not connection}
            with contextlib.suppress(DatabaseError):
                connection.close()

    def _gone(self) -> LedgerUnavailable:
        return LedgerUnavailable("The ledger is closed: mlxd is stopping.", path=str(self._path))

    def _require_same_file(self) -> None:
        """Refuse to go on with a file that nobody will find again: what it takes would be lost at the next start."""
        if _identity(self._path) != self._file:
            raise LedgerUnavailable(
                f"The ledger {self._path} was deleted, moved or replaced while mlxd runs. "
                "Put it back, or stop mlxd and start it again. Nothing was accepted.",
                path=str(self._path),
            )

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        """Keep what a write failed of in `problem`."""
        try:
            yield
        except LedgerUnavailable as error:
            news, self.problem = self.problem is None, error.message
            self._doubtful |= str(error.facts.get("sqlite", "")).startswith(_LYING)
            if news:
                self.on_problem()
            raise
        self.problem = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _OURS:
            raise
        except OSError as error:  # the file is looked at before each use
            raise LedgerUnavailable(
                f"The ledger {self._path} cannot be used: {error.strerror}. Check the disk. Nothing was accepted.",
                path=str(self._path),
                sqlite=_LYING,
            ) from error
        except DatabaseError as error:
            name = str(getattr(error.orig, "sqlite_errorname", "") or "SQLITE_ERROR")
            primary = "_".join(name.split("_")[:2])
            advice = _ADVICE.get(primary, f"SQLite says: {error.orig}. Check the disk")
            raise LedgerUnavailable(
                f"The ledger {self._path} cannot be used: {advice}. Nothing was accepted.",
                path=str(self._path),
                sqlite=name,
            ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
