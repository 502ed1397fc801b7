"""Front matter on a file's way to its job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_folders import FakeLedger

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.identity import Facts
from daemon.folders.intake import Intake, Verdict
from jobs.accepting import SeenFile
from jobs.errors import InvalidParams
from jobs.model import Job, NewJob

TAKES = {"generate": {"file", "front_matter", "max_tokens", "seed"}, "noop": {"file", "seed"}}


def take(tmp_path: Path, text: str, *, task: str = "generate", refuse: Any = None, **params: Any) -> Job:
    ledger = FakeLedger()
    path = tmp_path / "a.txt"
    path.write_text(text)

    def submit(new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        if refuse is not None and refuse(new.params):
            raise InvalidParams("not right")
        return ledger.submit(new, seen=seen)

    intake = Intake(submit=submit, ledger=ledger, takes=TAKES.get)
    rule = RuleConfig(task=task, params=params)
    outcome = intake.file(FolderConfig(path=tmp_path), path, rule=rule, facts=Facts.of(path.lstat()))
    if outcome.job is None:
        pytest.fail(f"{outcome.verdict}: {outcome.reason}")
    assert outcome.verdict is Verdict.TAKEN
    return outcome.job


def test_the_job_says_what_the_file_says(tmp_path: Path) -> None:
    """Over what the rule says, key by key, and only what the task knows."""
    job = take(tmp_path, "---\nmax_tokens: 7\ntop_k: 3\n---\nx", max_tokens=1, seed=2)
    assert job.params == {"max_tokens": 7, "seed": 2, "file": str(tmp_path / "a.txt")}


def test_only_tasks_that_read_it_are_told(tmp_path: Path) -> None:
    """Those with a parameter `front_matter`, unless the rule switches it off."""
    text = "---\nseed: 7\n---\nx"
    assert "seed" not in take(tmp_path, text, task="noop").params
    assert "seed" not in take(tmp_path, text, front_matter=False).params


@pytest.mark.parametrize("text", ["---\nmodle: x\n---\nx", "---\nseed: -1\n---\nx"])
def test_a_mistake_is_the_files_and_not_the_rules(tmp_path: Path, text: str) -> None:
    """The job is made without it, and its task says what is wrong; the rule goes on with other files."""
    job = take(tmp_path, text, refuse=lambda params: params.get("seed", 0) < 0)
    assert job.params == {"file": str(tmp_path / "a.txt")}
