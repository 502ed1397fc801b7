"""A file that holds still becomes a job, once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import FakeLedger

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.identity import Facts
from daemon.folders.intake import Intake, Outcome, Verdict, describe
from jobs.errors import InvalidParams, LedgerUnavailable, QueueFull, UnknownTask
from jobs.provenance import MadeFile, Provenance, sidecar_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RULE = RuleConfig(task="generate", name="prompts")


class Desk:
    """Intake on a real folder with a ledger in memory."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = FolderConfig(path=root, **options)
        self.ledger = FakeLedger()
        self.intake = self.restarted()

    def restarted(self) -> Intake:
        return Intake(submit=self.ledger.submit, ledger=self.ledger)

    def write(self, name: str, text: str = "hello") -> Path:
        path = self.folder.path / name
        path.write_text(text)
        return path

    def file(self, path: Path, *, rule: RuleConfig = RULE, facts: Facts | None = None) -> Outcome:
        return self.intake.file(self.folder, path, rule=rule, facts=facts or Facts.of(path.lstat()))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_file_is_taken_once(desk: Desk) -> None:
    """The second look, and the first after a restart, know it without reading it again."""
    path = desk.write("a.txt")
    outcome = desk.file(path)
    assert outcome.verdict is Verdict.TAKEN
    assert outcome.job is not None
    assert outcome.job.source.rule == "prompts"
    path.chmod(0)
    assert desk.file(path).verdict is Verdict.KNOWN
    desk.intake = desk.restarted()
    assert desk.file(path).verdict is Verdict.KNOWN


def test_a_restart_between_job_and_note_does_it_not_twice(desk: Desk) -> None:
    """The content's key is written with the job; what is only noted afterwards may be lost."""
    path = desk.write("a.txt")
    desk.file(path)
    desk.ledger.keys = {key: job for key, job in desk.ledger.keys.items() if key[1].startswith("content:")}
    assert desk.file(path).verdict is Verdict.KNOWN
    assert any(key.startswith("place:") for _, key in desk.ledger.keys)


def test_a_touched_file_is_not_done_twice(desk: Desk) -> None:
    """A new time changes nothing."""
    path = desk.write("a.txt")
    desk.file(path)
    os.utime(path, ns=(1, 1))
    assert desk.file(path).verdict is Verdict.KNOWN
    assert len(desk.ledger.jobs) == 1


@pytest.mark.parametrize("change", ["copied", "renamed"])
def test_the_same_content_under_another_name_is_a_job_of_its_own(desk: Desk, change: str) -> None:
    """Nothing that is put there goes unanswered; but each name is taken once, touched and after a restart too."""
    path = desk.write("a.txt")
    desk.file(path)
    path = desk.write("b.txt") if change == "copied" else path.rename(path.with_name("b.txt"))
    assert desk.file(path).verdict is Verdict.TAKEN
    assert desk.file(path).verdict is Verdict.KNOWN
    os.utime(path, ns=(1, 1))
    assert desk.file(path).verdict is Verdict.KNOWN
    desk.intake = desk.restarted()
    os.utime(path, ns=(2, 2))
    assert desk.file(path).verdict is Verdict.KNOWN
    assert len(desk.ledger.jobs) == 2


def test_a_rule_may_refuse_recorded_results(desk: Desk) -> None:
    """What the rule says of reuse and of sidecars, its jobs say."""
    rule = RULE.model_copy(update={"reuse": False, "provenance": True})
    job = desk.file(desk.write("a.txt"), rule=rule).job
    assert job is not None
    assert (job.reuse, job.provenance) == (False, True)


def test_an_output_that_came_from_elsewhere_is_no_input(desk: Desk) -> None:
    """Its sidecar says that mlxd wrote it, if not this one: rules on two Macs that share a folder never loop."""
    path = desk.write("b.txt")
    made = Provenance(
        job="x", task="generate", submitted=NOW, done=NOW, outputs=(MadeFile(name="b.txt", size=5, sha256="0"),)
    )
    sidecar_of(path).write_text(made.model_dump_json())
    assert desk.file(path).verdict is Verdict.OUTPUT
    sidecar_of(path).write_text("{}")
    assert desk.file(path).verdict is Verdict.TAKEN


def test_a_changed_file_is_a_new_job(desk: Desk) -> None:
    """New content under the old name is done."""
    desk.file(desk.write("a.txt", "one"))
    assert desk.file(desk.write("a.txt", "two!")).verdict is Verdict.TAKEN


def test_again_does_the_same_content_once_more(tmp_path: Path) -> None:
    """With `again` only the very same file, unchanged at its place, is known."""
    desk = Desk(tmp_path, again=True)
    path = desk.write("a.txt")
    assert desk.file(path).verdict is Verdict.TAKEN
    assert desk.file(path).verdict is Verdict.KNOWN
    assert desk.file(desk.write("b.txt")).verdict is Verdict.TAKEN
    os.utime(path, ns=(1, 1))
    assert desk.file(path).verdict is Verdict.TAKEN


def test_a_changed_rule_is_for_files_that_come_from_then_on(desk: Desk) -> None:
    """What lies there is not done again because a parameter changed; a copy of it is."""
    path = desk.write("a.txt")
    desk.file(path)
    changed = RULE.model_copy(update={"params": {"max_tokens": 5}})
    assert desk.file(path, rule=changed).verdict is Verdict.KNOWN
    assert desk.file(desk.write("b.txt"), rule=changed).verdict is Verdict.TAKEN


def test_a_failed_file_is_tried_again_when_it_is_put_there_again(desk: Desk) -> None:
    """Not by itself; but a copy of it asks for another try, and each copy for one."""
    path = desk.write("a.txt")
    desk.file(path)
    desk.ledger.fail(0)
    assert desk.file(path).verdict is Verdict.KNOWN
    copy = desk.write("b.txt")
    assert desk.file(copy).verdict is Verdict.TAKEN
    assert desk.file(copy).verdict is Verdict.KNOWN


def test_a_failed_file_is_not_taken_again_after_a_death(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed as soon as the job was written down: its failure does not make a new file of the one that lies there."""

    class Killed(BaseException):
        pass

    def killed(failpoint: str) -> None:
        if failpoint == "file.taken":
            raise Killed

    path = desk.write("a.txt")
    with monkeypatch.context() as patch:
        patch.setattr("daemon.folders.intake.reach", killed)
        with pytest.raises(Killed):
            desk.file(path)
    desk.ledger.fail(0)
    desk.intake = desk.restarted()
    assert desk.file(path).verdict is Verdict.KNOWN
    assert len(desk.ledger.jobs) == 1


def test_a_new_file_is_written_down_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content and its place come with its job; only where the job was there before is the place noted by itself."""
    noted: list[str] = []
    monkeypatch.setattr(desk.ledger, "remember", lambda _folder, _key, job_id: noted.append(job_id))
    path = desk.write("a.txt")
    desk.file(path)
    assert not noted
    os.utime(path, (1, 1))
    assert desk.file(path).verdict is Verdict.KNOWN
    assert noted == [desk.ledger.jobs[0].id]


def test_a_job_that_was_cleaned_away_still_counts(desk: Desk) -> None:
    """Its content was done, even if the ledger no longer has the job."""
    desk.file(desk.write("a.txt"))
    desk.ledger.jobs.clear()
    assert desk.file(desk.write("b.txt")).verdict is Verdict.KNOWN


def test_our_own_outputs_are_no_inputs(desk: Desk) -> None:
    """Asked by the name as it is and as we would have written it."""
    path = desk.write("a\u0308.txt")
    desk.ledger.outputs.add(desk.folder.path / "\u00e4.txt")
    assert desk.file(path).verdict is Verdict.OUTPUT
    desk.ledger.outputs = {path}
    assert desk.file(path).verdict is Verdict.OUTPUT
    desk.ledger.outputs.clear()
    assert desk.file(path).verdict is Verdict.TAKEN


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (QueueFull(), Verdict.LATER),
        (LedgerUnavailable(), Verdict.LATER),
        (InvalidParams("no such model"), Verdict.RULE),
        (UnknownTask(), Verdict.RULE),
    ],
    ids=["full", "ledger", "params", "task"],
)
def test_what_is_refused_is_tried_again_without_reading_it_again(
    desk: Desk, error: Exception, verdict: Verdict
) -> None:
    """A refusal leaves nothing behind; the digest is kept as long as the file is the same."""
    path = desk.write("a.txt")
    desk.ledger.errors = [error]
    outcome = desk.file(path)
    assert outcome.verdict is verdict
    assert outcome.reason
    assert desk.ledger.keys == {}
    assert list(desk.intake._digests) == [path]
    assert desk.file(path).verdict is Verdict.TAKEN
    assert desk.intake._digests == {}


def test_kept_digests_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue and endless files do not fill the memory."""
    monkeypatch.setattr("daemon.folders.intake._KEPT_DIGESTS", 2)
    for number in range(5):
        desk.ledger.errors = [QueueFull()]
        desk.file(desk.write(f"{number}.txt", str(number)))
    assert len(desk.intake._digests) <= 2


def test_a_file_that_is_another_by_now_settles_again(desk: Desk) -> None:
    """What was looked at and what is opened must be the same, also when only the digest is known from before."""
    path = desk.write("a.txt")
    before = Facts.of(path.lstat())
    desk.ledger.errors = [QueueFull()]
    desk.file(path)
    desk.write("a.txt", "longer than before")
    assert desk.file(path, facts=before).verdict is Verdict.CHANGED
    desk.intake._digests.clear()
    assert desk.file(path, facts=before).verdict is Verdict.CHANGED


def test_reading_stops_with_the_daemon(desk: Desk) -> None:
    """An interrupted reading leaves the file for the next start."""
    path = desk.write("a.txt")
    desk.intake.interrupt()
    assert desk.file(path).verdict is Verdict.CHANGED
    assert desk.ledger.jobs == []


def gone(path: Path) -> None:
    path.unlink()


def became_a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


@pytest.mark.parametrize("change", [gone, became_a_link])
def test_a_file_that_is_no_more_is_dropped(desk: Desk, change: Callable[[Path], None]) -> None:
    """Deleted, or replaced by a link: there is nothing to take."""
    path = desk.write("a.txt")
    facts = Facts.of(path.lstat())
    change(path)
    assert desk.file(path, facts=facts).verdict is Verdict.GONE


def test_a_file_that_cannot_be_opened_is_refused_with_its_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are told as the system tells them; too many open files are everybody's matter."""
    path = desk.write("a.txt")

    def refuse(number: int) -> Callable[..., int]:
        def open_(*_args: Any) -> int:
            raise OSError(number, os.strerror(number))

        return open_

    monkeypatch.setattr("daemon.folders.identity.os.open", refuse(errno.EACCES))
    assert desk.file(path) == Outcome(Verdict.REFUSED, reason="a.txt: Permission denied")
    monkeypatch.setattr("daemon.folders.identity.os.open", refuse(errno.EMFILE))
    assert desk.file(path).verdict is Verdict.LATER


def test_macos_privacy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS says EPERM where it wants the person's permission."""
    denied = PermissionError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr("sys.platform", "linux")
    assert describe(denied) == "Operation not permitted"
    monkeypatch.setattr("sys.platform", "darwin")
    assert "Privacy & Security" in describe(denied)
    assert describe(OSError("odd")) == "odd"


def test_a_name_that_is_no_text_is_refused(desk: Desk) -> None:
    """Bytes that are no UTF-8 cannot be written into a job; the sentence shows them escaped."""
    raw = os.fsencode(desk.folder.path) + b"/\xff.txt"
    with open(raw, "wb") as file:  # noqa: PTH123 - the name is bytes
        file.write(b"x")
    outcome = desk.file(Path(os.fsdecode(raw)))
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.reason.encode().startswith(b"'\\udcff.txt'")


def test_a_file_that_was_done_after_all_is_not_done_again(desk: Desk) -> None:
    """It failed, was put there once more and done: from then on touching it changes nothing."""
    path = desk.write("a.txt")
    desk.file(path)
    desk.ledger.fail(0)
    os.utime(path, ns=(1, 1))
    assert desk.file(path).verdict is Verdict.TAKEN
    os.utime(path, ns=(2, 2))
    assert desk.file(path).verdict is Verdict.KNOWN
    assert len(desk.ledger.jobs) == 2


def test_a_copy_of_what_failed_is_known_by_its_own_name(desk: Desk) -> None:
    """The first file's failure is not the copy's: that was done, and touching it changes nothing."""
    desk.file(desk.write("a.txt"))
    desk.ledger.fail(0)
    copy = desk.write("b.txt")
    assert desk.file(copy).verdict is Verdict.TAKEN
    os.utime(copy, ns=(1, 1))
    assert desk.file(copy).verdict is Verdict.KNOWN


def test_a_copy_that_failed_is_tried_again_when_it_is_put_there_again(desk: Desk) -> None:
    """Though the file with the same content went well."""
    desk.file(desk.write("a.txt"))
    copy = desk.write("b.txt")
    desk.file(copy)
    desk.ledger.fail(1)
    os.utime(copy, ns=(1, 1))
    assert desk.file(copy).verdict is Verdict.TAKEN
