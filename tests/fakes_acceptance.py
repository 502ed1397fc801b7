"""A real `mlxd run` in a process of its own, and the `mlxd` command beside it. Nothing here is fake but the home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from daemon.cli.client import Client
from jobs.errors import DaemonUnreachable
from jobs.model import Job

#: Longest time anything may take on a slow, shared machine, seconds.
PATIENCE = 120.0

#: A single-file plugin: tasks that need no model.
PLUGIN = """
import os, signal, time
import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")


class Params(BaseModel):
    seconds: float = 0.0
    text: str = "done"


class Noop:
    name, summary, params = "noop", "Does nothing, after a while.", Params

    def run(self, ctx, params):
        deadline = time.monotonic() + params.seconds
        while time.monotonic() < deadline:
            ctx.check()
            time.sleep(0.01)
        ctx.output("noop.txt", params.text)
        return {"text": params.text}


@hookimpl
def mlxd_register_tasks(register):
    register(Noop())
"""


class SpawnedDaemon:
    """One home, its daemon process, and the commands a person would type."""

    def __init__(self) -> None:
        # Short: a socket's path may have 103 bytes, and pytest's own temporary folders can be longer.
        self.home = Path(tempfile.mkdtemp(prefix="mlxd-"))
        (self.home / "plugins").mkdir(mode=0o700)
        (self.home / "plugins" / "noop.py").write_text(PLUGIN)
        self.process: subprocess.Popen[bytes] | None = None
        #: Whether coverage, if it runs, follows into the daemon: it costs memory and time, which some tests measure.
        self.traced = True

    @property
    def environ(self) -> dict[str, str]:
        around = os.environ if self.traced else {key: os.environ[key] for key in os.environ if "COVERAGE" not in key}
        return {**around, "MLXD_HOME": str(self.home), "MLX_DISABLE_COMPILE": "1"}

    @property
    def client(self) -> Client:
        return Client(self.home / "state" / "mlxd.sock")

    @property
    def output(self) -> str:
        return (self.home / "daemon.out").read_text(errors="replace")

    def configure(self, text: str) -> None:
        (self.home / "config.toml").write_text(text)

    def start(self) -> None:
        with (self.home / "daemon.out").open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "daemon", "run"], env=self.environ, stdout=out, stderr=out
            )
        self.until(self.answers, "the daemon to answer")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended: {self.output}"
        try:
            self.client.health()
        except DaemonUnreachable:
            return False
        return True

    def until(self, true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Ask again and again until *true* returns something; another process gives no signal to wait on."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if got := true():
                return got
            time.sleep(0.02)
        raise AssertionError(f"waited {patience} s for {what}\n{self.output}")

    def mlxd(self, *arguments: str, stdin: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run the `mlxd` command; text in, text out."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-I", "-m", "daemon", *arguments],
            env=self.environ,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        )

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """Run the `mlxd` command, expect success, return what it printed."""
        done = self.mlxd(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.output}"
        return done.stdout

    def json(self, *arguments: str, stdin: str | bytes | None = None) -> Any:
        return json.loads(self.ok(*arguments, "--json", stdin=stdin))

    def wait(self, job_id: str) -> Job:
        return self.client.wait(job_id, timeout=PATIENCE)

    def runners(self) -> list[psutil.Process]:
        """Return the runner processes of this daemon."""
        assert self.process is not None
        return [
            child for child in psutil.Process(self.process.pid).children() if "daemon.models.runner" in child.cmdline()
        ]

    def terminate(self) -> int:
        """Stop it as launchd would; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill it without warning."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End everything and remove the home."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        shutil.rmtree(self.home, ignore_errors=True)
