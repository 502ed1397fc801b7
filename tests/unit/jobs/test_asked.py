"""What waiting jobs ask for, found without their prompts."""

from __future__ import annotations

from pathlib import Path

from jobs.asked import Asked, what_is_asked
from jobs.ledger import Ledger
from jobs.model import NewJob


def test_models_are_found_and_prompts_are_left(tmp_path: Path) -> None:
    """The task, the parameters that name models, a pipeline's steps; nothing else, and nothing of jobs that are not."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    steps = [{"task": "transcribe", "params": {"model": "w"}}, {"task": "generate"}]
    given = [
        ("generate", {"prompt": "x" * 1000, "model": "m"}, {"model": "m"}),
        ("memo", {"whisper": "w", "lm": "l", "file": "/a"}, {"whisper": "w", "lm": "l"}),
        ("pipeline", {"steps": steps}, {"steps": steps}),
        ("noop", {}, {}),
    ]
    ids = [ledger.add(NewJob(task=task, params=params))[0].id for task, params, _ in given]
    with ledger.reading() as connection:
        found = what_is_asked(connection, [*ids, "nosuchjob0"])
    assert found == {job_id: Asked(task, wanted) for job_id, (task, _, wanted) in zip(ids, given, strict=True)}
    ledger.close()


def test_many_are_asked_for_in_parts(tmp_path: Path) -> None:
    """More jobs than SQLite takes variables for are no trouble."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    job = ledger.add(NewJob(task="noop"))[0]
    with ledger.reading() as connection:
        assert what_is_asked(connection, [f"no{number:08}" for number in range(40_000)] + [job.id]) == {
            job.id: Asked("noop", {})
        }
    ledger.close()
