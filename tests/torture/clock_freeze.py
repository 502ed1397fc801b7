"""The whole tree of a spawned daemon is stopped, and goes on: nothing runs twice, nobody is blamed for the pause."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from torture.checker import Verdict, check
from torture.demo_jobs import SAMPLES, known_words
from torture.history import History
from torture.home import TortureHome
from torture.load import Order, submit_one, wait_ready
from torture.stub import STUB

#: Seconds that a runner may be silent. Shorter than any pause, longer than a machine's hiccup.
SILENCE_S = 3.0
_CONFIG = f"""
[runner]
silence_timeout_s = {SILENCE_S}
"""
#: How often each of the samples' prompts is in the folder that a demo model answers: some seconds of work.
_COPIES = 10
#: Control: the time in which mlxd itself was stopped counts as the runner's silence.
_BLAMING = """

import daemon.models.engine as _engine

_engine._PARTS, _engine._OVERSLEPT_S = 1, 1e9
"""


@dataclass
class Freeze:
    """One daemon in *folder*, stopped for each of *pauses* (seconds), with jobs under way in it and in its runner."""

    folder: Path
    pauses: list[float]
    seed: str
    blaming: bool = False
    broken: list[str] = field(default_factory=list)
    #: Seconds from the going on until the stub's jobs were done; how long the prompts take is the machine's affair.
    recoveries: list[float] = field(default_factory=list)
    #: Pauses that found a demo model in the middle of a folder of prompts.
    mid_demo: int = 0

    def run(self) -> Verdict:
        """Stop and let go on as often as asked; return what the checker says."""
        chance = random.Random(f"{self.seed}-freeze")
        home = TortureHome(self.folder, config=_CONFIG, plugin=STUB + (_BLAMING if self.blaming else ""))
        history = History(self.folder / "history.jsonl")
        _fill(self._prompts)
        with home.supervisor() as supervisor:
            wait_ready(home.socket)
            self._submit(home, history, "warm", "stub:a")  # a job of seconds must not be over while it is loaded
            home.settle(60)
            for number, pause in enumerate(self.pauses):
                self._once(home, history, number, pause, chance)
            if len(supervisor.spawns) != 1:
                self.broken.append(f"the daemon was started {len(supervisor.spawns)} times")
        return check(history.path, ledger=home.ledger, executions=home.executions, results=home.results)

    def _once(self, home: TortureHome, history: History, number: int, pause: float, chance: random.Random) -> None:
        answers = self._submit_demo(home, history, f"demo-{number}")
        models = (None, "stub:a")
        keys = [self._submit(home, history, f"pause-{number}-{one}", model) for one, model in enumerate(models)]
        _until(lambda: all(self._begun(home, key) for key in keys) and self._runner(home) is not None)
        time.sleep(chance.uniform(0.2, 0.5))
        self.mid_demo += bool(home.query("SELECT 1 FROM jobs WHERE task = 'batch' AND state = 'running'"))
        tree = self._tree(home)
        # The runner first, and a moment later the daemon: then it has read everything, and will find silence.
        for pid in reversed(tree):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.1)
        self._intrude(home)
        time.sleep(max(0.0, pause))
        revived = tree if chance.random() < 0.7 or self.blaming else list(reversed(tree))
        began = time.monotonic()
        for pid in revived:
            with contextlib.suppress(ProcessLookupError):  # the broken daemon is quicker than we are
                os.kill(pid, signal.SIGCONT)
            time.sleep(chance.uniform(0.3, 0.6))
        while _open_stubs(home) and time.monotonic() < began + 60:
            time.sleep(0.02)
        self.recoveries.append(time.monotonic() - began)
        if not home.settle(60):
            self.broken.append(f"jobs were not done a minute after a pause of {pause:g} s")
        self._judge(home, [*keys, f"demo-{number}"], pause)
        self.broken += _wrong_answers(answers)

    def _submit(self, home: TortureHome, history: History, key: str, model: str | None) -> str:
        job_id = submit_one(home.socket, Order(key=key, params={"key": key, "seconds": 1.5, "model": model}))
        history.ack(job_id, key)
        return key

    @property
    def _prompts(self) -> Path:
        return self.folder / "prompts"

    def _submit_demo(self, home: TortureHome, history: History, key: str) -> Path:
        """Submit the folder of prompts; return the folder of its answers once there is one."""
        order = Order(key=key, task="batch", params={"folder": str(self._prompts)}, lane="batch")
        answers = home.results / submit_one(home.socket, order)
        history.ack(answers.name, key, text=f"{len(list(self._prompts.iterdir()))} done")
        _until(lambda: any(answers.glob("*.txt")))
        return answers

    def _begun(self, home: TortureHome, key: str) -> bool:
        return home.executions.exists() and f"begin {key} " in home.executions.read_text()

    def _tree(self, home: TortureHome) -> list[int]:
        daemon = next(iter(_daemons(home)))
        return [daemon.pid, *(child.pid for child in daemon.children(recursive=True))]

    def _runner(self, home: TortureHome) -> int | None:
        """Return the runner's process once it has something to do."""
        busy = home.query("SELECT count(*) FROM jobs WHERE state = 'running' AND task = 'stub'")[0][0] == 2
        tree = self._tree(home)
        loaded = home.executions.exists() and "load " in home.executions.read_text()
        return tree[1] if busy and loaded and len(tree) > 1 else None

    def _intrude(self, home: TortureHome) -> None:
        """Start a second daemon on the home of the one that sleeps: it has to go away, and to touch no job."""
        before = _jobs(home)
        command = [sys.executable, "-I", "-m", "daemon", "run"]
        done = subprocess.run(
            command, env={**os.environ, **home.environ}, capture_output=True, check=False, timeout=60, cwd=self.folder
        )
        if done.returncode == 0:
            self.broken.append("a second daemon ran beside the one that slept")
        if _jobs(home) != before:
            self.broken.append("a second daemon took jobs from the one that slept")

    def _judge(self, home: TortureHome, keys: list[str], pause: float) -> None:
        rows = home.query("SELECT idempotency_key, state, attempts, crashes, failures, fence FROM jobs")
        for key, *facts in rows:
            if key in keys and facts != ["succeeded", 1, 0, 0, 1]:
                told = dict(zip(("state", "attempts", "crashes", "failures", "claims"), facts, strict=True))
                self.broken.append(f"{key}, stopped for {pause:g} s: {told}")


def _fill(folder: Path) -> None:
    """Put each of the samples' prompts into *folder*, several times."""
    folder.mkdir()
    for sample in (SAMPLES / "prompts").iterdir():
        for copy in range(_COPIES):
            shutil.copy(sample, folder / f"{sample.stem}.{copy}{sample.suffix}")


def _wrong_answers(folder: Path) -> list[str]:
    said = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}
    return [
        f"the answer {name} is {text!r}"
        for name, text in said.items()
        if text.split() != known_words(name.split(".")[0]).split()
    ]


def _daemons(home: TortureHome) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            here = process.environ().get("MLXD_HOME") == str(home.folder)
            if here and "daemon.models.runner" not in process.cmdline() and "run" in process.cmdline():
                found.append(process)
    return found


def _jobs(home: TortureHome) -> list[tuple[object, ...]]:
    return home.query("SELECT id, state, attempts, fence, owner FROM jobs ORDER BY seq")


def _open_stubs(home: TortureHome) -> int:
    asking = "SELECT count(*) FROM jobs WHERE task = 'stub' AND state IN ('queued', 'running')"
    return int(home.query(asking)[0][0])


def _until(true: Callable[[], bool], patience: float = 120.0) -> None:
    """Wait until it is *true*, seconds at most that no machine should need: how long it takes is no promise here."""
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the jobs did not begin")
        time.sleep(0.02)
