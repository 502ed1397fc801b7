"""Is a watched file still what its job was made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.folders import taken
from daemon.folders.identity import Facts, FileChanged, content_digest, content_key, place_key
from daemon.folders.taken import TakenFiles, look
from jobs.errors import InputChanged
from jobs.model import Job, Placement


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("as it was")
    return path


def keys_of(path: Path, *, content: bool = True) -> list[str]:
    """Return what is remembered of a file when it is taken."""
    facts = Facts.of(path.lstat())
    place = place_key(path, facts)
    return [content_key(content_digest(path, facts), "rule"), place] if content else [place]


def job_of(path: Path, number: int = 1) -> Job:
    placement = Placement(input=path)
    return Job(
        id=f"job{number:07}", seq=number, task="t", created_at=datetime(2026, 1, 1, tzinfo=UTC), placement=placement
    )


def files_of(path: Path, keys: list[str]) -> TakenFiles:
    return TakenFiles(SimpleNamespace(keys=lambda _job_id: [(path.parent, key) for key in keys]))


def require(path: Path, keys: list[str], *, stopping: bool = False) -> None:
    """Ask as the executor does."""
    files_of(path, keys).require(job_of(path), lambda: stopping)


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "content_digest", lambda *_args, **_more: pytest.fail("it was read"))


def test_an_untouched_file_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stat says enough, and its digest is known from when it was taken."""
    keys = keys_of(file)
    digest = content_digest(file, Facts.of(file.lstat()))
    no_reading(monkeypatch)
    assert look(file, keys) == (Facts.of(file.lstat()), True, digest)
    require(file, keys)


def test_a_touched_file_is_what_it_was(file: Path) -> None:
    """A new time, or the same words written again, make no other job of it."""
    keys = keys_of(file)
    os.utime(file, ns=(1, 1))
    require(file, keys)
    file.unlink()
    file.write_text("as it was")
    require(file, keys)


def test_new_content_is_another_job(file: Path) -> None:
    """The error names the file and says where its new content went."""
    keys = keys_of(file)
    file.write_text("as it is!")
    assert not look(file, keys).taken
    with pytest.raises(InputChanged, match=r"a\.txt was changed .* a job of its own") as caught:
        require(file, keys)
    assert caught.value.facts == {"file": str(file)}


def test_where_only_the_place_is_known_every_change_is_another_job(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with `again` takes a touched file once more; nothing need be read to know that."""
    keys = keys_of(file, content=False)
    no_reading(monkeypatch)
    require(file, keys)
    os.utime(file, ns=(1, 1))
    with pytest.raises(InputChanged):
        require(file, keys)


def test_a_job_that_knows_of_no_file_takes_what_there_is(file: Path) -> None:
    """A job that is tried again by hand, and one that no folder made."""
    require(file, [])
    assert look(file, []).taken


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["gone", "link", "pipe", "folder"],
)
def test_what_is_no_file_is_the_tasks_to_complain_of(file: Path, change: Callable[[Path], object]) -> None:
    """It has a sentence for each, and nothing else will be made of that place."""
    keys = keys_of(file)
    change(file)
    require(file, keys)


def test_what_cannot_be_read_is_the_tasks_to_complain_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not permitted, or still in a cloud: the task says so, or waits for it."""
    keys = keys_of(file)
    file.write_text("as it is!")

    def refuse(*_args: object, **_more: object) -> str:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(taken, "content_digest", refuse)
        require(file, keys)
    no_reading(monkeypatch)
    monkeypatch.setattr(taken, "is_dataless", lambda _status: True)
    require(file, keys)


def test_a_file_that_is_being_written_is_another_job(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes under the reader's eyes: whatever it becomes, it is not what was taken."""
    keys = keys_of(file)
    file.write_text("half of")

    def changing(*_args: object, **_more: object) -> str:
        raise FileChanged

    monkeypatch.setattr(taken, "content_digest", changing)
    with pytest.raises(InputChanged):
        require(file, keys)


def test_a_stopping_daemon_reads_no_large_file(file: Path) -> None:
    """The job goes back into the queue anyway; the next life asks again."""
    keys = keys_of(file)
    file.write_text("as it is!")
    require(file, keys, stopping=True)


def test_a_touched_file_is_read_once_for_its_job(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again when the job has read it, its stat is enough; a new change is looked into; a few jobs are kept."""
    monkeypatch.setattr(taken, "_KEPT", 2)
    files = files_of(file, keys_of(file))
    os.utime(file, ns=(1, 1))
    for number in range(3):
        files.require(job_of(file, number))
    assert len(files._found) <= 2
    with monkeypatch.context() as patch:
        no_reading(patch)
        files.require(job_of(file, 2))
    file.write_text("as it is!")
    with pytest.raises(InputChanged):
        files.require(job_of(file, 2))
