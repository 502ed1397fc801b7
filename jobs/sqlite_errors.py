"""SQLite's errors as sentences that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NotSupportedError, ProgrammingError

from jobs.errors import LedgerUnavailable

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
OURS: Final = (IntegrityError, ProgrammingError, DataError, NotSupportedError)

#: After these the log may have holes on the disk that no later sync fills: after a failed fsync the system calls the
#: lost pages clean (https://lwn.net/Articles/752063). A full disk is not among them: SQLite hears of that beforehand.
LYING: Final = "SQLITE_IOERR"


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise `LedgerUnavailable` instead of what SQLite or the system says of the file at *path*."""
    try:
        yield
    except OURS:
        raise
    except OSError as error:  # the file is looked at before each use
        raise LedgerUnavailable(
            f"The ledger {path} cannot be used: {error.strerror}. Check the disk. Nothing was accepted.",
            path=str(path),
            sqlite=LYING,
        ) from error
    except DatabaseError as error:
        name = str(getattr(error.orig, "sqlite_errorname", "") or "SQLITE_ERROR")
        primary = "_".join(name.split("_")[:2])
        advice = _ADVICE.get(primary, f"SQLite says: {error.orig}. Check the disk")
        raise LedgerUnavailable(
            f"The ledger {path} cannot be used: {advice}. Nothing was accepted.",
            path=str(path),
            sqlite=name,
        ) from error
