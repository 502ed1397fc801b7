"""The many lives of a watcher: killed and started again while files come, and under a burst; in real time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from torture import scenes
from torture.scenes import Scene, Stage
from torture.watch_verdict import Taken
from torture.watched_disk import WatchedDisk

#: Seconds: settling and rescans of the killed watcher.
HOLD: Final = 1.0
RESCAN: Final = 2.0
#: CPU time that a file of a burst may cost, milliseconds: 3 on a quiet machine, 6 where others fight for its caches.
_MOST_MS: Final = 15
#: What befalls files while watchers die; what is left out needs a clock turned by hand or a longer patience.
SCENES: Final[tuple[Scene, ...]] = (
    scenes.plain, scenes.slow_copy, scenes.renamed_in, scenes.folder_renamed_in, scenes.truncated_and_rewritten,
    scenes.replaced, scenes.deleted_early, scenes.touched, scenes.linked, scenes.unicode_twins, scenes.hostile_names,
    scenes.pipes_and_devices, scenes.links, scenes.downloads, scenes.left_behind, scenes.nested,
)  # fmt: skip


class Script:
    """Plays scenes in real time; call `go` often."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.disk = WatchedDisk(folder / "in", folder / "out", clock=time.monotonic, chance=chance)
        self.disk.root.mkdir(parents=True)
        self.disk.outside.mkdir(parents=True)
        self._plays: list[tuple[float, Iterator[float]]] = []

    def begin(self, count: int, of: Sequence[Scene] = SCENES) -> None:
        """Begin *count* more scenes *of* these."""
        for scene in self.disk.chance.choices(of, k=count):
            stage = Stage(self.disk, self.disk.root, hold=HOLD, long=HOLD + RESCAN)
            self._plays.append((time.monotonic(), scene(stage)))

    def go(self) -> bool:
        """Do what is due; return whether there is more to come."""
        now, left = time.monotonic(), []
        for due, play in self._plays:
            if due > now:
                left.append((due, play))
            elif (pause := next(play, None)) is not None:
                left.append((time.monotonic() + pause, play))
        self._plays = left
        return bool(left)


@contextmanager
def child(asked: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A watcher in a process of its own, ready; killed at the end if it is still there."""
    command = [sys.executable, "-m", "torture.watch_child", json.dumps(asked)]
    tests = str(Path(__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the watcher did not start")
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)


def killed(folder: Path, chance: random.Random, *, kills: int, durable: bool) -> tuple[Script, list[Taken]]:
    """Kill a watcher *kills* times at random instants while files come; return the play and what was taken in all.

    One that is not *durable*, the control, lives until it took something, and that stays: else it forgets nothing.
    """
    script = Script(folder, chance)
    asked = {
        "root": str(script.disk.root),
        "ledger": str(folder / "ledger.sqlite3"),
        "durable": durable,
        "hold": HOLD,
        "rescan": RESCAN,
    }
    for _ in range(kills):
        script.begin(3, SCENES if durable else (scenes.plain,))
        with child(asked):
            until, before = time.monotonic() + chance.uniform(0, 2 * HOLD), len(taken_by(folder / "ledger.sqlite3"))
            while time.monotonic() < until or not (durable or len(taken_by(folder / "ledger.sqlite3")) > before):
                script.go()
                time.sleep(0.02)
    with child(asked):
        while script.go():
            time.sleep(0.02)
        _await_calm(folder / "ledger.sqlite3", HOLD + RESCAN)
    return script, taken_by(folder / "ledger.sqlite3")


def _await_calm(ledger: Path, quiet: float, patience: float = 60.0) -> None:
    """Return when no job has come for *quiet* seconds and one more; whoever is late by then is lost."""
    deadline, count, since = time.monotonic() + patience, -1, time.monotonic()
    while time.monotonic() < min(deadline, since + quiet + 1.0):
        if (now := len(taken_by(ledger))) != count:
            count, since = now, time.monotonic()
        time.sleep(0.1)


def taken_by(ledger: Path) -> list[Taken]:
    """Return what became jobs, from the ledger of a `watch_child`."""
    with closing(sqlite3.connect(ledger)) as connection:
        rows = [json.loads(params) for (params,) in connection.execute("SELECT params FROM jobs ORDER BY seq")]
    return [Taken(str(one["file"]), str(one["key"]).split(":")[1], str(one["read"]), one["at"]) for one in rows]


class Burst:
    """What one process pays for *count* files that come at once, twice."""

    def __init__(self, folder: Path, count: int) -> None:
        self.root = folder / "in"
        self.ledger = folder / "ledger.sqlite3"
        self.root.mkdir(parents=True)
        self.count = count
        #: Figures, with their units in the names.
        self.measured: dict[str, float] = {}
        self.broken: list[str] = []

    def run(self) -> None:
        """Let two bursts come, the first one's files gone by then, and compare what the process holds after each."""
        asked = {"root": str(self.root), "ledger": str(self.ledger), "durable": True, "hold": 2.0, "rescan": 10.0}
        with child(asked) as process:
            watched = psutil.Process(process.pid)
            self._burst(0)
            first = _held(watched)
            shutil.rmtree(self.root / "burst0")
            began = sum(watched.cpu_times()[:2])
            self._burst(1)
            spent = sum(watched.cpu_times()[:2]) - began
            time.sleep(0.5)
            second, idle = _held(watched), sum(watched.cpu_times()[:2])
            time.sleep(2.0)
            idle = (sum(watched.cpu_times()[:2]) - idle) / 2.0
        self.measured = {
            "burst_files": 2 * self.count,
            "burst_cpu_ms_per_file": round(1000 * spent / self.count, 3),
            "burst_idle_cpu_share": round(idle, 4),
            "burst_rss_growth_bytes_per_file": round((second[0] - first[0]) / self.count),
            "burst_descriptors": second[1],
            "burst_threads": second[2],
        }
        self._hold_against(first, second, idle)

    def _burst(self, number: int) -> None:
        before = len(taken_by(self.ledger))
        for one in range(self.count):
            path = self.root / f"burst{number}" / str(one % 97) / f"{one}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number} {one}")
        deadline = time.monotonic() + 60 + self.count / 50
        while (taken := len(taken_by(self.ledger))) < before + self.count and time.monotonic() < deadline:
            time.sleep(0.2)
        if taken != before + self.count:
            self.broken.append(f"a burst of {self.count} files became {taken - before} jobs")

    def _hold_against(self, first: tuple[int, int, int], second: tuple[int, int, int], idle: float) -> None:
        measured = self.measured
        if measured["burst_cpu_ms_per_file"] > _MOST_MS:
            self.broken.append(f"a file of a burst costs {measured['burst_cpu_ms_per_file']} ms of CPU")
        if idle > 0.05:
            self.broken.append(f"after a burst the watcher goes on using {idle:.0%} of a core")
        if second[0] - first[0] > 400 * self.count + (8 << 20):
            self.broken.append(f"memory grows by {second[0] - first[0]} bytes with the second {self.count} files")
        if second[1] > first[1] or second[2] > first[2]:
            self.broken.append(f"descriptors and threads grow: {first[1:]} after one burst, {second[1:]} after two")


def _held(process: psutil.Process) -> tuple[int, int, int]:
    """Return resident bytes, descriptors, threads."""
    return process.memory_info().rss, process.num_fds(), process.num_threads()
