"""The file operations where systems differ."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import files as module
from jobs.files import Files, open_below


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open folder."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def _refuse_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def link(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """On exFAT and some network shares a free name is taken and a taken one is not."""
    _refuse_links(monkeypatch, code)
    (tmp_path / "temp").write_text("ours")
    (tmp_path / "taken").write_text("theirs")
    assert Files().link("temp", "taken", folder=folder) is False
    assert Files().link("temp", "free", folder=folder) is True
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"taken": "theirs", "free": "ours"}


def test_a_real_error_of_a_link_is_raised(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is not mistaken for a file system without links."""
    _refuse_links(monkeypatch, errno.ENOSPC)
    (tmp_path / "temp").touch()
    with pytest.raises(OSError, match="No space"):
        Files().link("temp", "free", folder=folder)


@pytest.mark.parametrize("known", [True, False])
def test_macos_gets_its_full_sync(folder: int, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Where F_FULLFSYNC exists it is used, and fsync where the file system does not know it."""
    calls: list[object] = []

    def fcntl(file: int, command: int) -> int:
        calls.append(("fcntl", command))
        if not known:
            raise OSError(errno.ENOTSUP, "no")
        return 0

    monkeypatch.setattr(module, "_FULLFSYNC", 51)
    monkeypatch.setattr(module.fcntl, "fcntl", fcntl)
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync"))
    Files().sync(folder)
    assert calls == ([("fcntl", 51)] if known else [("fcntl", 51), "fsync"])


def test_what_is_no_regular_file_has_no_digest(tmp_path: Path, folder: int) -> None:
    """Links, folders and pipes are strangers' without being followed, listed or waited for."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert [Files().digest(name, folder=folder) for name in ("link", "folder", "pipe")] == ["", "", ""]
    assert Files().digest("nothing", folder=folder) is None
    assert len(Files().digest("file", folder=folder) or "") == 64


def test_what_a_dead_attempt_left_is_replaced(tmp_path: Path, folder: int) -> None:
    """An old temporary file is no obstacle, even when somebody made it a link."""
    (tmp_path / "precious").write_text("untouched")
    (tmp_path / "temp").symlink_to("precious")
    file = Files().create("temp", folder=folder)
    Files().write(file, b"new")
    os.close(file)
    assert (tmp_path / "temp").read_bytes() == b"new"
    assert (tmp_path / "temp").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "precious").read_text() == "untouched"


def test_removing_nothing_is_fine(folder: int) -> None:
    """What is gone already is gone."""
    Files().remove("nothing", folder=folder)


def test_below_a_root_no_link_is_followed(tmp_path: Path) -> None:
    """The root itself may be one; a folder on the way and the file may not, whatever they lead to."""
    outside, real = tmp_path / "outside", tmp_path / "real"
    for folder in (outside, real / "plain"):
        folder.mkdir(parents=True)
        (folder / "a.txt").touch()
    root = tmp_path / "root"
    root.symlink_to(real)
    (real / "linked").symlink_to(outside)
    (real / "plain" / "b.txt").symlink_to(outside / "a.txt")
    os.close(open_below(root / "plain" / "a.txt", os.O_RDONLY, root=root))
    for name in ("linked/a.txt", "plain/b.txt"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            open_below(root / name, os.O_RDONLY, root=root)
    os.close(open_below(root / "linked" / "a.txt", os.O_RDONLY, root=None))
