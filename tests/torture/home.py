"""A home of mlxd under attack: its configuration, the stub plugin, and the launch agent that mlxd would install."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from daemon.config.model import load
from daemon.installation import describe
from daemon.paths import find_home
from launchd.contract import Answer
from launchd.control import ServiceController
from torture.launchsim import Supervisor
from torture.stub import STUB

#: The stub models that every home has: aliases of folders of their own, so each gets a runner of its own.
MODELS = ("stub:a", "stub:b", "stub:c", "stub:d")
#: States of jobs that wait or run.
OPEN = ("queued", "running")
_MODEL = '[models."{ref}"]\npath = {path}\nruntime = "stub"\n'


class TortureHome:
    """The home in *folder* (made if need be; its path must be short), with *config* (TOML) and *plugin* in it.

    The configuration gets the aliases of `MODELS`; what *config* says about them itself wins. ``log.level`` and
    whatever else a row wants stands in *config*.
    """

    def __init__(self, folder: Path, *, config: str = "", plugin: str = STUB) -> None:
        self.folder = folder
        self.paths = find_home({"MLXD_HOME": str(folder)})
        self.environ = {"MLXD_HOME": str(folder), "HOME": str(folder)}
        for path in (folder, self.paths.plugins, folder / "models"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.paths.plugins / "stub.py").write_text(plugin, encoding="utf-8")
        self.configure(config)
        self.install()

    @property
    def socket(self) -> Path:
        """Return the path of the daemon's socket."""
        return self.paths.socket

    @property
    def ledger(self) -> Path:
        """Return the path of the ledger."""
        return self.paths.ledger

    @property
    def results(self) -> Path:
        """Return the folder of the jobs' own result folders."""
        return self.paths.results

    @property
    def plist(self) -> Path:
        """Return the path of the launch agent's property list."""
        return self.folder / "LaunchAgents" / "io.mlxd.agent.plist"

    @property
    def log(self) -> Path:
        """Return the path of the daemon's log."""
        return self.paths.logs / "mlxd.log"

    @property
    def executions(self) -> Path:
        """Return the path of the stub's log of executions."""
        return self.folder / "executions.log"

    def configure(self, config: str) -> None:
        """Write the configuration; a daemon that runs reads it when it is told to."""
        models = [self.model_folder(ref) for ref in MODELS]
        aliases = [
            _MODEL.format(ref=ref, path=json.dumps(str(path)))
            for ref, path in zip(MODELS, models, strict=True)
            if f'[models."{ref}"]' not in config
        ]
        self.paths.config.write_text("\n".join([config, *aliases]), encoding="utf-8")

    def model_folder(self, ref: str) -> Path:
        """Return the folder of the stub model *ref*, which is one that mlxd's checks let pass."""
        folder = self.folder / "models" / ref.replace(":", "-")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "config.json").write_text('{"model_type": "stub"}')
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
        return folder

    def install(self) -> None:
        """Write launcher and property list as `mlxd service install` does on a Mac; only launchctl is not asked."""
        drain = load(self.paths.config, home=self.paths, environ={}).drain_seconds
        spec = describe(self.paths, drain_seconds=drain, environ=self.environ, platform="darwin")
        ServiceController(spec, agents=self.plist.parent, uid=os.getuid(), run=_launchctl).install()

    def supervisor(self, *, environ: Mapping[str, str] | None = None, throttle_s: float | None = 0.0) -> Supervisor:
        """Return launchd for this home's agent, not yet started. See `Supervisor` for why the throttle is 0 here."""
        return Supervisor(self.plist, environ=environ, throttle_s=throttle_s)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Ask the ledger, by SQL and without mlxd's own code; empty as long as there is none."""
        if not self.ledger.exists():
            return []
        # Writable: the last connection to a WAL file that is closed read-only would leave nobody to recover it.
        with closing(sqlite3.connect(self.ledger, timeout=30.0, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def unfinished(self) -> int:
        """Return how many jobs wait or run."""
        found = self.query("SELECT count(*) FROM jobs WHERE state IN (?, ?)", OPEN)
        return int(found[0][0]) if found else 0

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until no job waits or runs; False when for *timeout* seconds there was not one fewer."""
        least, deadline = self.unfinished(), time.monotonic() + timeout
        while left := self.unfinished():
            if left < least:
                least, deadline = left, time.monotonic() + timeout
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def _launchctl(command: Sequence[str]) -> Answer:
    """Answer as launchctl does about a service that it does not know, and take everything else."""
    return Answer(113, "", "") if command[1] == "print" else Answer(0, "", "")
