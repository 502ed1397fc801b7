"""The queue's file: a hint that may be lost, and never a reason to stop."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.hints import Hint, HintFile

ONE, TWO = Hint("normal", 0, b"one"), Hint("batch", 5, b"two")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file lies."""
    return tmp_path / "state" / "queue.sqlite3"


def _on_disk(path: Path) -> list[tuple[str, int, bytes]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT lane, priority, data FROM hints ORDER BY id").fetchall()
    finally:
        connection.close()


def test_hints_are_kept_over_a_restart(path: Path) -> None:
    """What was added and not removed is there again, numbered on."""
    file = HintFile(path)
    first = file.add(ONE)
    second = file.add(TWO)
    file.remove(first)
    file.close()
    again = HintFile(path)
    assert again.rows() == {second: TWO}
    assert again.add(ONE) == second + 1
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [b"rubbish " * 500, b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["text", "damaged"],
)
def test_garbage_at_the_start_is_replaced(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is not ours to read is built anew, and that is said."""
    path.parent.mkdir()
    path.write_bytes(content)
    file = HintFile(path)
    assert file.rows() == {}
    file.add(ONE)
    file.close()
    assert _on_disk(path) == [ONE]
    assert [record.action for record in caplog.records] == ["queue_rebuilt"]  # type: ignore[attr-defined]


def test_another_layout_is_replaced(path: Path) -> None:
    """A table of the same name with other columns is no obstacle."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE hints (colour)")
    connection.close()
    file = HintFile(path)
    file.add(ONE)
    file.close()
    assert _on_disk(path) == [ONE]


def test_unusable_rows_are_dropped_and_the_rest_is_served(path: Path) -> None:
    """Rows of wrong types or sizes go; good ones between them stay."""
    HintFile(path).close()
    connection = sqlite3.connect(path)
    rows = [
        ("normal", 0, b"good"),
        (None, 0, b"x"),
        ("normal", "high", b"x"),
        ("normal", 0, 7),
        ("normal", 0, None),
        ("normal", 0, b"x" * 5000),
    ]
    connection.executemany("INSERT INTO hints (lane, priority, data) VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    file = HintFile(path)
    assert list(file.rows().values()) == [Hint("normal", 0, b"good")]
    file.close()
    assert _on_disk(path) == [("normal", 0, b"good")]


def test_damage_while_running_is_repaired_from_memory(path: Path) -> None:
    """When the file turns to garbage under us, it is written anew with everything that waits."""
    file = HintFile(path)
    file.add(ONE)
    assert file._connection is not None
    file._connection.execute("DROP TABLE hints")
    file.add(TWO)
    file.close()
    assert _on_disk(path) == [ONE, TWO]


def test_a_file_deleted_while_running_hurts_nobody(path: Path) -> None:
    """Adding and removing go on; the next start begins with an empty file, which the ledger fills."""
    file = HintFile(path)
    number = file.add(ONE)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    file.add(TWO)
    file.remove(number)
    assert list(file.rows().values()) == [TWO]
    file.close()
    HintFile(path).close()


def test_without_a_file_hints_live_in_memory(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A place that cannot be written is said once, and everything works as long as the process lives."""
    path.mkdir(parents=True)
    (path / "not empty").touch()
    with caplog.at_level(logging.WARNING):
        file = HintFile(path)
        number = file.add(ONE)
        file.add(TWO)
        file.remove(number)
    assert list(file.rows().values()) == [TWO]
    assert [record.action for record in caplog.records] == ["queue_memory"]  # type: ignore[attr-defined]
    (path / "not empty").unlink()
    path.rmdir()
    file.add(ONE)
    file.close()
    assert _on_disk(path) == [TWO, ONE]


def test_a_foreign_lock_delays_nobody(path: Path) -> None:
    """Another program that had locked the file keeps what it holds; we go on with a new file."""
    file = HintFile(path)
    file.add(ONE)
    file.close()
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN EXCLUSIVE")
    file = HintFile(path)
    file.add(TWO)
    file.close()
    foreign.close()
    assert _on_disk(path) == [TWO]


def test_truncating_any_file_of_ours_ends_nobody(path: Path) -> None:
    """Whichever of SQLite's files is cut to nothing under us, the process lives and the hints stay."""
    program = f"""
import os, pathlib
from jobs.hints import Hint, HintFile
file = HintFile(pathlib.Path({str(path)!r}))
for number in range(50):
    file.add(Hint("normal", 0, b"%d" % number))
for one in pathlib.Path({str(path.parent)!r}).iterdir():
    os.truncate(one, 0)
for number in range(50):
    file.add(Hint("batch", 0, b"%d" % number))
print(len(file.rows()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "100\n"), done.stderr


def test_a_number_beyond_counting_is_dropped(path: Path) -> None:
    """A row with the highest number there is does not keep us from counting on."""
    HintFile(path).close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO hints VALUES (9223372036854775807, 'normal', 0, x'00')")
    connection.commit()
    connection.close()
    file = HintFile(path)
    assert file.add(ONE) == 1
    file.close()
    assert _on_disk(path) == [ONE]


def test_a_closed_file_stays_as_it_was(path: Path) -> None:
    """After the end hints come and go in memory only."""
    file = HintFile(path)
    number = file.add(ONE)
    file.close()
    file.remove(number)
    file.add(TWO)
    assert _on_disk(path) == [ONE]
