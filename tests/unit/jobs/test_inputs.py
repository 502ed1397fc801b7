"""What becomes of watched inputs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.inputs import clear_error_sidecar, settle_input, write_error_sidecar
from jobs.model import After


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    """A watched input."""
    path = tmp_path / "memo.wav"
    path.write_bytes(b"audio")
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_leave_leaves(memo: Path) -> None:
    """The input stays where it is."""
    assert settle_input(memo, After.LEAVE) == memo
    assert memo.exists()


def test_delete_deletes_and_may_be_repeated(memo: Path) -> None:
    """The input is gone, and settling it again does no harm."""
    assert settle_input(memo, After.DELETE) is None
    assert not memo.exists()
    assert settle_input(memo, After.DELETE) is None


def test_deleting_a_link_spares_its_target(tmp_path: Path, memo: Path) -> None:
    """Only the name in the watched folder goes."""
    link = tmp_path / "link.wav"
    link.symlink_to(memo)
    settle_input(link, After.DELETE)
    assert names(tmp_path) == ["memo.wav"]


def test_done_moves_without_replacing(tmp_path: Path, memo: Path) -> None:
    """Files of the same name gather in done/ under numbers."""
    assert settle_input(memo, After.DONE) == tmp_path / "done" / "memo.wav"
    memo.write_bytes(b"another")
    assert settle_input(memo, After.DONE) == tmp_path / "done" / "memo (2).wav"
    assert names(tmp_path) == ["done/memo (2).wav", "done/memo.wav"]
    assert (tmp_path / "done" / "memo.wav").read_bytes() == b"audio"


@pytest.mark.parametrize("after", list(After))
def test_an_input_that_has_gone_is_settled(tmp_path: Path, after: After) -> None:
    """Somebody moved it away meanwhile: nothing to do, nothing made."""
    assert settle_input(tmp_path / "gone.wav", after) is None
    assert list(tmp_path.iterdir()) == []


def test_a_death_between_the_names_is_finished(tmp_path: Path, memo: Path) -> None:
    """A file that is already in done/ but still here loses the old name; it does not become a second one."""
    (tmp_path / "done").mkdir()
    os.link(memo, tmp_path / "done" / "memo.wav")
    assert settle_input(memo, After.DONE) == tmp_path / "done" / "memo.wav"
    assert names(tmp_path) == ["done/memo.wav"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EEXIST])
def test_done_works_without_hard_links(tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where links cannot be made the file is renamed; where the name was just taken the next one is used."""
    real = os.link
    codes = [code]

    def link(source: Path, target: Path, **options: bool) -> None:
        if codes:
            raise OSError(codes.pop(), "no")
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    expected = "memo.wav" if code == errno.EPERM else "memo (2).wav"
    assert settle_input(memo, After.DONE) == tmp_path / "done" / expected
    assert names(tmp_path) == [f"done/{expected}"]


def test_a_dangling_link_in_done_is_a_taken_name(tmp_path: Path, memo: Path) -> None:
    """Whatever has the name keeps it."""
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "memo.wav").symlink_to("nowhere")
    assert settle_input(memo, After.DONE) == tmp_path / "done" / "memo (2).wav"


def test_what_cannot_be_moved_is_told_and_stays(tmp_path: Path, memo: Path) -> None:
    """A file named done is in the way: one sentence, and the input is where it was."""
    (tmp_path / "done").touch()
    with pytest.raises(OutputError):
        settle_input(memo, After.DONE)
    assert memo.exists()


def test_a_sidecar_explains_and_goes(tmp_path: Path, memo: Path) -> None:
    """The reason lies beside the input under its name, is replaced by the next, and cleared on success."""
    sidecar = write_error_sidecar(memo, "This is not audio.\n")
    assert sidecar == tmp_path / "memo.wav.error.txt"
    assert sidecar.read_text().startswith("This is not audio.\n\n(Written by mlxd.")
    assert write_error_sidecar(memo, "Still not.") == sidecar
    assert "Still not." in sidecar.read_text()
    clear_error_sidecar(memo)
    assert names(tmp_path) == ["memo.wav"]
    clear_error_sidecar(memo)


def test_a_strangers_sidecar_is_left_alone(tmp_path: Path, memo: Path) -> None:
    """A file of the person's own with that name is neither replaced nor cleared."""
    theirs = tmp_path / "memo.wav.error.txt"
    theirs.write_text("my notes")
    ours = write_error_sidecar(memo, "No.")
    assert ours.name == "memo.wav (2).error.txt"
    clear_error_sidecar(memo)
    assert names(tmp_path) == ["memo.wav", "memo.wav.error.txt"]
    assert theirs.read_text() == "my notes"
    theirs.unlink()
    theirs.symlink_to(memo)
    assert write_error_sidecar(memo, "No.") == ours
    assert memo.read_bytes() == b"audio"


def test_a_sidecar_of_a_long_or_odd_name_fits(tmp_path: Path) -> None:
    """Names of 255 bytes, and names that are not text, get a sidecar too."""
    for name in (b"x" * 255, b"\xff\xfe.wav"):
        sidecar = write_error_sidecar(tmp_path / os.fsdecode(name), "No.")
        assert sidecar.exists()
        assert len(os.fsencode(sidecar.name)) <= 255
        clear_error_sidecar(tmp_path / os.fsdecode(name))
    assert names(tmp_path) == []


def test_a_sidecar_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """No folder, no sidecar: one sentence and no temporary file."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_error_sidecar(tmp_path / "file" / "memo.wav", "No.")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("swapped", ["in/folder", "in/folder/done"])
def test_nothing_is_put_away_or_explained_through_a_link(tmp_path: Path, swapped: str) -> None:
    """A folder below the watched one, or ``done``, that leads elsewhere: nothing is moved, written or removed there."""
    root, outside = tmp_path / "in", tmp_path / "outside"
    path = root / "folder" / "memo.wav"
    for folder in (path.parent, outside):
        folder.mkdir(parents=True)
        (folder / path.name).write_bytes(b"audio")
    if swapped == "in/folder":
        path.unlink()
        path.parent.rmdir()
    (tmp_path / swapped).symlink_to(outside)
    with pytest.raises(OutputError):
        settle_input(path, After.DONE, root=root)
    if swapped == "in/folder":
        with pytest.raises(OutputError):
            write_error_sidecar(path, "no", root=root)
    assert names(outside) == ["memo.wav"]
