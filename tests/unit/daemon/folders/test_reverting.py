"""Taking a job back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.aftermath import Aftermath
from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.identity import Facts
from daemon.folders.intake import Intake, Verdict
from daemon.folders.reverting import Reverting
from daemon.folders.trash import Trash
from jobs.errors import JobConflict
from jobs.journal import Journal
from jobs.ledger import Ledger, utcnow
from jobs.model import Job, OutputFile
from jobs.outputs import OutputWriter
from plugins.manager import PluginManager


class House:
    """A watched folder on a real ledger, with what follows a job's end."""

    def __init__(self, root: Path, *, after: str, again: bool = False) -> None:
        self.folder = FolderConfig(path=root / "in", again=again)
        self.folder.path.mkdir()
        self.rule = RuleConfig(task="t", after=after)
        self.ledger = Ledger(root / "ledger.sqlite3")
        self.journal = Journal(self.ledger)
        self.trash = Trash(root / "trash", system=False, clock=lambda: datetime(2026, 3, 1))  # noqa: DTZ001
        self.bin = root / "trash" / "2026-03-01"
        self.intake = Intake(submit=self.ledger.add, ledger=self.ledger)
        plugins = PluginManager(builtins=())
        self.aftermath = Aftermath(plugins=plugins, unblock=list, journal=self.journal, trash=self.trash)
        self.revert = Reverting(ledger=self.ledger, journal=self.journal, trash=self.trash, clock=utcnow)

    def take(self, name: str = "a.wav", text: str = "audio") -> Job:
        path = self.folder.path / name
        path.write_text(text)
        job = self.look(path)[1]
        assert job is not None
        return job

    def look(self, path: Path) -> tuple[Verdict, Job | None]:
        outcome = self.intake.file(self.folder, path, rule=self.rule, facts=Facts.of(path.lstat()))
        return outcome.verdict, outcome.job

    def run(self, job: Job, *names: str) -> Job:
        """Let the job write these files and end well."""
        claimed = self.ledger.claim(job.id, "me")
        assert claimed is not None
        writer = OutputWriter(
            self.folder.path,
            job_id=job.id,
            intend=lambda output: self.ledger.intend(job.id, claimed.fence, output),
            mine={},
        )
        outputs: list[OutputFile] = [writer.write(name, f"result {name}") for name in names]
        done = self.ledger.finish(job.id, claimed.fence, {}, outputs)
        self.aftermath(done)
        return done

    @property
    def files(self) -> list[str]:
        root = self.folder.path
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture(params=["done", "delete"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, after=request.param)
    yield house
    house.ledger.close()


def test_the_input_returns_and_the_outputs_go(house: House) -> None:
    """Moved or deleted, it is back with the same bytes; results are in the trash; a second time does nothing."""
    job = house.run(house.take(), "a.txt", "a.srt")
    assert "a.wav" not in house.files
    report = house.revert(job.id)
    assert house.files == ["a.wav"]
    assert (house.folder.path / "a.wav").read_text() == "audio"
    assert not (house.folder.path / "done").exists()
    assert report.input is not None
    assert report.input.now == house.folder.path / "a.wav"
    assert sorted(path.name for path in house.bin.iterdir()) == ["a.srt", "a.txt"]
    assert (report.kept, report.already) == ((), False)
    again = house.revert(job.id)
    assert (again.trashed, again.kept, again.already) == ((), (), True)
    assert house.files == ["a.wav"]


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("after", ["done", "delete"])
def test_it_is_not_done_again_by_itself(tmp_path: Path, after: str, again: bool) -> None:
    """Neither by a scan, with or without `again`, nor is it moved away at the next start; a changed one is done."""
    house = House(tmp_path, after=after, again=again)
    job = house.run(house.take(), "a.txt")
    house.revert(job.id)
    path = house.folder.path / "a.wav"
    assert house.look(path)[0] is Verdict.KNOWN
    assert house.aftermath.catch_up(house.ledger) == 0
    assert path.exists()
    path.write_text("something else")
    assert house.look(path)[0] is Verdict.TAKEN
    house.ledger.close()


def test_what_was_changed_since_stays(house: House) -> None:
    """An edited result is kept with a sentence; the others go."""
    job = house.run(house.take(), "a.txt", "a.srt")
    (house.folder.path / "a.txt").write_text("corrected by hand")
    report = house.revert(job.id)
    assert house.files == ["a.txt", "a.wav"]
    assert [(one.path.name, one.why) for one in report.kept] == [("a.txt", "it was changed since the job wrote it")]


def test_a_new_file_of_the_old_name_is_spared(house: House) -> None:
    """Nothing is overwritten, and the results are kept as long as the input is not back."""
    job = house.run(house.take(), "a.txt")
    (house.folder.path / "a.wav").write_text("another recording")
    report = house.revert(job.id)
    assert [one.why for one in report.kept] == [
        "another file has its name; move that one away and try again",
        "kept, because the input did not come back",
    ]
    assert (house.folder.path / "a.wav").read_text() == "another recording"
    (house.folder.path / "a.wav").unlink()
    assert house.revert(job.id).kept == ()
    assert house.files == ["a.wav"]


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_an_input_that_is_no_longer_what_was_moved_is_refused(house: House, change: str) -> None:
    """It was edited in done/, or the trash was emptied."""
    job = house.run(house.take(), "a.txt")
    (move,) = house.journal.moves(job.id)
    if change == "edited":
        move.target.write_text("edited")
    else:
        move.target.unlink()
    (why, _) = (one.why for one in house.revert(job.id).kept)
    assert ("changed since" if change == "edited" else "no longer at") in str(why)
    assert "a.txt" in house.files


def test_a_death_half_way_is_finished(house: House) -> None:
    """The input is back, the results are not gone yet: the next call does the rest."""
    job = house.run(house.take(), "a.txt")
    (move,) = house.journal.moves(job.id)
    house.trash.restore(move.target, move.source)
    report = house.revert(job.id)
    assert house.files == ["a.wav"]
    assert [one.path.name for one in report.trashed] == ["a.txt"]


def test_a_job_that_has_not_ended_is_refused(house: House) -> None:
    """With the command that ends it."""
    job = house.take()
    with pytest.raises(JobConflict, match=f"mlxd cancel {job.id}"):
        house.revert(job.id)
    assert house.journal.reverted(job.id) is None


def test_an_input_that_was_left_where_it_is_needs_no_journal(tmp_path: Path) -> None:
    """With `after = "leave"` only the results go."""
    house = House(tmp_path, after="leave")
    job = house.run(house.take(), "a.txt")
    report = house.revert(job.id)
    assert house.files == ["a.wav"]
    assert report.kept == ()
    house.ledger.close()


def test_an_input_edited_while_its_job_ran_is_not_moved_away(house: House) -> None:
    """It is another file by then, and will be taken as one."""
    job = house.take()
    (house.folder.path / "a.wav").write_text("edited")
    house.run(job, "a.txt")
    assert house.files == ["a.txt", "a.wav"]
    assert house.journal.moves(job.id) == []


def test_pauses_outlive_the_daemon(tmp_path: Path) -> None:
    """They stand in the ledger until the folder is resumed."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    Journal(ledger).pause(tmp_path, now=datetime(2026, 1, 1, tzinfo=UTC))
    Journal(ledger).pause(tmp_path, now=datetime(2026, 1, 2, tzinfo=UTC))
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    assert Journal(ledger).paused() == {tmp_path: datetime(2026, 1, 1, tzinfo=UTC)}
    Journal(ledger).resume(tmp_path)
    assert Journal(ledger).paused() == {}
    ledger.close()


def test_an_unchanged_input_is_not_read_again_to_be_put_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken and still is the same has its hash in the ledger already; a film is not read twice for it."""
    job = house.take()
    monkeypatch.setattr("daemon.aftermath.content_digest", lambda *_: pytest.fail("read again"))
    house.run(job, "a.txt")
    assert house.files == (["a.txt", "done/a.wav"] if house.rule.after == "done" else ["a.txt"])
    house.revert(job.id)
    assert house.files == ["a.wav"]
