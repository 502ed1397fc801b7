"""Watched folders with real files, real events and a real thread."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import FakeLedger, watching

from daemon.config.folders import FolderConfig
from daemon.folders.file_events import make_observer
from daemon.folders.watcher import Watcher

#: Long enough for a loaded machine to write two chunks within it, short enough to wait for.
SETTLE = 0.2
QUICK = 0.3


def quick_polling(_kind: str) -> Any:
    from watchdog.observers.polling import PollingObserver

    return PollingObserver(timeout=0.05)


#: How changes are noticed: by events with no rescan to help, or by the rescan with no events to help.
NOTICING: dict[str, dict[str, Any]] = {
    "events": {"observer_factory": make_observer, "rescan_seconds": 3600},
    "polling": {"observer_factory": quick_polling, "rescan_seconds": 3600},
    "rescans": {"observer_factory": None, "rescan_seconds": QUICK},
}


@pytest.fixture(params=NOTICING)
def noticing(request: pytest.FixtureRequest) -> dict[str, Any]:
    return NOTICING[request.param]


def folder(path: Path, **options: Any) -> FolderConfig:
    return FolderConfig(path=path, **{"task": "x", "settle_seconds": SETTLE, **options})


def ready(watcher: Watcher) -> None:
    """Wait until the first look is over and events come."""
    watcher.rescan()


def eventually(condition: Callable[[], object], watcher: Watcher, timeout: float = 20.0) -> None:
    """Wait for a *condition* that the watcher's thread brings about, asking whenever it had a turn."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, watcher.status()
        watcher.rescan()


def test_a_new_file_is_taken(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """However changes are noticed."""
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        (tmp_path / "a.txt").write_text("a")
        assert ledger.wait(1) == ["a.txt"]


def test_a_file_renamed_in_and_a_folder_moved_in_are_taken(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """Nothing is written in the watched folder then: only names appear."""
    root, outside = tmp_path / "in", tmp_path / "outside"
    root.mkdir()
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "a.txt").write_text("a")
    (outside / "deep" / "er" / "b.txt").write_text("b")
    with watching(folder(root), **noticing) as (watcher, ledger):
        ready(watcher)
        (outside / "a.txt").rename(root / "a.txt")
        (outside / "deep").rename(root / "deep")
        assert sorted(ledger.wait(2)) == ["a.txt", "b.txt"]
        (root / "deep" / "er" / "c.txt").write_text("c")
        assert sorted(ledger.wait(3)) == ["a.txt", "b.txt", "c.txt"]


def test_a_slow_copy_is_taken_whole(tmp_path: Path) -> None:
    """Chunks that come more quickly than the settling time are one file; its content is complete when it is taken."""
    contents = []

    class Reading(FakeLedger):
        def submit(self, new: Any, *, seen: Any = None) -> Any:
            contents.append(Path(new.params["file"]).read_bytes())
            return super().submit(new, seen=seen)

    chunk = b"x" * 1000
    with watching(folder(tmp_path, settle_seconds=1.0), ledger=Reading()) as (watcher, ledger):
        ready(watcher)
        with (tmp_path / "film.mov").open("wb", buffering=0) as file:
            for _ in range(20):
                file.write(chunk)
                watcher.rescan()
                assert ledger.jobs == []
        ledger.wait(1)
    assert contents == [chunk * 20]


def test_a_download_is_taken_when_it_gets_its_name(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """The partial file is left alone however long it lies there."""
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        partial = tmp_path / "film.mov.crdownload"
        partial.write_text("half")
        (tmp_path / "other.txt").write_text("other")
        assert ledger.wait(1) == ["other.txt"]
        assert watcher.status()[0].waiting == 0
        partial.rename(tmp_path / "film.mov")
        assert ledger.wait(2) == ["other.txt", "film.mov"]


def test_safaris_download_folder_is_left_alone(tmp_path: Path) -> None:
    """Safari loads into a folder and moves the file out of it."""
    with watching(folder(tmp_path), rescan_seconds=3600) as (watcher, ledger):
        ready(watcher)
        bundle = tmp_path / "film.mov.download"
        bundle.mkdir()
        (bundle / "film.mov").write_text("half")
        (tmp_path / "marker").write_text("marker")
        assert ledger.wait(1) == ["marker"]
        (bundle / "film.mov").rename(tmp_path / "film.mov")
        assert ledger.wait(2) == ["marker", "film.mov"]


def test_what_is_no_ordinary_file_is_left_alone(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """Links to files and folders, pipes and sockets make no job and no trouble."""
    import socket

    root, outside = tmp_path / "in", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    with watching(folder(root), **noticing) as (watcher, ledger), socket.socket(socket.AF_UNIX) as unix:
        ready(watcher)
        (root / "link.txt").symlink_to(outside / "secret.txt")
        (root / "linked").symlink_to(outside)
        os.mkfifo(root / "pipe")
        unix.bind(str(root / "s"))
        (root / "last.txt").write_text("last")
        assert ledger.wait(1) == ["last.txt"]
        watcher.rescan()
        assert watcher.status()[0].waiting == 0
        assert watcher.status()[0].problem is None


def test_twins_of_another_spelling_are_each_taken(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """Composed and decomposed names are two files where the file system says so, and one where it does not."""
    names = [unicodedata.normalize(form, "Bücher-Café.txt") for form in ("NFC", "NFD")]
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        for name in names:
            (tmp_path / name).write_text(name)
        there = sorted(entry.name for entry in tmp_path.iterdir())
        assert sorted(ledger.wait(len(there))) == there


def test_the_longest_name_is_taken(tmp_path: Path) -> None:
    """255 bytes, as long as a name can be."""
    name = "ü" * 125 + "x.txt"
    assert len(name.encode()) == 255
    with watching(folder(tmp_path)) as (watcher, ledger):
        ready(watcher)
        (tmp_path / name).write_text("x")
        assert ledger.wait(1) == [name]


def test_a_file_that_goes_before_it_settled_is_forgotten(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """No job, no complaint."""
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        gone = tmp_path / "gone.txt"
        gone.write_text("gone")
        watcher.rescan()
        gone.unlink()
        (tmp_path / "stays.txt").write_text("stays")
        assert ledger.wait(1) == ["stays.txt"]
        eventually(lambda: watcher.status()[0].waiting == 0, watcher)
        assert watcher.status()[0].problem is None
        assert ledger.inputs == ["stays.txt"]


def test_a_file_replaced_or_edited_is_taken_again(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """Editors replace files by renaming; the new content is a new job, the old one again is not."""
    path = tmp_path / "a.txt"
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        path.write_text("one")
        ledger.wait(1)
        new = tmp_path / ".a.txt.swp"
        new.write_text("two")
        new.replace(path)
        ledger.wait(2)
        path.write_text("one")
        (tmp_path / "b.txt").write_text("three")
        assert ledger.wait(3) == ["a.txt", "a.txt", "b.txt"]


def test_a_burst_of_a_thousand_is_taken_once_each(tmp_path: Path, noticing: dict[str, Any]) -> None:
    """Files in many folders, made at once: each becomes exactly one job."""
    names = {f"{number}.txt" for number in range(1000)}
    with watching(folder(tmp_path), **noticing) as (watcher, ledger):
        ready(watcher)
        for name in names:
            path = tmp_path / f"d{len(name)}" / name[:1] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        assert set(ledger.wait(1000)) == names
        watcher.rescan()
        assert len(ledger.jobs) == 1000
        assert watcher.status()[0].taken == 1000


def test_a_folder_that_goes_and_comes_back_is_watched_again(tmp_path: Path) -> None:
    """Events come from the new folder too, with no rescan in between but the one that notices it."""
    root = tmp_path / "in"
    with watching(folder(root), rescan_seconds=3600) as (watcher, ledger):
        ready(watcher)
        assert "does not exist" in watcher.status()[0].problem
        for number in range(3):
            root.mkdir()
            watcher.rescan()
            (root / "a.txt").write_text(str(number))
            ledger.wait(number + 1)
            root.rename(tmp_path / f"away{number}")
            eventually(lambda: watcher.status()[0].problem, watcher)


def test_the_removal_of_the_folder_is_noticed_by_events(tmp_path: Path) -> None:
    """The emitter tells of its folder's end: the status says so long before the rescan."""
    root = tmp_path / "in"
    root.mkdir()
    with watching(folder(root), rescan_seconds=3600) as (watcher, _):
        ready(watcher)
        root.rmdir()
        deadline = time.monotonic() + 20
        while not watcher.status()[0].problem:
            assert time.monotonic() < deadline
            watcher.reconfigure([folder(root)])


def test_no_event_is_needed_of_what_came_before(tmp_path: Path) -> None:
    """Files that were there before the start are taken."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    with watching(folder(tmp_path), observer_factory=None, rescan_seconds=3600) as (_, ledger):
        assert sorted(ledger.wait(2)) == ["a.txt", "b.txt"]


def test_a_large_file_does_not_hold_up_a_small_one(tmp_path: Path) -> None:
    """It is read on another thread; both are taken."""
    large = tmp_path / "film.mov"
    with large.open("wb") as file:
        file.truncate(40 << 20)
    with watching(folder(tmp_path)) as (_, ledger):
        (tmp_path / "memo.txt").write_text("memo")
        assert sorted(ledger.wait(2)) == ["film.mov", "memo.txt"]


def test_stopping_does_not_wait_for_a_large_file(tmp_path: Path) -> None:
    """The reading is given up, and the file is left for the next start."""
    with (tmp_path / "film.mov").open("wb") as file:
        file.truncate(1 << 36)
    with watching(folder(tmp_path, settle_seconds=0)) as (watcher, ledger):
        eventually(lambda: watcher.status()[0].waiting, watcher)
    assert ledger.jobs == []


def test_a_recipe_counts_when_it_appears(tmp_path: Path) -> None:
    """A `.mlxd.toml` that is put into the folder is noticed by events alone."""
    with watching(folder(tmp_path, match="*.never"), rescan_seconds=3600) as (watcher, ledger):
        (tmp_path / "a.txt").write_text("a")
        ready(watcher)
        assert watcher.status()[0].waiting == 0
        (tmp_path / ".mlxd.toml").write_text('task = "own"')
        assert ledger.wait(1) == ["a.txt"]
        assert ledger.jobs[0].task == "own"
