"""Files move from place to place whole, and a move that a death cut short is ended."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.folders import carrying
from daemon.folders.carrying import carry, finished


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk."""
    places = [Path(name) for name in ("/dev/shm", "/var/tmp", "/tmp", Path.cwd())]
    other = next((one for one in places if one.is_dir() and one.stat().st_dev != tmp_path.stat().st_dev), None)
    if other is None:
        pytest.skip("NOT TESTED: there is no second disk here")
    folder = Path(tempfile.mkdtemp(dir=other))
    yield folder
    shutil.rmtree(folder)


def test_from_disk_to_disk_a_file_is_copied_whole(tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its times, synced, never over another file; no half copy stays."""
    os.utime(memo, ns=(5, 7))
    real = carrying.move_file

    def other_disk(path: Path, target: Path, root: Path | None = None) -> bool:
        if path == memo:
            raise OSError(errno.EXDEV, "another disk")
        return real(path, target, root=root)

    monkeypatch.setattr(carrying, "move_file", other_disk)
    target = tmp_path / "there.wav"
    assert carry(memo, target)
    assert (target.read_bytes(), target.stat().st_mtime_ns, memo.exists()) == (b"audio", 7, False)
    memo.write_bytes(b"x")
    assert not carry(memo, target)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a b%ü.wav", "there.wav"]


def test_a_file_under_both_names_has_arrived(tmp_path: Path, memo: Path) -> None:
    """Killed between the new name and the old one's end: that goes, and nothing else happens."""
    target = tmp_path / "there.wav"
    target.hardlink_to(memo)
    assert finished(memo, target, None)
    assert not memo.exists()
    assert target.read_bytes() == b"audio"


def test_a_whole_copy_on_another_disk_has_arrived(memo: Path, elsewhere: Path) -> None:
    """With the same bytes and times; anything else of that name is another file."""
    target = elsewhere / memo.name
    assert not finished(memo, target, None)
    target.write_bytes(b"oidua")
    shutil.copystat(memo, target)
    assert not finished(memo, target, None)
    target.write_bytes(b"audio")
    assert not finished(memo, target, None)
    shutil.copystat(memo, target)
    assert finished(memo, target, None)
    assert not memo.exists()


def test_a_twin_on_the_same_disk_is_another_file(tmp_path: Path, memo: Path) -> None:
    """There a move makes no copy: whoever has the same bytes was put there by somebody."""
    twin = tmp_path / "there.wav"
    shutil.copy2(memo, twin)
    assert not finished(memo, twin, None)
    assert memo.exists()
