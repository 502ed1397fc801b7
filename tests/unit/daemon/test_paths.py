"""Where everything lives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from daemon.paths import find_home
from jobs.errors import ConfigError


def test_mlxd_home_moves_everything(tmp_path: Path) -> None:
    """With MLXD_HOME every path lies under it."""
    home = find_home({"MLXD_HOME": str(tmp_path)})
    paths = [home.config, home.state, home.logs, home.cache, home.results, home.plugins, home.inbox]
    paths += [home.socket, home.ledger, home.queue, home.lock]

    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_linux_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux the XDG variables decide, with their usual defaults."""
    monkeypatch.setattr(sys, "platform", "linux")
    home = find_home({"HOME": "/u", "XDG_CONFIG_HOME": "/c"})

    assert (Path("/c/mlxd/config.toml"), Path("/u/.local/state/mlxd")) == (home.config, home.state)
    assert Path("/u/mlxd/inbox") == home.inbox


def test_macos_uses_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS it is Application Support, Logs and Caches; the inbox stays where no permission is needed."""
    monkeypatch.setattr(sys, "platform", "darwin")
    home = find_home({"HOME": "/Users/u"})

    assert Path("/Users/u/Library/Application Support/mlxd/config.toml") == home.config
    assert Path("/Users/u/Library/Logs/mlxd") == home.logs
    assert Path("/Users/u/mlxd/inbox") == home.inbox


@pytest.mark.parametrize("variable", ["MLXD_HOME", "HOME"])
def test_a_home_that_cannot_be_told_is_refused(variable: str) -> None:
    """On Linux a folder's name may be any bytes; answers are JSON, which carries characters only."""
    with pytest.raises(ConfigError, match=r"/odd\\xff.* is not valid UTF-8"):
        find_home({"HOME": "/u", variable: "/odd\udcff"})
