"""The siege of the hints: what it finds in a log, and that its garbage is garbage."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
from torture.hint_siege import twice
from torture.hint_storm import Trap, hint, junk

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


def test_the_trap_snaps(tmp_path: Path) -> None:
    """Whoever unpickles the message leaves the trace that the row looks for."""
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Trap(trap)))  # noqa: S301 - our own
    assert trap.is_dir()
