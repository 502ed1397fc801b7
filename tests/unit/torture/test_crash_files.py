"""File operations on the simulated disk: all are written down, and outputs survive where careless writing does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torture.crash_cut import cut
from torture.crash_disk import Disk, Image, Op, Replay, of_folder, rng
from torture.crash_files import recording
from torture.rows.power_outputs import Plan, Tally, attack

from jobs.files import make_folder
from jobs.inputs import move_file, write_error_sidecar
from jobs.outputs import OutputWriter

CUTS = 60


@pytest.fixture
def disk() -> Disk:
    """An empty disk."""
    return Disk()


def images(disk: Disk, *, cached: bool = False) -> list[Image]:
    """Return what cuts at the end leave."""
    replay = Replay(disk.events, cached=cached)
    replay.forward(len(disk.events))
    return [cut(replay, rng("test", number)) for number in range(CUTS)]


def writer(directory: Path) -> OutputWriter:
    return OutputWriter(directory, job_id="abcdefghjk", intend=lambda _output: None, mine={})


def plainly(directory: Path) -> None:
    os.mkdir(directory)  # noqa: PTH102 - seen like every other way to do it
    file = os.open(directory / "f", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(file, b"content")
    os.close(file)


def test_everything_is_written_down(tmp_path: Path, disk: Disk) -> None:
    """Played back whole, it gives what really lies there: outputs, moves, sidecars, names taken away, plain writing."""
    with recording(tmp_path, disk):
        for name in ("a", "b/c", "a"):
            writer(tmp_path / "out").write(name, name * 1000)
        plainly(tmp_path / "plain")
        move_file(tmp_path / "plain" / "f", tmp_path / "done" / "f")
        write_error_sidecar(tmp_path / "done" / "f", "No.")
        (tmp_path / "plain").rmdir()
        (tmp_path / "out" / "a").rename(tmp_path / "out" / "z")
    for inode in {event.inode for event in disk.events if event.op is not Op.MARK}:
        disk.sync(inode, full=True)
    assert images(disk)[0] == of_folder(tmp_path)


@pytest.mark.parametrize("cached", [False, True], ids=["plain drive", "drive with a cache"])
def test_an_output_is_there_whole_in_a_folder_that_was_not_there_before(
    tmp_path: Path, disk: Disk, *, cached: bool
) -> None:
    """Once `write` has returned, no cut takes the file, its content, or one of the new folders above it."""
    with recording(tmp_path, disk, cached=cached):
        writer(tmp_path / "new" / "er").write("deep/name.txt", "content")
    assert all(image.get("new/er/deep/name.txt") == b"content" for image in images(disk, cached=cached))


def test_a_moved_input_is_always_somewhere(tmp_path: Path, disk: Disk) -> None:
    """At no moment of a move into a new folder do all names of the file depend on what was not synced."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    disk.load(of_folder(tmp_path))
    with recording(tmp_path, disk):
        move_file(tmp_path / "a.wav", tmp_path / "done" / "a.wav")
    for at in range(len(disk.events) - 6, len(disk.events) + 1):
        replay = Replay(disk.events)
        replay.forward(at)
        for number in range(CUTS):
            assert b"sound" in cut(replay, rng(at, number)).values()


@pytest.mark.parametrize(
    ("deaf", "careless"),
    [("", plainly), ("files", lambda directory: writer(directory).write("f", "content"))],
    ids=["plain writing", "data not synced"],
)
def test_careless_writing_is_found_out(
    tmp_path: Path, disk: Disk, deaf: str, careless: Callable[[Path], object]
) -> None:
    """What is not synced is empty under its final name after some cuts."""
    with recording(tmp_path, disk, deaf=deaf):
        careless(tmp_path / "out")
    assert b"" in [image.get("out/f") for image in images(disk)]


def test_a_folder_that_is_not_synced_is_found_out(tmp_path: Path, disk: Disk) -> None:
    """The file's data is safe and its name is not there."""
    with recording(tmp_path, disk, deaf="folders"):
        writer(tmp_path / "out").write("f", "content")
    assert {} in images(disk)


def test_make_folder_minds_modes_and_what_is_there(tmp_path: Path) -> None:
    """Only the last folder gets the mode; a second time is fine; a file in the way is an error."""
    before = os.umask(0o022)
    try:
        make_folder(tmp_path / "a" / "b", mode=0o700)
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o700]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "b")


def test_the_attack_holds_and_its_control_does_not() -> None:
    """The row in small: nothing is wrong with the program as it is, and without the sync of the data something is."""
    sound, broken = Tally(), Tally()
    attack(Plan(seeds=1, points=6), sound, seed="test")
    attack(Plan(seeds=1, points=10), broken, seed="test", deaf="files")
    assert sound.findings.sentences == []
    assert broken.bad > 0
