"""Episodes of stormy hints against one house: jobs go in, hints go wrong, its file is attacked, it is killed."""

from __future__ import annotations

import json
import random
import select
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.hint_vandal import Vandal

#: Seconds an answer of the house may take.
PATIENCE_S = 60.0
_STORM = ("lost", "doubled", "reordered", "garbage", "others")


@dataclass
class Siege:
    """One house in *folder* that looks at its ledger every *period* seconds, and what is done to it."""

    folder: Path
    period: float
    seed: str
    sabotage: str = ""
    #: Longest time a job of an episode may wait after the storm, as a multiple of the period.
    allowed: float = 2.0
    jobs: int = 0
    faults: int = 0
    kills: int = 0
    #: Seconds from the end of each storm until every job was done.
    recoveries: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.chance = random.Random(f"{self.seed}-siege")
        self.trap = self.folder / "trapped"
        self.vandal = Vandal(self.folder / "queue.sqlite3", random.Random(f"{self.seed}-vandal"), self.trap)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ledger(self) -> Path:
        """Return the ledger's path."""
        return self.folder / "ledger.sqlite3"

    def episode(self, count: int, *, kill: bool, strikes: int) -> None:
        """Take in *count* jobs in a storm, with *strikes* against the queue's file, perhaps a kill; then wait."""
        command = self._command(count)
        self._ensure()
        self._send(command)
        for _ in range(strikes):
            time.sleep(self.chance.uniform(0.0, 0.15))
            self.vandal.strike()
        if kill:
            time.sleep(self.chance.uniform(0.0, 0.5))
            self._kill()
            self.vandal.strike(self.vandal.plant, self.vandal.replace, self.vandal.delete, self.vandal.scribble)
            self._ensure()
            self._send(command)
        self._hear()
        self.vandal.ids = [row[0] for row in self._ask("SELECT id FROM jobs ORDER BY seq DESC LIMIT 1000")]
        time.sleep(self.chance.uniform(0.0, 0.3))
        self._send({"do": "calm"})
        self.faults += int(self._hear()) + strikes + kill
        self.jobs += count
        self._wait()

    def _command(self, count: int) -> dict[str, Any]:
        """Return the episode's command: jobs of all lanes, one of which keeps the batch lane's worker busy."""
        numbers = range(self.jobs, self.jobs + count)
        jobs = [
            {
                "key": f"hint-{number}",
                "lane": self.chance.choices(("interactive", "normal", "batch"), (4, 5, 1))[0],
                "priority": self.chance.randint(-100, 100),
                "seconds": 0.0,
                "outputs": int(self.chance.random() < 0.02),
            }
            for number in numbers
        ]
        long = {"lane": "batch", "priority": 100, "seconds": self.period * (self.allowed + 2), "outputs": 1}
        jobs[0] |= long
        weather = {name: self.chance.choice((0.0, 0.1, 0.3, 0.5)) for name in _STORM}
        weather[self.chance.choice(_STORM)] = 0.5
        seed = f"{self.seed}-storm-{self.jobs}"
        return {"do": "episode", "wanted": jobs, "weather": weather, "seed": seed, "trap": str(self.trap)}

    def _wait(self) -> None:
        """Wait until all but the batch lane, whose worker is busy for longer, is done; note how long that took."""
        began, limit = time.monotonic(), self.allowed * self.period
        while waiting := self._open("lane <> 'batch'"):
            if time.monotonic() - began > limit:
                self.broken.append(
                    f"{waiting} jobs were not done {limit:g} s after the storm (looks are {self.period:g} s apart)"
                )
                return
            time.sleep(0.02)
        self.recoveries.append(time.monotonic() - began)

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until nothing is open, or for *timeout* seconds there was not one fewer; then end the house."""
        least, deadline = self._open("1"), time.monotonic() + timeout
        while (left := self._open("1")) and time.monotonic() < deadline:
            if left < least:
                least, deadline = left, time.monotonic() + timeout
            time.sleep(0.05)
        self.close()

    def close(self) -> None:
        """End the house, in order if it will."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._send({"do": "end"})
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.broken.append("the house did not end in order")
                self._process.kill()
        self._reap()
        self.vandal.close()

    def verdict(self) -> list[str]:
        """Return what was begun or committed more than once, and what was trapped."""
        sentences = twice(self.folder / "executions.log")
        if self.trap.exists():
            sentences.append("a pickle of the queue's file was unpickled")
        return sentences

    def _ensure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:
            self.broken.append(f"the house fell by itself, status {self._process.returncode}")
        command = [sys.executable, "-m", "torture.hint_house", str(self.folder), str(self.period), self.sabotage]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._hear()

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._reap()
        self.kills += 1

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"the house did not answer within {PATIENCE_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the house fell: {(self.folder / 'house.log').read_text()[-2000:]}")
        return json.loads(line)

    def _open(self, which: str) -> int:
        rows = self._ask(f"SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND {which}")  # noqa: S608 - our own words
        return int(rows[0][0])

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.ledger, timeout=30.0, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()


def twice(executions: Path) -> list[str]:
    """Return what the log of *executions* says was begun twice by one living process, or committed twice at all.

    No job of these campaigns fails, so a process has no reason to begin one again; another process has only when the
    first was killed before the commit.
    """
    begun: Counter[tuple[str, str]] = Counter()
    committed: Counter[str] = Counter()
    late: list[str] = []
    for line in executions.read_text().splitlines():
        what, key, _fence, pid = line.split()[:4]
        if what == "begin":
            begun[key, pid] += 1
            if committed[key]:
                late.append(f"{key} was begun after its commit")
        elif what == "commit":
            committed[key] += 1
    often = [f"{key} was begun {times} times by one process" for (key, _), times in begun.items() if times > 1]
    return late + often + [f"{key} was committed {times} times" for key, times in committed.items() if times > 1]
