"""One daemon for each home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.instance import InstanceLock, prepare
from daemon.paths import find_home
from jobs.errors import AlreadyRunning, ConfigError


def test_second_holder_is_refused(tmp_path: Path) -> None:
    """Who comes second is told the first one's process id; when the first is gone the lock is free."""
    path = tmp_path / "lock"
    with InstanceLock(path), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        InstanceLock(path)
    with InstanceLock(path):
        assert f"{os.getpid()}\n" == path.read_text()


def test_prepare_makes_private_folders(tmp_path: Path) -> None:
    """All folders are made; the state folder is closed to others even if it was open."""
    home = find_home({"MLXD_HOME": str(tmp_path / "home")})
    home.state.mkdir(parents=True, mode=0o755)
    prepare(home)

    assert home.state.stat().st_mode & 0o777 == 0o700
    assert all(folder.is_dir() for folder in (home.logs, home.cache, home.results, home.plugins))


def test_prepare_says_what_to_do(tmp_path: Path) -> None:
    """A home that cannot be made is one sentence that names MLXD_HOME."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="MLXD_HOME"):
        prepare(find_home({"MLXD_HOME": str(tmp_path / "file")}))
