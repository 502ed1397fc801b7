"""What follows a job's end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.aftermath import Aftermath
from daemon.folders.identity import Facts, place_key
from jobs.errors import LedgerUnavailable
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
    return Aftermath(
        plugins=PluginManager(builtins=()),
        unblock=lambda: None,
        journal=SimpleNamespace(keys=lambda _: ()),  # type: ignore[arg-type]
        trash=SimpleNamespace(put=lambda path, _, root: path.unlink()),  # type: ignore[arg-type]
        notify=lambda _: None,
    )


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


@pytest.mark.parametrize(
    ("state", "told", "plugins_hear"),
    [
        (State.SUCCEEDED, True, True),
        (State.FAILED, True, True),
        (State.CANCELLED, True, True),
        (State.QUARANTINED, True, False),
        (State.QUEUED, False, False),
        (State.BLOCKED, False, False),
    ],
)
def test_who_hears_of_which_end(state: State, told: bool, plugins_hear: bool) -> None:
    """Plugins hear of terminal states, the notifier also of a quarantine, which waits for a person; of nothing else."""
    heard: list[Job] = []
    notified: list[Job] = []
    aftermath = Aftermath(
        plugins=SimpleNamespace(job_finished=heard.append),  # type: ignore[arg-type]
        unblock=lambda: None,
        journal=SimpleNamespace(),  # type: ignore[arg-type]
        trash=SimpleNamespace(),  # type: ignore[arg-type]
        notify=notified.append,
    )
    job = Job(task="t", id="aaaaaaaaaa", seq=1, state=state, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    aftermath(job)
    assert (bool(notified), bool(heard)) == (told, plugins_hear)


def test_plugins_hear_once_even_if_the_ledger_fails_meanwhile() -> None:
    """What needs the ledger comes first and is passed on to be done again; the hook, which may do anything, is last."""
    heard: list[Job] = []
    tries: list[Job] = []

    def notify(job: Job) -> None:
        tries.append(job)
        if len(tries) == 1:
            raise LedgerUnavailable("disk full")

    aftermath = Aftermath(
        plugins=SimpleNamespace(job_finished=heard.append),  # type: ignore[arg-type]
        unblock=lambda: None,
        journal=SimpleNamespace(),  # type: ignore[arg-type]
        trash=SimpleNamespace(),  # type: ignore[arg-type]
        notify=notify,
    )
    job = Job(task="t", id="aaaaaaaaaa", seq=1, state=State.SUCCEEDED, created_at=NOW)
    with pytest.raises(LedgerUnavailable):
        aftermath(job)
    assert heard == []
    aftermath(job)
    assert (len(tries), heard) == (2, [job])


def test_an_input_is_put_away_when_the_ledger_can_be_written(settle: Aftermath, tmp_path: Path) -> None:
    """The journal of moves is in the ledger: while that fails, the input stays, and whoever asks hears of it."""
    file = tmp_path / "a.wav"
    file.write_text("x")
    answers: list[tuple[str, str]] | None = None

    def keys(_job: str) -> list[tuple[str, str]]:
        if answers is None:
            raise LedgerUnavailable("disk full")
        return answers

    settle._journal = SimpleNamespace(keys=keys)  # type: ignore[assignment]
    with pytest.raises(LedgerUnavailable):
        settle(ended(file, State.SUCCEEDED, kind="folder"))
    assert file.exists()
    answers = []
    settle(ended(file, State.SUCCEEDED, kind="folder"))
    assert not file.exists()


def test_a_place_whose_job_stepped_aside_is_looked_at_again(tmp_path: Path) -> None:
    """The watcher may have taken what lies there for that job's; of a job that a person took back nothing is said."""
    anew: list[Path] = []
    aftermath = Aftermath(
        plugins=PluginManager(builtins=()),
        unblock=lambda: None,
        journal=SimpleNamespace(),  # type: ignore[arg-type]
        trash=SimpleNamespace(),  # type: ignore[arg-type]
        anew=anew.append,
    )
    aftermath(ended(tmp_path / "a.txt", State.CANCELLED, kind="folder", rule="r"))
    assert anew == []
    why = ErrorInfo(type="input-changed", message="It was changed.")
    aside = ended(tmp_path / "a.txt", State.CANCELLED, kind="folder", rule="r").model_copy(update={"error": why})
    aftermath(aside)
    assert anew == [tmp_path / "a.txt"]
    assert list(tmp_path.iterdir()) == []


def test_where_only_the_place_is_known_a_changed_input_stays(settle: Aftermath, tmp_path: Path) -> None:
    """A folder with `again` keeps no contents: what was written there meanwhile is another job's, and not put away."""
    file = tmp_path / "a.wav"
    file.write_text("x")
    place = place_key(file, Facts.of(file.lstat()))
    settle._journal = SimpleNamespace(keys=lambda _job: [(tmp_path, place)])  # type: ignore[assignment]
    file.write_text("another")
    settle(ended(file, State.SUCCEEDED, kind="folder"))
    assert file.exists()
