"""One daemon for each home: a lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from daemon.paths import Home
from jobs.errors import AlreadyRunning, ConfigError
from jobs.files import make_folder


class InstanceLock:
    """Holds the home's lock while open.

    Raises:
        AlreadyRunning: with the other's process id.

    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = self._read_pid()
            self._file.close()
            raise AlreadyRunning(
                f"mlxd already runs for this home (process {pid or 'unknown'}, {path.parent}). "
                "Stop it with `mlxd stop`, `mlxd service stop` or by ending that process, "
                "or set MLXD_HOME to use another home.",
                pid=pid,
                home=str(path.parent),
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        """Let go. The file stays: removing it would let two hold the lock on two files of one name."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_pid(self) -> int | None:
        self._file.seek(0)
        text = self._file.read().strip()
        return int(text) if text.isdigit() else None


def prepare(home: Home) -> None:
    """Make the home's folders; the state folder is for its owner alone.

    Raises:
        ConfigError: a folder cannot be made or belongs to somebody else.

    """
    for folder in (home.state, home.logs, home.cache, home.results, home.plugins):
        try:
            make_folder(folder, mode=0o700)
        except OSError as error:
            raise ConfigError(
                f"The folder {folder} cannot be made: {error.strerror}. Set MLXD_HOME to a folder you may write to.",
                path=str(folder),
            ) from error
    owner = home.state.stat().st_uid
    if owner != os.geteuid():
        raise ConfigError(
            f"The folder {home.state} belongs to user {owner}, not to you. Set MLXD_HOME to a folder of your own.",
            path=str(home.state),
        )
    home.state.chmod(0o700)
