"""Killing the daemon again and again under load, and measuring how soon it is back at work."""

from __future__ import annotations

import bisect
import hashlib
import http.client
import json
import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torture.history import History
from torture.home import TortureHome
from torture.launchsim import Exit, Supervisor
from torture.load import ask, wait_ready
from torture.withheld import Span

#: A watched folder whose files settle quickly, and whose outputs come to lie in it too.
CONFIG = """\
drain_seconds = 10
[log]
level = "warning"
[watch]
rescan_seconds = 5
[[folders]]
path = "in"
create = true
settle_seconds = 0.1
task = "stub"
match = ["*.txt"]
"""


class FileDropper:
    """Puts *rate* files a second into the watched folder of `CONFIG`: some renamed there, some moved in."""

    def __init__(self, home: TortureHome, history: History, *, rate: float, seed: str) -> None:
        self._folder, self._history, self._rate = home.folder / "in", history, rate
        self._chance = random.Random(f"{seed}-files")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._drop, daemon=True)
        self._folder.mkdir(exist_ok=True)
        #: How many files there are.
        self.dropped = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Put no more files there."""
        self._stopping.set()
        self._thread.join()

    def _drop(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0.0, 2.0 / self._rate)):
            content = f"{self.dropped} {self._chance.random()}".encode()
            path = self._folder / f"file-{self.dropped}.txt"
            # Whole at once: how files are made slowly is another row's business, and would be a matter of luck here.
            before = (self._folder if self._chance.random() < 0.5 else self._folder.parent) / f"{path.stem}.part"
            before.write_bytes(content)
            before.rename(path)
            self._history.file(path, hashlib.sha256(content).hexdigest())
            self.dropped += 1

    def settle(self, home: TortureHome, timeout: float) -> bool:
        """Wait until every file has become a job."""
        deadline = time.monotonic() + timeout
        asking = "SELECT count(DISTINCT source_detail) FROM jobs WHERE source_kind = 'folder'"
        while home.query(asking)[0][0] < self.dropped:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


class Killer:
    """Kills the daemon that *supervisor* keeps, at random instants.

    A quarter of the kills hit the start, up to *start_s* after it. The others come up to *life_s* after the first
    answer, so that the time until this answer is measured for every one of those starts, however long it takes.
    """

    def __init__(self, home: TortureHome, supervisor: Supervisor, chance: random.Random) -> None:
        self._home, self._supervisor, self._chance = home, supervisor, chance
        #: Starts, each with the first answer.
        self.ready: list[Span] = []

    def kill(self, *, start_s: float = 0.9, life_s: float = 1.0) -> None:
        """Let it live for a random time, kill it, and wait for the next start."""
        supervisor = self._supervisor
        began = supervisor.spawns[-1]
        if self._chance.random() < 0.25:
            time.sleep(max(0.0, began + self._chance.uniform(0.0, start_s) - time.monotonic()))
        else:
            self._answer(began)
            time.sleep(self._chance.uniform(0.0, life_s))
        count = len(supervisor.spawns)
        supervisor.kill(signal.SIGKILL)
        if not supervisor.wait_spawn(count + 1):
            raise TimeoutError("The supervisor did not start the daemon again.")

    def _answer(self, began: float) -> None:
        self.ready.append((began, wait_ready(self._home.socket, timeout=60.0)))


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How long interrupted jobs waited for their next claim."""

    #: From the kill that interrupted them, of those whose next daemon lived long enough.
    from_kill: Sequence[Span]
    #: From the start of the daemon that claimed them.
    from_start: Sequence[Span]


def recovery(executions: Path, spawns: Sequence[float], exits: Sequence[Exit]) -> Recovery:
    """Measure, by the stub's log, the time from each interruption of a job to its next claim.

    When a daemon is killed before it could claim the job again, the time counts from that last kill: the fault before
    was overtaken by another one.
    """
    deaths = [one.at for one in exits]
    before: dict[str, float] = {}
    from_kill, from_start = [], []
    for line in executions.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[0] != "begin":
            continue
        key, at = words[1], float(words[4])
        if bisect.bisect_right(deaths, at) > bisect.bisect_right(deaths, before.get(key, at)):
            from_kill.append((deaths[bisect.bisect_right(deaths, at) - 1], at))
            from_start.append((spawns[bisect.bisect_right(spawns, at) - 1], at))
        before[key] = at
    return Recovery(from_kill=from_kill, from_start=from_start)


def health(home: TortureHome) -> dict[str, object]:
    """Return the health page, {} when nobody answers."""
    try:
        found: dict[str, object] = json.loads(ask(home.socket, "GET", "/v1/health")[2])
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return found
