"""Room for results: a cheap look before work, a real try before a blocked job goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import room
from jobs.errors import StorageUnavailable

MIB = 1 << 20


def disk(free: int, *, flags: int = 0, inodes: int = 100) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=free, f_frsize=1, f_flag=flags, f_files=1000, f_favail=inodes)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (disk(0), "ENOSPC"),
        (disk(MIB - 1), "ENOSPC"),
        (disk(9 * MIB, inodes=0), "ENOSPC"),
        (disk(9 * MIB, flags=os.ST_RDONLY), "EROFS"),
    ],
)
def test_a_disk_without_room_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: SimpleNamespace, code: str
) -> None:
    """Full, out of inodes, read-only: named for a folder that is not there yet, with what waiting needs to know."""
    monkeypatch.setattr("os.statvfs", lambda _path: facts)
    with pytest.raises(StorageUnavailable, match="could not be written") as caught:
        room.require(tmp_path / "not" / "yet")
    assert caught.value.facts == {
        "path": str(tmp_path / "not" / "yet"), "folder": str(tmp_path / "not" / "yet"), "errno": code, "needs": 0
    }  # fmt: skip


def test_a_disk_with_room_or_without_an_answer_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told beforehand is left to the writing."""
    room.require(tmp_path / "not" / "yet")

    def silent(_path: Path) -> None:
        raise OSError(errno.ENOSYS, "no answer")

    monkeypatch.setattr("os.statvfs", silent)
    room.require(tmp_path)


def test_jobs_share_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the jobs that wait for one disk only those go on that fit together; nothing is left of the try."""
    monkeypatch.setattr("os.statvfs", lambda _path: disk(4 * MIB))
    place = room.Room()
    assert [place.take(tmp_path / name, MIB) for name in "abcd"] == [True, True, True, False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["open", "write", "fsync"])
def test_room_is_what_can_really_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Quotas, permissions and broken disks show only when one writes; a failed try leaves nothing behind."""

    def fail(*args: object) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(f"os.{step}", fail)
    assert not room.Room().take(tmp_path, 10)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert room.Room().take(tmp_path, 10)
