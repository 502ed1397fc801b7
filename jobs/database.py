"""The ledger's SQLite file: one writer, some readers, whole transactions, errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from jobs import schema
from jobs.errors import LedgerUnavailable
from jobs.failpoints import reach
from jobs.files import make_folder
from jobs.groups import Group, Write
from jobs.sqlite_errors import LYING, OURS, translated

T = TypeVar("T")
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
        self._group = Group(self._commit_together)
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

    def run(self, verb: str, body: Callable[[Connection], T]) -> T:
        """Run *body* within a durable transaction, and return what it returns once that is on disk.

        The transaction may be shared with what other threads want written at this moment; what *body* raises undoes
        what it said and nothing else. It may be called again if the transaction it was part of could not be committed.

        Raises:
            LedgerUnavailable: it could not be written, and nothing of it was.

        """
        result: T = self._group.run(Write(verb, body))
        reach(f"ledger.{verb}.committed")
        return result

    def _commit_together(self, writes: Sequence[Write]) -> None:
        """Settle all of *writes*: in one transaction, or each in its own if that one cannot be."""
        if len(writes) == 1:
            self._commit_alone(writes[0])
            return
        try:
            with self._transaction(durable=True) as connection:
                said = [_said(connection, write) for write in writes]
        except (LedgerUnavailable, DatabaseError):  # each hears for itself whether it is the one that cannot be
            for write in writes:
                self._commit_alone(write)
            return
        for write, (result, error) in zip(writes, said, strict=True):
            write.settle(result, error)

    def _commit_alone(self, write: Write) -> None:
        try:
            with self._transaction(durable=True) as connection:
                result = write.body(connection)
                reach(f"ledger.{write.verb}.commit")
        except Exception as error:  # noqa: BLE001 - it is raised where the write was asked for
            write.settle(error=error)
        else:
            write.settle(result)

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
        with self._lock, self._remembered(), translated(self._path):
            self._require_same_file()
            self._fold_doubtful_log()
            connection = self._writer(durable=durable)
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
            except BaseException as error:
                self._undo(connection, drop=isinstance(error, DatabaseError) and not isinstance(error, OURS))
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Lend a connection for one SELECT; it sees everything committed before."""
        with translated(self._path):
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
            self._doubtful |= str(error.facts.get("sqlite", "")).startswith(LYING)
            if news:
                self.on_problem()
            raise
        self.problem = None


@contextlib.contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo what the body said if it raises, and nothing of what was said before in the transaction."""
    connection.exec_driver_sql("SAVEPOINT part")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK TO part")
        connection.exec_driver_sql("RELEASE part")
        raise
    connection.exec_driver_sql("RELEASE part")


def _said(connection: Connection, write: Write) -> tuple[Any, Exception | None]:
    """Say one of several writes; return its result, or what it raised and nobody else needs to know of."""
    try:
        with _savepoint(connection):
            result = write.body(connection)
            reach(f"ledger.{write.verb}.commit")
    except OSError:
        raise
    except DatabaseError as error:
        if not isinstance(error, OURS):
            raise
        return None, error
    except Exception as error:  # noqa: BLE001 - it is raised where the write was asked for
        return None, error
    return result, None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
