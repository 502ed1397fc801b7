"""What strangers do to the queue's file, while mlxd runs and while it does not."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torture.hint_storm import hint, junk

#: SQLite's companions of a file.
SUFFIXES = ("", "-wal", "-shm", "-journal")
_LAYOUT = "CREATE TABLE hints (id INTEGER PRIMARY KEY, lane TEXT, priority INTEGER, data BLOB)"
#: The highest number SQLite has: who counts on from there falls over.
_LAST_NUMBER = 2**63 - 1


class Vandal:
    """Attacks the queue's file *path*. *ids* are the jobs there are, *trap* what an unpickled message would make."""

    def __init__(self, path: Path, chance: random.Random, trap: Path) -> None:
        self._path = path
        self._chance = chance
        self._trap = trap
        self._lockers: list[threading.Thread] = []
        self.ids: Sequence[str] = ()
        #: What was done, by name.
        self.deeds: dict[str, int] = {}
        self._means: tuple[Callable[[], None], ...] = (
            self.delete,
            self.truncate,
            self.scribble,
            self.replace,
            self.plant,
            self.lock,
            self.obstruct,
            self.swap,
        )

    def strike(self, *only: Callable[[], None]) -> None:
        """Do one of these, or of all there is."""
        deed = self._chance.choice(only or self._means)
        with contextlib.suppress(OSError, sqlite3.Error):  # the other side was quicker
            deed()
        self.deeds[deed.__name__] = self.deeds.get(deed.__name__, 0) + 1

    def delete(self) -> None:
        """Remove the file, or one of its companions, or all of them."""
        suffixes = self._chance.choice((SUFFIXES, ("",), ("-wal",)))
        for suffix in suffixes:
            _remove(Path(f"{self._path}{suffix}"))

    def truncate(self) -> None:
        """Cut a file to some length, often to nothing."""
        target = self._some_file()
        os.truncate(target, self._chance.choice((0, 1, 100, 4096, target.stat().st_size // 2)))

    def scribble(self) -> None:
        """Write rubbish somewhere into a file."""
        target = self._some_file()
        with target.open("r+b") as file:
            file.seek(self._chance.randrange(max(1, target.stat().st_size)))
            file.write(self._chance.randbytes(self._chance.choice((1, 16, 5000))))

    def replace(self) -> None:
        """Put something else in its place that is no database."""
        self._clear()
        self._path.write_bytes(self._chance.choice((b"", b"rubbish" * 500, b"SQLite format 3\0" + b"\xff" * 5000)))

    def plant(self) -> None:
        """Put a well-formed file in its place, full of hints that lead nowhere, or elsewhere, or in another lane."""
        self._clear()
        ids = list(self._chance.sample(self.ids, min(len(self.ids), 300)))
        rows: list[tuple[object, ...]] = [
            (None, self._chance.choice(("interactive", "normal", "batch", "no such lane")), number % 201 - 100, data)
            for number, data in enumerate([*map(hint, ids), *junk(self._chance, ids, self._trap)])
        ]
        rows += [(None, "batch", 100, hint(f"nothing{number:03}")) for number in range(300)]
        rows += [(_LAST_NUMBER, "normal", -(2**63), b"x"), (-5, "normal", 2**63 - 1, b"y")]
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute(_LAYOUT)
            if self._chance.random() < 0.3:
                connection.execute("CREATE TRIGGER t BEFORE INSERT ON hints BEGIN SELECT RAISE(ABORT, 'no'); END")
                rows = []
            connection.executemany("INSERT INTO hints VALUES (?, ?, ?, ?)", rows)
            connection.commit()

    def lock(self) -> None:
        """Hold the file locked for a while, as a backup or a curious person would."""
        thread = threading.Thread(target=self._hold, args=(self._chance.uniform(0.05, 0.6),), daemon=True)
        thread.start()
        self._lockers.append(thread)

    def obstruct(self) -> None:
        """Leave something in its place that is no file."""
        self._clear()
        match self._chance.randrange(3):
            case 0:
                self._path.mkdir()
                (self._path / "not empty").touch()
            case 1:
                os.mkfifo(self._path)
            case _:
                self._path.symlink_to(self._path)

    def swap(self) -> None:
        """Bring back an old copy of the file, or keep one for later."""
        old = self._path.with_suffix(".old")
        if old.exists():
            self._clear()
            shutil.copyfile(old, self._path)
        else:
            shutil.copyfile(self._path, old)

    def close(self) -> None:
        """Let go of every lock."""
        for thread in self._lockers:
            thread.join()

    def _hold(self, seconds: float) -> None:
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("BEGIN EXCLUSIVE")
                time.sleep(seconds)

    def _some_file(self) -> Path:
        there = [path for suffix in SUFFIXES if (path := Path(f"{self._path}{suffix}")).is_file()]
        return self._chance.choice(there or [self._path])

    def _clear(self) -> None:
        for suffix in SUFFIXES:
            _remove(Path(f"{self._path}{suffix}"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
