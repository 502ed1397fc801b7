"""Just enough of a `sqlite3.Connection` over apsw: what SQLAlchemy and the ledger ask of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw

_ERRORS = {apsw.ConstraintError: sqlite3.IntegrityError, apsw.MismatchError: sqlite3.IntegrityError}
_DAMAGE = (apsw.CorruptError, apsw.NotADBError)


def translated(error: apsw.Error) -> sqlite3.Error:
    """Return *error* as sqlite3 would have raised it."""
    kind = _ERRORS.get(type(error), sqlite3.DatabaseError if isinstance(error, _DAMAGE) else sqlite3.OperationalError)
    found = kind(str(error))
    code = getattr(error, "extendedresult", 1)
    found.sqlite_errorcode = code
    found.sqlite_errorname = str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes[code & 0xFF])
    return found


class Cursor:
    """Runs one statement and keeps all its rows: the ledger's results are small."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    @property
    def lastrowid(self) -> int:
        return self.connection.real.last_insert_rowid()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        real = self.connection.real
        cursor = real.cursor()
        before, self.description = real.total_changes(), None
        cursor.exec_trace = self._describe
        try:
            self._rows = iter(list(cursor.execute(self.connection.broken(statement), tuple(values))))
        except apsw.Error as error:
            raise translated(error) from error
        changed = real.total_changes() - before
        self.rowcount = changed if changed or self.description is None else -1
        return self

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> Cursor:
        for values in rows:
            self.execute(statement, values)
        return self

    def _describe(self, cursor: apsw.Cursor, statement: str, bindings: Any) -> bool:
        columns = cursor.get_description()
        self.description = tuple((column[0], None, None, None, None, None, None) for column in columns) or None
        return True

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def close(self) -> None:
        self._rows = iter(())


class Connection:
    """In autocommit mode, as `jobs.database.connect` opens it. *overrides*: pragmas that keep the value given here."""

    isolation_level = None

    def __init__(self, real: apsw.Connection, overrides: Mapping[str, str]) -> None:
        self.real = real
        self._overrides = overrides

    def broken(self, statement: str) -> str:
        """Return *statement*, or the pragma that a control has in its place."""
        words = statement.split()
        if len(words) > 2 and words[0] == "PRAGMA" and words[1] in self._overrides:
            return f"PRAGMA {words[1]} = {self._overrides[words[1]]}"
        return statement

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def cursor(self) -> Cursor:
        return Cursor(self)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        return self.cursor().execute(statement, values)

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        try:
            self.real.close()
        except apsw.Error as error:
            raise translated(error) from error

    def create_function(self, *args: Any, **kwargs: Any) -> None:
        """SQLAlchemy brings functions that the ledger does not use."""
