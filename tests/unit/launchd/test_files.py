"""`launchd.files`: whole files with exact modes, and the launcher."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from launchd.contract import ServiceFailure
from launchd.files import launcher_text, private_folder, remove, write_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_is_what_was_asked_for(umask: int, tmp_path: Path) -> None:
    """A file that others may write is refused (122), whatever the umask of the installing shell was."""
    before = os.umask(umask)
    try:
        write_file(tmp_path / "new" / "agent.plist", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "agent.plist") == 0o644


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    """The definition must be a real file; and what a link points to is not ours to overwrite."""
    target, link = tmp_path / "dotfiles", tmp_path / "agent.plist"
    target.write_text("theirs")
    link.symlink_to(target)
    write_file(link, b"ours", mode=0o644)
    assert not link.is_symlink()
    assert link.read_bytes() == b"ours"
    assert target.read_text() == "theirs"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """What stood there stays, no temporary file remains, and the message names file and reason."""
    (tmp_path / "agent.plist").mkdir()
    with pytest.raises(ServiceFailure, match=r"Cannot write .*agent\.plist: Is a directory"):
        write_file(tmp_path / "agent.plist", b"x", mode=0o644)
    assert [each.name for each in tmp_path.iterdir()] == ["agent.plist"]


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path: Path) -> None:
    """A folder that cannot be made is an error with a reason, for files and for folders."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ServiceFailure, match="Cannot write"):
        write_file(tmp_path / "state" / "x", b"", mode=0o600)
    with pytest.raises(ServiceFailure, match="Cannot make the folder"):
        private_folder(tmp_path / "state" / "x", uid=os.getuid())


def test_a_folder_is_closed_to_others(tmp_path: Path) -> None:
    """A folder that is open to others is closed, one that is missing is made closed."""
    (tmp_path / "open").mkdir(mode=0o755)
    private_folder(tmp_path / "open", uid=os.getuid())
    private_folder(tmp_path / "deep" / "new", uid=os.getuid())
    assert mode(tmp_path / "open") == mode(tmp_path / "deep" / "new") == 0o700


def test_a_link_is_no_folder_for_a_socket(tmp_path: Path) -> None:
    """Whoever owns the link decides where the socket lies: refused."""
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(ServiceFailure, match="is a link"):
        private_folder(tmp_path / "state", uid=os.getuid())


def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    """A folder of another user is not taken over."""
    with pytest.raises(ServiceFailure, match="another user"):
        private_folder(tmp_path, uid=os.getuid() + 1)


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    """The answer says whether there was something; a folder in its place is told."""
    (tmp_path / "x").write_text("")
    assert remove(tmp_path / "x")
    assert not remove(tmp_path / "x")
    (tmp_path / "x").mkdir()
    with pytest.raises(ServiceFailure, match="Cannot remove"):
        remove(tmp_path / "x")


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o700)
    return path


def test_the_launcher_becomes_the_program(tmp_path: Path) -> None:
    """Spaces, quotes and dollars in its path do no harm, its arguments follow, and no shell stays in between."""
    folder = tmp_path / "it's a $HOME"
    folder.mkdir()
    program = script(folder, "mlxd", '#!/bin/sh\nprintf "%s|" "$$" "$@"\n')
    launcher = script(tmp_path, "mlxd-agent", launcher_text([str(program), "-x y"]))
    child = subprocess.Popen(
        [launcher, "run", "--supervised", "a  b"], env={}, cwd="/", stdout=subprocess.PIPE, encoding="utf-8"
    )
    said, _ = child.communicate()
    assert said == f"{child.pid}|-x y|run|--supervised|a  b|"
    assert child.returncode == 0


def test_a_program_that_is_gone_leaves_the_service_down(tmp_path: Path) -> None:
    """After the program was removed the launcher ends with 0, so launchd does not try for ever, and says why."""
    launcher = script(tmp_path, "mlxd-agent", launcher_text([str(tmp_path / "gone" / "mlxd")]))
    done = subprocess.run([launcher, "run"], env={}, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    assert "no longer at" in done.stderr
    assert "mlxd service install" in done.stderr
