"""The token's file."""

import os
import stat

import pytest

from daemon.api.token import token_of
from jobs.errors import ConfigError


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path):
    """Made with 256 bits of chance, mode 0600 whatever the umask; the next start has the same one."""
    path = tmp_path / "http-token"
    before = os.umask(0)
    try:
        token = token_of(path)
    finally:
        os.umask(before)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_of(path) == token
    assert token_of(tmp_path / "another") != token
    assert {one.name for one in tmp_path.iterdir()} == {"http-token", "another"}


def test_a_half_made_token_of_a_dead_daemon_is_no_hindrance(tmp_path):
    """What a crash left is replaced."""
    (tmp_path / "http-token.new").write_text("half")
    assert len(token_of(tmp_path / "http-token")) >= 43


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o700 | 0o077])
def test_a_token_that_others_could_read_or_choose_is_refused(tmp_path, mode):
    """It may be known already."""
    path = tmp_path / "http-token"
    token_of(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="read by others"):
        token_of(path)


def test_no_link_no_pipe_and_no_weak_token(tmp_path):
    """A link could lead to a file that an attacker knows; a pipe could hold up the start."""
    token_of(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.link(tmp_path / "real", tmp_path / "twin")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "weak").write_text("secret")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for name in ("weak", "empty"):
        (tmp_path / name).chmod(0o600)
    for name in ("link", "twin", "pipe", "weak", "empty", "folder"):
        with pytest.raises(ConfigError):
            token_of(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    """A sentence with the path, not a traceback."""
    with pytest.raises(ConfigError, match="http-token"):
        token_of(tmp_path / "absent" / "http-token")
