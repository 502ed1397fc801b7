"""The siege of the hints: what it finds in a log, and that its garbage is garbage."""

from __future__ import annotations

import pickle
import random
import threading
from pathlib import Path

import pytest
from torture import hint_storm
from torture.hint_siege import twice
from torture.hint_storm import StormyStorage, Trap, Weather, hint, junk

from jobs.hints import HintFile
from jobs.queue import TASK_NAME, HintSerializer


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["begin a 1 7 0", "commit a 1 7 1"], []),
        (["begin a 1 7 0", "begin a 2 8 1", "commit a 2 8 2"], []),
        (["begin a 1 7 0", "begin a 2 7 1"], ["a was begun 2 times by one process"]),
        (["begin a 1 7 0", "commit a 1 7 1", "begin a 2 8 2"], ["a was begun after its commit"]),
        (["commit a 1 7 1", "commit a 2 8 2"], ["a was committed 2 times"]),
    ],
)
def test_what_happened_twice_is_found(tmp_path: Path, lines: list[str], said: list[str]) -> None:
    """One living process begins a job once, and a job is committed once; another process may begin it again."""
    log = tmp_path / "executions.log"
    log.write_text("\n".join(lines))
    assert twice(log) == said


def test_junk_names_no_job_that_should_run(tmp_path: Path) -> None:
    """None of the garbage is a hint that mlxd would take for one of a job that there is."""
    serializer, known = HintSerializer(), "0123456789"
    for message in junk(random.Random("junk"), [known], tmp_path / "trap"):
        try:
            read = serializer._deserialize(message)
        except (ValueError, RecursionError):
            continue
        assert (read.name, read.args) != (TASK_NAME, (known,))
    assert serializer._deserialize(hint(known)).args == (known,)


def test_a_storm_ends_for_who_waited_in_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that began to wait in a storm loses and doubles nothing that comes after it."""
    monkeypatch.setattr(hint_storm, "WEATHER", [Weather(lost=2.0, doubled=1.0)])
    storage = StormyStorage("normal", file=HintFile(tmp_path / "queue.sqlite3"))
    taken: list[bytes | None] = []
    worker = threading.Thread(target=lambda: taken.extend([storage.dequeue(), storage.dequeue()]))
    waiting = threading.Event()
    monkeypatch.setattr(storage, "_heads", lambda heads=storage._heads: (waiting.set(), heads())[1])
    worker.start()
    assert waiting.wait(10)
    hint_storm.WEATHER[0] = hint_storm.CALM
    storage.enqueue(b"{}")
    storage.enqueue(b"{1}")
    worker.join(10)
    storage.close()
    worker.join(10)
    assert taken == [b"{}", b"{1}"]


def test_the_trap_snaps(tmp_path: Path) -> None:
    """Whoever unpickles the message leaves the trace that the row looks for."""
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Trap(trap)))  # noqa: S301 - our own
    assert trap.is_dir()
