"""What a Mac, a network or a person puts in the way of a watched folder, and what is shown of it."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes_folders import Bench, watching

from daemon.config.folders import FolderConfig
from daemon.folders.access import Access
from daemon.folders.identity import Facts, place_key
from daemon.folders.obstacles import denied, hanging, is_guarded, missing
from daemon.views import FolderState


@pytest.mark.parametrize(
    ("code", "platform", "state", "advice"),
    [
        (errno.EPERM, "darwin", FolderState.NEEDS_PERMISSION, "System Settings > Privacy & Security"),
        (errno.EACCES, "darwin", FolderState.NEEDS_PERMISSION, "chmod u+rx"),
        (errno.EPERM, "linux", FolderState.NEEDS_PERMISSION, "chmod u+rx"),
        (errno.ESTALE, "linux", FolderState.UNREACHABLE, "tried again by itself"),
        (errno.ENAMETOOLONG, "linux", FolderState.UNREACHABLE, "cannot be reached"),
    ],
)
def test_refusals_are_told_apart(code: int, platform: str, state: FolderState, advice: str) -> None:
    """A Mac's privacy protection from ordinary permissions, and both from a server that is away."""
    found = denied(Path("/x"), OSError(code, os.strerror(code)), platform)
    assert found.state is state
    assert advice in found.sentence


def test_silence_is_a_question_on_the_screen_only_where_a_mac_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Documents or a cloud's folder; elsewhere it is a server that does not answer."""
    monkeypatch.setenv("HOME", "/Users/ada")
    guarded = ("Documents/in", "Desktop", "Library/Mobile Documents/com~apple~CloudDocs/x")
    assert all(is_guarded(Path("/Users/ada") / path) for path in guarded)
    assert not is_guarded(Path("/Users/ada/mlxd/inbox"))
    asked = hanging(Path("/Users/ada/Documents"), "darwin")
    assert asked.state is FolderState.NEEDS_PERMISSION
    assert "Privacy_FilesAndFolders" in asked.sentence
    assert hanging(Path("/Users/ada/Documents"), "linux").state is FolderState.UNREACHABLE


def test_a_folder_that_hangs_is_shown_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look has a deadline; when the person has answered, the files are taken."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "Documents"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    answered: list[bool] = []

    class Question(Access):
        def granted(self) -> bool:
            return bool(answered)

    bench = Bench(FolderConfig(path=folder, settle_seconds=1), access=Question(list), platform="darwin")
    assert bench.settle() == []
    status = bench.patrol.status()
    assert status.state is FolderState.NEEDS_PERMISSION
    assert "Privacy & Security" in str(status.problem)
    answered.append(True)
    assert bench.settle() == ["a.txt"]
    assert (bench.patrol.status().state, bench.problem) == (FolderState.WATCHING, None)


def test_files_in_the_cloud_are_counted_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shown as pending and taken when they have been downloaded."""
    away = {"cloud.txt"}
    for name in ("cloud.txt", "here.txt"):
        (tmp_path / name).write_text(name)
    inodes = {(tmp_path / name).stat().st_ino for name in away}

    def dataless(status: os.stat_result) -> bool:
        return bool(away) and status.st_ino in inodes

    real: Callable[..., int] = os.open

    def watched_open(path: object, *args: int, **options: int) -> int:
        assert not (away and str(path).endswith("cloud.txt")), "opened while its content is in the cloud"
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", watched_open)
    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1), dataless=dataless)
    assert bench.settle() == ["here.txt"]
    assert bench.patrol.status().cloud_pending == 1
    away.clear()
    assert sorted(bench.settle()) == ["cloud.txt", "here.txt"]
    assert bench.patrol.status().cloud_pending == 0


def test_a_volume_that_is_away_is_not_made_on_the_boot_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with `create`; the sentence names the volume, and its files are taken when it is back."""
    volumes = tmp_path / "Volumes"
    volumes.mkdir()
    monkeypatch.setattr("daemon.folders.obstacles._MOUNT_POINTS", (volumes,))
    bench = Bench(FolderConfig(path=volumes / "Stick" / "in", create=True, settle_seconds=1))
    assert bench.settle() == []
    assert not (volumes / "Stick").exists()
    assert "the volume Stick is not there" in str(bench.problem)
    assert bench.patrol.status().state is FolderState.MISSING
    (volumes / "Stick").mkdir()
    bench.scan()
    (volumes / "Stick" / "in" / "a.txt").write_text("x")
    assert bench.settle() == ["a.txt"]
    assert missing(tmp_path / "x").state is FolderState.MISSING


def test_a_remounted_volume_has_nothing_done_twice(tmp_path: Path) -> None:
    """Its device has another number then; with `again`, too, the very same files are known."""
    path = tmp_path / "a.txt"
    path.write_text("x")
    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1, again=True))
    assert bench.settle() == ["a.txt"]
    facts = Facts.of(path.lstat())
    assert place_key(path, facts._replace(device=facts.device + 1)) == place_key(path, facts)


def test_sub_folders_are_found_however_accents_are_spelled(tmp_path: Path) -> None:
    """A decomposed folder name on disk gets what the composed name in the configuration says."""
    composed = unicodedata.normalize("NFC", "Köln")
    decomposed = tmp_path / unicodedata.normalize("NFD", "Köln")
    decomposed.mkdir()
    (decomposed / "a.txt").write_text("x")
    folder = FolderConfig(path=tmp_path, subfolders={composed: {"city": "K"}}, settle_seconds=1)
    bench = Bench(folder)
    assert bench.settle() == ["a.txt"]
    assert bench.ledger.jobs[0].params["city"] == "K"


def test_a_paused_folder_takes_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    """From the start, or from one moment to the next; then everything that gathered is taken."""
    (tmp_path / "a.txt").write_text("a")
    folder = FolderConfig(path=tmp_path, settle_seconds=0, events="off")
    with watching(folder, paused=lambda: {tmp_path}, rescan_seconds=0.05) as (watcher, ledger):
        assert watcher.rescan() == 0
        assert watcher.status()[0].state is FolderState.PAUSED
        watcher.pause(tmp_path, paused=False)
        assert ledger.wait(1) == ["a.txt"]
        watcher.pause(tmp_path, paused=True)
        (tmp_path / "b.txt").write_text("b")
        assert watcher.rescan() == 0
        watcher.pause(tmp_path, paused=False)
        assert ledger.wait(2) == ["a.txt", "b.txt"]
        watcher.pause(tmp_path / "unknown", paused=True)


def test_a_paused_folder_never_wakes_the_thread(tmp_path: Path) -> None:
    """No deadline, no events, no looks."""
    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1), paused=True)
    (tmp_path / "a.txt").write_text("x")
    bench.patrol.hint("a.txt", bench.clock.now)
    assert bench.turn(1000) == []
    assert bench.patrol.next_deadline() == float("inf")
