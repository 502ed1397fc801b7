"""Which file is this: opened safely, read unchanged, known again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.folders.identity import (
    Facts,
    FileChanged,
    HashingStopped,
    content_digest,
    content_key,
    is_dataless,
    open_still,
    place_key,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.write_bytes(b"hello" * 1_000_000)
    return path


def facts(path: Path) -> Facts:
    return Facts.of(path.lstat())


def test_the_digest_is_of_the_whole_content(file: Path) -> None:
    """A file larger than one chunk is hashed to its end."""
    assert content_digest(file, facts(file)) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_is_another_by_now_is_refused(file: Path, tmp_path: Path) -> None:
    """Replacing, growing or touching between the look and the opening is noticed."""
    before = facts(file)
    with file.open("ab") as more:
        more.write(b"x")
    with pytest.raises(FileChanged):
        open_still(file, before)
    other = tmp_path / "b"
    other.write_bytes(b"x")
    other.replace(file)
    with pytest.raises(FileChanged):
        content_digest(file, before)


def test_a_file_written_to_while_it_is_read_is_refused(file: Path) -> None:
    """The facts are compared again after the last byte."""

    def write_meanwhile() -> bool:
        os.utime(file, ns=(1, 1))
        return False

    with pytest.raises(FileChanged):
        content_digest(file, facts(file), stopping=write_meanwhile)


def test_reading_can_be_given_up(file: Path) -> None:
    """A large file does not hold up the end of the daemon."""
    with pytest.raises(HashingStopped):
        content_digest(file, facts(file), stopping=lambda: True)


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    """A link in the place of the file is refused by the system itself."""
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        open_still(link, facts(file))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Opening a FIFO without a writer returns, and it is no file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileChanged):
        open_still(pipe, facts(pipe))


def test_the_place_key_tells_every_state_apart(file: Path) -> None:
    """Path, inode, size and time each make another key; the device's number, new at each mount, does not."""
    one = facts(file)
    others = [one._replace(**{field: 7}) for field in ("inode", "size", "mtime_ns")]
    assert place_key(file, one._replace(device=7)) == place_key(file, one)
    keys = {place_key(file, one), place_key(file.with_name("b"), one), *(place_key(file, other) for other in others)}
    assert len(keys) == 5
    assert place_key(file, one) == place_key(file, facts(file))
    assert content_key("d", "f") != content_key("d", "g")


def test_a_dataless_file_is_told_by_its_flag() -> None:
    """MacOS' flag says that the content is in a cloud; elsewhere there are no flags."""
    assert is_dataless(cast("Any", SimpleNamespace(st_flags=0x40000020)))
    assert not is_dataless(cast("Any", SimpleNamespace(st_flags=0x20)))
    assert not is_dataless(cast("Any", SimpleNamespace()))


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """Below the watched folder; the file behind the link is as it was looked at, and still not opened."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("secret")
    root = tmp_path / "in"
    root.mkdir()
    (root / "folder").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        content_digest(root / "folder" / "a", facts(outside / "a"), root=root)
