"""What follows a job's end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.aftermath import Aftermath
from jobs.model import After, ErrorInfo, Job, Placement, Source, State
from plugins.manager import PluginManager

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(path: Path, state: State, **source: str) -> Job:
    error = ErrorInfo(type="x", message="It is broken.") if state is State.FAILED else None
    return Job(
        id="abcdefghjk",
        seq=1,
        task="transcribe",
        state=state,
        created_at=NOW,
        error=error,
        source=Source(**source),
        placement=Placement(input=path, after=After.DELETE),
    )


@pytest.fixture(name="settle")
def _settle() -> Aftermath:
    return Aftermath(plugins=PluginManager(builtins=()), unblock=lambda: None)


@pytest.mark.parametrize("source", [{"kind": "folder", "rule": "r"}, {"kind": "retry", "rule": "r"}])
def test_a_failed_input_of_a_folder_is_explained_until_it_succeeds(
    settle: Aftermath, tmp_path: Path, source: dict[str, str]
) -> None:
    """Beside the file lies why; when it was done after all, both go."""
    file = tmp_path / "a.wav"
    file.write_text("x")
    settle(ended(file, State.FAILED, **source))
    assert "It is broken." in (tmp_path / "a.wav.error.txt").read_text()
    assert file.exists()
    settle(ended(file, State.SUCCEEDED, **source))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["cli", "retry"])
def test_where_nobody_looks_nothing_is_explained(settle: Aftermath, tmp_path: Path, kind: str) -> None:
    """A recording from standard input lies in a cache, and its submitter has the job; it stays for another try."""
    file = tmp_path / "stdin-x"
    file.write_text("x")
    settle(ended(file, State.FAILED, kind=kind))
    assert list(tmp_path.iterdir()) == [file]
