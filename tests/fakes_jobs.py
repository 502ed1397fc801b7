"""Fakes for the ledger, the queue and the outputs: time that is moved, disks that fail, processes that die on cue."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.files import Files

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Clock:
    """A wall clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


class Disk:
    """Opens SQLite connections that fail as a disk does, from `break_commits` until `repair`."""

    def __init__(self) -> None:
        self.error: sqlite3.OperationalError | None = None
        self.opened = 0

    def break_commits(self, name: str, message: str) -> None:
        self.error = sqlite3.OperationalError(message)
        self.error.sqlite_errorname = name

    def repair(self) -> None:
        self.error = None

    def connect(self, path: Path) -> sqlite3.Connection:
        self.opened += 1
        disk = self

        class Connection(sqlite3.Connection):
            def commit(self) -> None:
                if disk.error is not None and self.in_transaction:
                    raise disk.error
                super().commit()

        return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, factory=Connection)


class Died(BaseException):
    """The process is gone: nothing runs after it, clean-up included."""


#: What a first writing does, in order (`link` itself calls `remove`).
STEPS = ("open_folder", "create", "write", "publish", "sync", "taken", "link", "remove", "sync")


class ScriptedFiles(Files):
    """Real files, but the n-th operation calls *fate* instead of (or, with *after*, right after) happening."""

    def __init__(self, at: int | None, fate: Callable[[], None], *, after: bool = False) -> None:
        self.at = at
        self.fate = fate
        self.after = after
        self.done: list[str] = []
        self.dead = False

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_") or not callable(value) or not hasattr(Files, name):
            return value
        return lambda *args, **kwargs: self._step(name, value, *args, **kwargs)

    def _step(self, name: str, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.dead:
            raise Died
        self.done.append(name)
        due = len(self.done) - 1 == self.at
        if due and not self.after:
            self._meet_fate()
        result = operation(*args, **kwargs)
        if due and self.after:
            self._meet_fate()
        return result

    def _meet_fate(self) -> None:
        try:
            self.fate()
        except Died:
            self.dead = True
            raise
