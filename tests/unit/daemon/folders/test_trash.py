"""Where files go that a person may want back."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.folders import carrying
from daemon.folders import trash as trashing
from daemon.folders.trash import KEPT_DAYS, Trash
from jobs.errors import OutputError

NOW = datetime(2026, 3, 1, 12, 30, 5)  # noqa: DTZ001 - the specification wants local time


def trash(tmp_path: Path, **options: Any) -> Trash:
    environ = {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")}
    given: dict[str, Any] = {"environ": environ, "platform": "linux", "clock": lambda: NOW, **options}
    return Trash(tmp_path / "own", **given)


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_home_trash_by_the_specification(tmp_path: Path, memo: Path) -> None:
    """files/ has the file, info/ its old place, percent-encoded, and when; the folders are for us only."""
    planned: list[Path] = []
    moved = trash(tmp_path).put(memo, planned.append)
    home = tmp_path / "data" / "Trash"
    assert planned == [moved]
    assert moved == home / "files" / memo.name
    assert moved.read_bytes() == b"audio"
    lines = (home / "info" / f"{memo.name}.trashinfo").read_text().splitlines()
    assert lines == [
        "[Trash Info]",
        f"Path={tmp_path}/in/a%20b%25%C3%BC.wav",
        "DeletionDate=2026-03-01T12:30:05",
    ]
    assert (home / "info").stat().st_mode & 0o777 == 0o700
    assert not memo.exists()


def test_names_are_never_replaced(tmp_path: Path, memo: Path) -> None:
    """Neither a file nor the note of one; an orphaned file in files/ is left alone too."""
    bin_ = trash(tmp_path)
    bin_.put(memo)
    (tmp_path / "data" / "Trash" / "files" / "a b%ü (2).wav").write_text("an orphan")
    memo.write_bytes(b"another")
    assert bin_.put(memo).name == "a b%ü (3).wav"
    assert sorted(path.name for path in (tmp_path / "data" / "Trash" / "info").iterdir()) == [
        "a b%ü (3).wav.trashinfo",
        "a b%ü.wav.trashinfo",
    ]


def test_it_comes_back_with_its_note_gone(tmp_path: Path, memo: Path) -> None:
    """Also when its folder has gone; never over another file."""
    bin_ = trash(tmp_path)
    moved = bin_.put(memo)
    memo.parent.rmdir()
    assert bin_.restore(moved, memo)
    assert below(tmp_path / "data") == []
    moved = bin_.put(memo)
    memo.write_bytes(b"another")
    assert not bin_.restore(moved, memo)
    assert (memo.read_bytes(), moved.read_bytes()) == (b"another", b"audio")


@pytest.mark.parametrize("shared", ["sticky", "not sticky", "link"])
def test_another_disk_has_a_trash_of_its_own(
    tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """At its top: .Trash/<uid> if the administrator made a sticky one, else .Trash-<uid>; paths are relative."""
    monkeypatch.setattr(trashing, "_device", lambda _path: -1)
    monkeypatch.setattr(trashing, "_top", lambda _path: tmp_path)
    if shared == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / ".Trash").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / ".Trash").mkdir()
        (tmp_path / ".Trash").chmod(0o1777 if shared == "sticky" else 0o777)
    moved = trash(tmp_path).put(memo)
    uid = os.getuid()
    place = tmp_path / (f".Trash/{uid}" if shared == "sticky" else f".Trash-{uid}")
    assert moved == place / "files" / memo.name
    assert "Path=in/a%20b" in (place / "info" / f"{memo.name}.trashinfo").read_text()


def test_our_own_where_the_systems_cannot_be_used(tmp_path: Path, memo: Path) -> None:
    """A file where the trash should be, or no system's trash wanted: a folder of the day in ours."""
    (tmp_path / "data").write_text("not a folder")
    assert trash(tmp_path).put(memo) == tmp_path / "own" / "2026-03-01" / memo.name
    memo.write_bytes(b"x")
    assert trash(tmp_path, system=False).put(memo).name == "a b%ü (2).wav"


def test_a_mac_has_its_bin(tmp_path: Path, memo: Path) -> None:
    """~/.Trash, if the Finder has made it; otherwise ours."""
    bin_ = trash(tmp_path, platform="darwin")
    assert bin_.put(memo).parent.parent == tmp_path / "own"
    (tmp_path / "home" / ".Trash").mkdir(parents=True)
    memo.write_bytes(b"x")
    assert bin_.put(memo) == tmp_path / "home" / ".Trash" / memo.name


def test_what_can_go_nowhere_stays(tmp_path: Path, memo: Path) -> None:
    """With a sentence."""
    (tmp_path / "own").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be moved to the trash"):
        trash(tmp_path, system=False).put(memo)
    assert memo.exists()


def test_our_own_is_emptied_after_a_month(tmp_path: Path) -> None:
    """Folders of days long past go; nothing else that lies there does."""
    old, young = (NOW - timedelta(days=days) for days in (KEPT_DAYS + 1, KEPT_DAYS))
    for name in (f"{old:%Y-%m-%d}", f"{young:%Y-%m-%d}", "a friend's"):
        (tmp_path / "own" / name).mkdir(parents=True)
    assert trash(tmp_path).expire() == 1
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == [f"{young:%Y-%m-%d}", "a friend's"]


@pytest.mark.parametrize("other_disk", [False, True])
def test_nothing_comes_back_through_a_link(
    tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch, other_disk: bool
) -> None:
    """A folder that became a link while its file was in the trash: the file stays there."""
    if other_disk:

        def another(_path: Path, _target: Path, root: Path | None = None) -> bool:
            raise OSError(errno.EXDEV, "another disk", str(root))

        monkeypatch.setattr(carrying, "move_file", another)
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        Trash(tmp_path / "own", system=False).restore(memo, root / "folder" / "a.wav", root=root)
    assert memo.exists()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("place", ["freedesktop", "mac", "own"])
def test_what_died_behind_the_link_is_in_the_trash_once(tmp_path: Path, memo: Path, place: str) -> None:
    """The new name is there and the old one still is: the next try takes that away and makes no second file."""
    folder = {"freedesktop": tmp_path / "data" / "Trash" / "files", "mac": tmp_path / "home" / ".Trash"}.get(
        place, tmp_path / "own" / f"{NOW:%Y-%m-%d}"
    )
    folder.mkdir(parents=True)
    (folder / memo.name).hardlink_to(memo)
    if place == "freedesktop":
        (folder.parent / "info").mkdir()
        (folder.parent / "info" / f"{memo.name}.trashinfo").write_text("[Trash Info]")
    options = {"own": {"system": False}, "mac": {"platform": "darwin"}}.get(place, {})
    assert trash(tmp_path, **options).put(memo) == folder / memo.name
    assert not memo.exists()
    assert [path.name for path in folder.iterdir()] == [memo.name]
