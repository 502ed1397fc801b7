"""Input files: what is refused before anything else happens, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from jobs.errors import InvalidInput
from jobs.model import Placement
from plugins.inputs import AbsolutePath, check_file, opening, read_bytes, read_text


class Holder(BaseModel):
    file: AbsolutePath


def test_text_is_read_with_or_without_byte_order_mark(tmp_path: Path) -> None:
    """UTF-8 is UTF-8, whatever Windows puts before it."""
    path = tmp_path / "a.txt"
    for start in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(start + "Grüße\n".encode())
        assert read_text(path, limit=100) == "Grüße\n"


def test_a_wrong_encoding_is_named_with_its_offset(tmp_path: Path) -> None:
    """The message says which byte, where, and what to do; UTF-16 is recognised."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(InvalidInput, match="byte 0xe9 at offset 3; save it as UTF-8") as caught:
        read_text(path, limit=100)
    assert caught.value.facts["offset"] == 3
    path.write_text("hello", encoding="utf-16")
    with pytest.raises(InvalidInput, match="looks like UTF-16"):
        read_text(path, limit=100)


def test_binary_that_happens_to_be_utf8_is_refused(tmp_path: Path) -> None:
    """A NUL byte never occurs in text."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"ab\0cd")
    with pytest.raises(InvalidInput, match="NUL byte at offset 2"):
        read_text(path, limit=100)


def test_too_large_empty_and_blank_files_are_refused(tmp_path: Path) -> None:
    """Each has its own sentence; the size limit is checked before reading."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(InvalidInput, match="has 1,001 bytes, more than the 1,000 allowed"):
        read_text(path, limit=1000)
    path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="is empty"):
        check_file(path)
    path.write_bytes(b" \n\t\n")
    with pytest.raises(InvalidInput, match="has no text in it"):
        read_text(path, limit=1000)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, and a pipe nobody writes to, which must not hang the worker."""
    with pytest.raises(InvalidInput, match="does not exist"):
        check_file(tmp_path / "nowhere.wav")
    with pytest.raises(InvalidInput, match="is a folder"):
        check_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="not a regular file"):
        check_file(tmp_path / "pipe")


def test_a_link_is_followed_only_where_the_person_named_it(tmp_path: Path) -> None:
    """In a watched folder a link could point at anything; on the command line it is what the person typed."""
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert read_bytes(tmp_path / "link.txt", limit=10) == b"hello"
    with pytest.raises(InvalidInput, match="is a link"):
        check_file(tmp_path / "link.txt", follow=False)


def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    """Permission is a sentence too; an errno without one of its own gives the system's."""
    path = tmp_path / "a.txt"
    path.write_text("hello")
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(InvalidInput, match="may not be read"):
            check_file(path)
    with pytest.raises(InvalidInput, match="cannot be opened"):
        check_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("value", "said"), [("a.txt", "must be an absolute path"), ("/a\0b", "NUL character")])
def test_a_path_parameter_is_absolute(value: str, said: str) -> None:
    """The daemon's working folder is not the person's, so a relative path would mean another file."""
    with pytest.raises(ValidationError, match=said):
        Holder.model_validate({"file": value})
    assert Holder.model_validate({"file": "/a/b"}).file == Path("/a/b")


def test_a_watched_input_is_not_read_through_a_link(tmp_path: Path) -> None:
    """Neither the file nor, below the watched folder, a folder on the way may have become one."""
    outside, root = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    root.mkdir()
    (outside / "a.txt").write_text("secret")
    (root / "folder").symlink_to(outside)
    path = root / "folder" / "a.txt"
    assert read_text(path, limit=100, **opening(Placement())) == "secret"
    with pytest.raises(InvalidInput):
        read_text(path, limit=100, **opening(Placement(input=path, root=root)))
