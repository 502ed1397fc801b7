"""Result files: names, strangers, replacement, and what is said when it does not work."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes_jobs import STEPS, ScriptedFiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import OutputError, StaleFence, StorageUnavailable
from jobs.files import Files
from jobs.model import OutputFile
from jobs.outputs import OutputWriter


class Book:
    """What the ledger would know: every content intended for every path."""

    def __init__(self) -> None:
        self.intents: dict[Path, set[str]] = {}
        self.calls: list[OutputFile] = []

    def intend(self, output: OutputFile) -> None:
        self.calls.append(output)
        self.intents.setdefault(output.path, set()).add(output.sha256)

    def writer(self, directory: Path, files: Files | None = None) -> OutputWriter:
        return OutputWriter(directory, job_id="job1234567", intend=self.intend, mine=self.intents, files=files)


@pytest.fixture
def book() -> Book:
    """An empty book."""
    return Book()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_file_is_written_as_it_was_given(tmp_path: Path, book: Book) -> None:
    """Text is UTF-8, bytes are bytes; what is returned describes what is on disk."""
    writer = book.writer(tmp_path / "new" / "folder")
    text = writer.write("memo.txt", "Grüße")
    raw = writer.write("memo.bin", b"\0\xff")
    assert text.path.read_text() == "Grüße"
    assert raw.path.read_bytes() == b"\0\xff"
    assert text == OutputFile(
        path=tmp_path / "new" / "folder" / "memo.txt", size=7, sha256=hashlib.sha256("Grüße".encode()).hexdigest()
    )
    assert writer.outputs == (text, raw)
    assert book.calls == [text, raw]


def test_text_that_is_not_unicode_is_written_all_the_same(tmp_path: Path, book: Book) -> None:
    """Half a surrogate pair from a model does not lose the rest of the text."""
    assert book.writer(tmp_path).write("a.txt", "a\ud800b").path.read_text() == "a?b"


def test_a_strangers_file_is_never_touched(tmp_path: Path, book: Book) -> None:
    """A taken name gives the next number, whatever has taken it."""
    (tmp_path / "memo.txt").write_text("mine, says somebody")
    (tmp_path / "memo (2).txt").symlink_to("nowhere")
    (tmp_path / "memo (3).txt").mkdir()
    written = book.writer(tmp_path).write("memo.txt", "ours")
    assert written.path.name == "memo (4).txt"
    assert (tmp_path / "memo.txt").read_text() == "mine, says somebody"
    assert (tmp_path / "memo (2).txt").readlink() == Path("nowhere")


def test_a_file_of_the_same_content_by_somebody_else_is_a_strangers(tmp_path: Path, book: Book) -> None:
    """Content alone does not make a file ours: it may be deleted by its owner."""
    (tmp_path / "memo.txt").write_text("same")
    assert book.writer(tmp_path).write("memo.txt", "same").path.name == "memo (2).txt"


def test_writing_again_replaces_what_the_job_wrote(tmp_path: Path, book: Book) -> None:
    """One name is one file within an attempt, with the last content."""
    writer = book.writer(tmp_path)
    (tmp_path / "manifest.json").write_text("a stranger's")
    for number in range(4):
        last = writer.write("manifest.json", f"{number}")
    assert writer.outputs == (last,)
    assert names(tmp_path) == ["manifest (2).json", "manifest.json"]
    assert last.path.read_text() == "3"


def test_the_same_content_again_is_kept(tmp_path: Path, book: Book) -> None:
    """A repeated attempt that produces the same finds its file done: not even its inode changes."""
    inode = book.writer(tmp_path).write("memo.txt", "same").path.stat().st_ino
    again = book.writer(tmp_path)
    assert again.write("memo.txt", "same").path.stat().st_ino == inode
    assert [output.path.name for output in again.outputs] == ["memo.txt"]
    assert len(book.calls) == 1


def test_other_content_in_a_new_attempt_replaces(tmp_path: Path, book: Book) -> None:
    """A repeated attempt with another answer leaves one file: its own."""
    book.writer(tmp_path).write("memo.txt", "first")
    book.writer(tmp_path).write("memo.txt", "second")
    assert names(tmp_path) == ["memo.txt"]
    assert (tmp_path / "memo.txt").read_text() == "second"


def test_what_somebody_edited_is_theirs(tmp_path: Path, book: Book) -> None:
    """A result that a person has changed since is not overwritten by a repeated attempt."""
    book.writer(tmp_path).write("memo.txt", "ours").path.write_text("corrected by hand")
    assert book.writer(tmp_path).write("memo.txt", "ours").path.name == "memo (2).txt"
    assert (tmp_path / "memo.txt").read_text() == "corrected by hand"


def test_a_new_attempt_finds_its_numbered_file(tmp_path: Path, book: Book) -> None:
    """When the stranger that forced a number has gone, there is still one file, not two."""
    stranger = tmp_path / "memo.txt"
    stranger.touch()
    book.writer(tmp_path).write("memo.txt", "first")
    stranger.unlink()
    assert book.writer(tmp_path).write("memo.txt", "second").path.name == "memo (2).txt"
    assert names(tmp_path) == ["memo (2).txt"]


def test_two_names_stay_two_files(tmp_path: Path, book: Book) -> None:
    """A name that looks like another one's second choice is its own file, in either order."""
    for order in (["a.txt", "a (2).txt"], ["a (2).txt", "a.txt"]):
        writer = book.writer(tmp_path)
        written = {name: writer.write(name, f"I am {name}").path for name in order}
        assert len(set(written.values())) == 2
        assert all(path.read_text() == f"I am {name}" for name, path in written.items())
    assert names(tmp_path) == ["a (2).txt", "a.txt"]


def test_folders_in_a_name_are_made(tmp_path: Path, book: Book) -> None:
    """A batch writes into a folder of its own."""
    assert book.writer(tmp_path).write("run 1/part/a.txt", "x").path == tmp_path / "run 1" / "part" / "a.txt"


def test_no_link_leads_out(tmp_path: Path, book: Book) -> None:
    """A folder inside that is really a link is refused; a directory that the person chose may be a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    chosen = tmp_path / "chosen"
    chosen.symlink_to(outside)
    (outside / "inner").symlink_to(tmp_path)
    writer = book.writer(chosen)
    assert writer.write("a.txt", "x").path == chosen / "a.txt"
    with pytest.raises(OutputError, match="link"):
        writer.write("inner/b.txt", "x")
    assert names(tmp_path / "outside") == ["a.txt"]


PARTS = st.text(st.one_of(st.characters(), st.sampled_from("/\\.\0:~")), max_size=80) | st.sampled_from(
    ["..", "../..", "/etc/passwd", "~root", "a/../../b", "con", ".ssh/x", "x" * 300, "e\u0301"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_no_name_leads_out(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Whatever the name, one file appears, under the directory, visible, without links on the way."""
    root = tmp_path_factory.mktemp("root").resolve()
    written = Book().writer(root / "in").write(name, "x").path
    assert written.resolve() == written
    assert written.is_relative_to(root / "in")
    assert not any(part.startswith(".") for part in written.relative_to(root).parts)
    assert [path for path in root.rglob("*") if path.is_file()] == [written]


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o700, 0o600), (0o755, 0o644), (0o777, 0o644), (0o750, 0o640)])
def test_a_result_is_as_private_as_its_folder(tmp_path: Path, book: Book, folder_mode: int, mode: int) -> None:
    """Who may read the folder may read the file; nobody else may write it."""
    tmp_path.chmod(folder_mode)
    assert book.writer(tmp_path).write("a.txt", "x").path.stat().st_mode & 0o777 == mode


def fail_with(code: int) -> Callable[[], None]:
    def fate() -> None:
        raise OSError(code, os.strerror(code))

    return fate


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_full_disk_at_any_step_leaves_nothing_half_done(tmp_path: Path, book: Book, step: int) -> None:
    """The job gets one sentence, no temporary file stays, a stranger's file is untouched; later it works."""
    folder = tmp_path / "out"
    folder.mkdir()
    files = ScriptedFiles(step, fail_with(errno.ENOSPC))
    with pytest.raises(StorageUnavailable, match=r"the disk is full\. Free some space") as caught:
        book.writer(folder, files).write("memo.txt", "content")
    place = {"path": str(folder / "memo.txt"), "folder": str(folder)}
    assert caught.value.facts == {**place, "errno": "ENOSPC", "needs": len("content")}
    assert files.done[: step + 1] == list(STEPS[: step + 1])
    # After the link the file has its name already; the repeated attempt keeps it.
    assert names(folder) == (["memo.txt"] if step > STEPS.index("link") else [])
    assert book.writer(folder).write("memo.txt", "content").path == folder / "memo.txt"
    assert names(folder) == ["memo.txt"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "privacy settings"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Check the disk"),
        (errno.EFBIG, "File too large"),
    ],
)
def test_other_troubles_are_explained_too(tmp_path: Path, book: Book, code: int, advice: str) -> None:
    """Each trouble says what to do about it."""
    with pytest.raises(OutputError, match=advice):
        book.writer(tmp_path, ScriptedFiles(1, fail_with(code))).write("memo.txt", "x")
    assert names(tmp_path) == []


def test_a_file_in_the_folders_place_is_told(tmp_path: Path, book: Book) -> None:
    """An output folder that is a file gives a sentence."""
    (tmp_path / "out").touch()
    for directory in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OutputError):
            book.writer(directory).write("a.txt", "x")
    (tmp_path / "sub").touch()
    with pytest.raises(OutputError, match="a file or a link"):
        book.writer(tmp_path).write("sub/a.txt", "x")


def test_a_lost_claim_writes_nothing(tmp_path: Path) -> None:
    """When the ledger refuses the intent, no file gets its name and no temporary one stays."""

    def refuse(_: OutputFile) -> None:
        raise StaleFence

    with pytest.raises(StaleFence):
        OutputWriter(tmp_path, job_id="j", intend=refuse, mine={}).write("a.txt", "x")
    assert names(tmp_path) == []


def test_a_name_taken_at_the_last_moment_is_left(tmp_path: Path, book: Book) -> None:
    """Somebody who takes the name between the look and the link keeps it."""

    def take() -> None:
        (tmp_path / "memo.txt").write_text("just in time")

    written = book.writer(tmp_path, ScriptedFiles(STEPS.index("link"), take)).write("memo.txt", "ours")
    assert written.path.name == "memo (2).txt"
    assert (tmp_path / "memo.txt").read_text() == "just in time"
    assert names(tmp_path) == ["memo (2).txt", "memo.txt"]


def test_too_many_namesakes_are_told(tmp_path: Path, book: Book) -> None:
    """The search for a free name ends."""

    class Crowded(Files):
        def taken(self, name: str, *, folder: int) -> bool:
            return True

    with pytest.raises(OutputError, match="too many files"):
        book.writer(tmp_path, Crowded()).write("a.txt", "x")
    assert names(tmp_path) == []


def test_the_longest_name_still_has_room_for_its_temporary_one(tmp_path: Path, book: Book) -> None:
    """A name of 255 bytes works, and so does its second choice."""
    name = "x" * 251 + ".txt"
    assert book.writer(tmp_path).write(name, "x").path.name == name
    (tmp_path / name).write_text("edited")
    assert len(book.writer(tmp_path).write(name, "y").path.name) == 255


def test_what_a_dead_attempt_was_writing_is_swept(tmp_path: Path, book: Book) -> None:
    """Its temporary files go, in every folder it wrote to, also if the new attempt writes other names; no others do."""
    book.writer(tmp_path).write("items/a.txt", "a")
    for name in (".b.txt.job1234567.mlxd-tmp", "items/.c.txt.job1234567.mlxd-tmp", ".d.txt.another123.mlxd-tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / "mine.job1234567.mlxd-tmp").write_text("a person's")
    book.writer(tmp_path).sweep()
    assert names(tmp_path) == [".d.txt.another123.mlxd-tmp", "items/a.txt", "mine.job1234567.mlxd-tmp"]
    book.writer(tmp_path / "not" / "there").sweep()
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("directory", ["in/folder", "in/folder/results"])
def test_results_of_a_watched_folder_go_through_no_link(book: Book, tmp_path: Path, directory: str) -> None:
    """Who may put a link into the watched folder does not choose where results are written."""
    outside = tmp_path / "outside"
    for folder in (tmp_path / "in", outside / "results"):
        folder.mkdir(parents=True)
    (tmp_path / "in" / "folder").symlink_to(outside)
    writer = OutputWriter(tmp_path / directory, job_id="job1234567", intend=book.intend, mine={}, root=tmp_path / "in")
    with pytest.raises(OutputError, match=r"not a folder|is a link"):
        writer.write("a.txt", "x")
    assert names(outside) == []
