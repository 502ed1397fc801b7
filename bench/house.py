"""A daemon of our own in a folder of its own, started and stopped as a person would."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import interpreter, model_variables

#: Seconds that anything may take before the benchmark gives up.
PATIENCE = 120.0

#: A task that does nothing, to measure everything around a task.
_NOOP = """\
import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")


class Params(BaseModel):
    pass


class Noop:
    name, summary, params = "noop", "Does nothing.", Params

    def run(self, ctx, params):
        return {}


@hookimpl
def mlxd_register_tasks(register):
    register(Noop())
"""


def command() -> list[str]:
    """Return the beginning of every `mlxd` command."""
    return [interpreter(), "-I", "-m", "daemon"]


class House:
    """One home folder and its daemon. *config* is its configuration, *runner* more lines of the table.

    *blas* goes to the runners alone.
    """

    def __init__(self, config: str = "", *, blas: str | None = None, runner: str = "") -> None:
        # Short: a socket's path may have 103 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="mlxd-bench-"))
        plugins = self.home / "plugins"
        plugins.mkdir(mode=0o700)
        (plugins / "noop.py").write_text(_NOOP)
        (plugins / "noop.py").chmod(0o600)
        env = ", ".join(f'{key} = "{value}"' for key, value in model_variables(blas).items())
        (self.home / "config.toml").write_text(f"folders = []\n{config}\n[runner]\nenv = {{ {env} }}\n{runner}\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment for daemon and commands."""
        kept = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        return {**kept, "MLXD_HOME": str(self.home)}

    @property
    def socket(self) -> Path:
        """Return the daemon's socket."""
        return self.home / "state" / "mlxd.sock"

    @property
    def pid(self) -> int:
        """Return the daemon's process id."""
        if self._process is None:
            raise SystemExit("The daemon is not running.")
        return self._process.pid

    def start(self) -> float:
        """Start the daemon and return the seconds from spawning to the first good answer."""
        with (self.home / "daemon.out").open("ab") as out:
            started = time.perf_counter()
            self._process = subprocess.Popen([*command(), "run"], env=self.environ, stdout=out, stderr=out)
        while not self._healthy():
            if self._process.poll() is not None or time.perf_counter() - started > PATIENCE:
                raise SystemExit(f"The daemon did not start:\n{(self.home / 'daemon.out').read_text()[-2000:]}")
            time.sleep(0.002)
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop it the ordinary way and wait for its end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)
            self._process = None

    def _healthy(self) -> bool:
        try:
            return ask(self.socket, "/v1/health") == http.client.OK
        except OSError:
            return False


def ask(path: Path, target: str) -> int:
    """GET *target* over the Unix socket *path* and return the status."""
    connection = http.client.HTTPConnection("mlxd")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(PATIENCE)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@contextmanager
def running(config: str = "", *, blas: str | None = None, runner: str = "") -> Iterator[House]:
    """Give a house with a running daemon, and clear everything away afterwards."""
    house = House(config, blas=blas, runner=runner)
    try:
        house.start()
        yield house
    finally:
        house.stop()
        shutil.rmtree(house.home, ignore_errors=True)
