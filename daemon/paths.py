"""Where everything lives: one value, made once, passed to whoever needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folders and files of one mlxd instance."""

    #: The TOML configuration; need not exist.
    config: Path
    #: Ledger, queue, lock, socket. Mode 0700.
    state: Path
    #: Rotating logs.
    logs: Path
    #: Files that may be deleted at any time.
    cache: Path
    #: Outputs of jobs that said no other place, a folder each.
    results: Path
    #: Single-file plugins.
    plugins: Path
    #: The watched folder that exists with no configuration at all.
    inbox: Path

    @property
    def socket(self) -> Path:
        """Return the Unix socket's path."""
        return self.state / "mlxd.sock"

    @property
    def token(self) -> Path:
        """Return the path of the secret for the optional TCP port."""
        return self.state / "http-token"

    @property
    def ledger(self) -> Path:
        """Return the ledger's path."""
        return self.state / "ledger.sqlite3"

    @property
    def queue(self) -> Path:
        """Return the path of huey's database, which may be deleted at any time."""
        return self.state / "queue.sqlite3"

    @property
    def prefixes(self) -> Path:
        """Return the folder of the beginnings of prompts that runners keep; it may be deleted at any time."""
        return self.cache / "prefixes"

    @property
    def lock(self) -> Path:
        """Return the path of the lock that makes a second instance stop."""
        return self.state / "mlxd.lock"


def find_home(environ: Mapping[str, str] = os.environ) -> Home:
    """Return the home that *environ* asks for: everything under ``MLXD_HOME``, or the platform's own places.

    Raises:
        ConfigError: its name cannot be told: JSON carries no bytes that are not characters.

    """
    root = environ.get("MLXD_HOME")
    home = _under(Path(root).expanduser().absolute()) if root else _platform_home(environ)
    for path in (home.state, home.results):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(path).decode(errors="backslashreplace")
            raise ConfigError(f"The path {shown} is not valid UTF-8. Set MLXD_HOME to another folder.") from error
    return home


def _under(root: Path) -> Home:
    return Home(
        config=root / "config.toml",
        state=root / "state",
        logs=root / "logs",
        cache=root / "cache",
        results=root / "results",
        plugins=root / "plugins",
        inbox=root / "inbox",
    )


def _platform_home(environ: Mapping[str, str]) -> Home:
    """Follow the platform's conventions without importing platformdirs' ten modules on every `mlxd submit`."""
    user = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - launchd may start us without HOME
    visible = user / "mlxd"
    if sys.platform == "darwin":
        support = user / "Library" / "Application Support" / "mlxd"
        config, state = support / "config.toml", support / "state"
        logs, cache = user / "Library" / "Logs" / "mlxd", user / "Library" / "Caches" / "mlxd"
        own_plugins = support / "plugins"
    else:
        config_home = Path(environ.get("XDG_CONFIG_HOME") or user / ".config") / "mlxd"
        state = Path(environ.get("XDG_STATE_HOME") or user / ".local" / "state") / "mlxd"
        config, logs, own_plugins = config_home / "config.toml", state / "logs", config_home / "plugins"
        cache = Path(environ.get("XDG_CACHE_HOME") or user / ".cache") / "mlxd"
    return Home(
        config=config,
        state=state,
        logs=logs,
        cache=cache,
        results=visible / "results",
        plugins=own_plugins,
        inbox=visible / "inbox",
    )
