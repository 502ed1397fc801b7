"""`daemon.health.machine`: what the real machine answers."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from daemon.health import machine
from daemon.health.machine import Access, Machine, free_bytes, look_into, package_version


def test_versions_come_without_importing() -> None:
    """An installed package has a version, an absent one has none."""
    assert package_version("pydantic")
    assert package_version("no-such-package-anywhere") is None


def test_folders_are_told_apart(tmp_path: Path) -> None:
    """Readable, missing, and a file in its place."""
    (tmp_path / "file").write_text("")
    assert look_into(tmp_path) is Access.READABLE
    assert look_into(tmp_path / "missing") is Access.MISSING
    assert look_into(tmp_path / "file") is Access.NOT_A_FOLDER


@pytest.mark.parametrize(("number", "access"), [(errno.EPERM, Access.PROTECTED), (errno.EACCES, Access.DENIED)])
def test_macos_privacy_is_not_a_matter_of_modes(number: int, access: Access, tmp_path: Path, monkeypatch) -> None:
    """EPERM is macOS's privacy protection, EACCES the mode bits."""

    def refuse(path: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(machine.os, "scandir", refuse)
    assert look_into(tmp_path) is access


def test_a_folder_that_never_answers_is_given_up(tmp_path: Path, monkeypatch) -> None:
    """A permission prompt that nobody answers does not hang the doctor."""
    release = threading.Event()
    listed = machine._listed

    def hang(folder: Path) -> Access:
        release.wait(30)
        return listed(folder)

    monkeypatch.setattr(machine, "_listed", hang)
    assert look_into(tmp_path, patience=0.01) is Access.BLOCKED
    release.set()


def test_free_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    """A folder that does not exist yet will lie where its parent does."""
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)


def test_the_defaults_are_this_machine() -> None:
    """No argument is needed."""
    here = Machine()
    assert here.memory() > 10**8
    assert here.uid() == os.getuid()
