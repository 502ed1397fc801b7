"""Stopping the daemon as launchd does, in the middle of everything, and looking at what it leaves behind."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from torture.history import History
from torture.home import TortureHome
from torture.launchsim import Supervisor
from torture.load import Order, submit_one, wait_ready
from torture.stub import expected

#: A drain of *drain* seconds; one model that is always being loaded when the signal comes, and one for batches.
CONFIG = """\
drain_seconds = {drain}
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
lane = "batch"
[folders.params]
steps = 8
seconds = 1.2
[models."stub:c"]
path = "./models/stub-c"
runtime = "stub"
options = {{ load_seconds = {loading} }}
[models."stub:d"]
path = "./models/stub-d"
runtime = "stub"
options = {{ item_seconds = 0.05 }}
"""
#: Items of one batch, and how many of them are asked at once: about two seconds of work.
ITEMS, AT_ONCE = 160, 4


#: What a stop has to be in the midst of, each at least once.
KINDS = ("token", "load", "batch", "folder")


@dataclass
class Stops:
    """What was seen at each stop."""

    #: Seconds from SIGTERM to the end.
    took: list[float] = field(default_factory=list)
    #: How many stops found each kind of work under way.
    midst: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


class Drainer:
    """Keeps the daemon of *home* in work of every kind, and stops it again and again.

    *limit_s* is how long a stop may take, seconds.
    """

    def __init__(
        self, home: TortureHome, history: History, supervisor: Supervisor, *, limit_s: float, chance: random.Random
    ) -> None:
        self._home, self._history, self._supervisor, self._chance = home, history, supervisor, chance
        self._limit_s = limit_s
        self._started = time.monotonic()
        self._batches = 0
        self.stops = Stops()
        #: Items whose output was on disk at a stop, and when that stop was over.
        self._done_at: dict[str, float] = {}

    def submit_long(self, count: int, seconds: float) -> None:
        """Submit jobs that are at their tokens, and jobs whose model is being loaded, at every stop."""
        for number in range(count):
            for name, model in (("tokens", "stub:a"), ("loading", "stub:c")):
                key = f"{name}-{number}"
                self.submit(Order(key=key, params={"key": key, "model": model, "seconds": seconds}))

    def submit_batch(self) -> None:
        """Submit another folder of prompts, unless one is under way."""
        if self._home.query("SELECT 1 FROM jobs WHERE task = 'batch' AND state IN ('queued', 'running')"):
            return
        name = f"batch-{self._batches}"
        self._batches += 1
        folder = self._home.folder / name
        folder.mkdir()
        for number in range(ITEMS):
            (folder / f"{number}.txt").write_text(f"{name}-item-{number}")
        params = {"folder": str(folder), "model": "stub:d", "concurrency": AT_ONCE}
        expect = {"text": f"{ITEMS} done"}
        self.submit(Order(key=name, task="batch", params=params, lane="batch", expect=expect))

    def submit(self, order: Order) -> None:
        """Submit one job."""
        self._history.ack(submit_one(self._home.socket, order), order.key, **order.expect)

    def stop_once(self, *, least_s: float, most_s: float) -> None:
        """Let the daemon work for a random time, stop it, look, and start it again."""
        wait_ready(self._home.socket, timeout=60.0)
        self.submit_batch()
        time.sleep(self._chance.uniform(least_s, most_s))
        midst = self._under_way()
        self.stops.midst.update(midst)
        self._history.event("stop", midst=sorted(midst))
        began = time.monotonic()
        ended = self._supervisor.stop()
        assert ended is not None
        self._look(ended.status, ended.at - began, killed=ended.by_kill_after_timeout, left=ended.leftovers)
        self._started = time.monotonic()
        self._supervisor.start()

    def missed(self) -> bool:
        """Tell whether no stop yet was in the midst of one of `KINDS`."""
        return not all(self.stops.midst[kind] for kind in KINDS)

    def _under_way(self) -> set[str]:
        """Return what kinds of work the daemon is in the middle of, by the ledger and the stub's log."""
        running = self._home.query(
            "SELECT json_extract(params, '$.model'), task, source_kind FROM jobs WHERE state = 'running'"
        )
        kinds = {("stub:a", "stub"): "token", ("stub:d", "batch"): "batch"}
        found = {kinds[(model, task)] for model, task, _ in running if (model, task) in kinds}
        # A job begins when its model is there: that one is being loaded shows by its runner alone.
        begun = any(words[1] == "stub-c" and float(words[4]) > self._started for words in self._lines("load"))
        loading = begun and all(model != "stub:c" for model, *_ in running)
        return (
            found
            | ({"load"} if loading else set())
            | {"folder" for *_, source in running if source == "folder"}
            | {"demo" for _, task, _ in running if task in {"generate", "transcribe"}}
        )

    def _look(self, status: int, took: float, *, killed: bool, left: int) -> None:
        """Hold one stop against the promise."""
        stops = self.stops
        stops.took.append(took)
        number = len(stops.took)
        if killed or status != 0:
            stops.broken.append(f"Stop {number} ended with {status}{', killed by the supervisor' if killed else ''}.")
        if took > self._limit_s:
            stops.broken.append(f"Stop {number} took {took:.1f} s, more than {self._limit_s:g} s.")
        if left:
            stops.broken.append(f"Stop {number} left {left} processes behind.")
        held = self._home.query("SELECT count(*) FROM jobs WHERE state = 'running'")[0][0]
        if held:
            stops.broken.append(f"Stop {number} left {held} jobs claimed.")
        spent = self._home.query("SELECT count(*) FROM jobs WHERE state = 'queued' AND attempts > failures + crashes")[
            0
        ][0]
        if spent:
            stops.broken.append(f"Stop {number} cost {spent} waiting jobs an attempt.")
        for path in self._home.results.glob("*/*.out.txt"):
            self._done_at.setdefault(path.read_text().strip(), time.monotonic())

    def repeated(self) -> list[str]:
        """Return which steps and items of batches were done again after a stop, a sentence each."""
        found, steps = [], Counter[tuple[str, str]]()
        items = {expected(prompt): prompt for prompt, _ in self._items()}
        done_at = {items[text]: at for text, at in self._done_at.items() if text in items}
        for prompt, at in self._items():
            if at > done_at.get(prompt, at):
                found.append(f"{prompt} was asked again although its answer was on disk at a stop.")
        for words in self._lines("step"):
            steps[words[1], words[5]] += 1
        found += [f"Step {step} of {key} was done {times} times." for (key, step), times in steps.items() if times > 1]
        return found

    def asked_again(self) -> int:
        """Return how many items were answered more than once: those that were in flight when they were stopped."""
        return sum(times - 1 for times in Counter(prompt for prompt, _ in self._items()).values())

    def _items(self) -> list[tuple[str, float]]:
        return [(unquote(words[1]), float(words[4])) for words in self._lines("item")]

    def _lines(self, kind: str) -> list[list[str]]:
        file = self._home.executions
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [words for words in map(str.split, lines) if words[0] == kind]


def attempts(home: TortureHome) -> list[str]:
    """Return the jobs that took other than one attempt, a sentence each; to be asked when all is done."""
    asking = "SELECT idempotency_key, source_detail, attempts, failures, crashes FROM jobs WHERE attempts != 1"
    return [
        f"{key or detail} took {count} attempts ({failures} failures, {crashes} crashes)."
        for key, detail, count, failures, crashes in home.query(asking)
    ]


def wrong_items(home: TortureHome) -> list[str]:
    """Return the files of batches whose text is not the prompt's, a sentence each."""
    found = []
    for key, outputs in home.query("SELECT idempotency_key, outputs FROM jobs WHERE task = 'batch'"):
        paths = [Path(one["path"]) for one in json.loads(outputs or "[]")]
        texts = {path.name: path.read_text().strip() for path in paths if path.name.endswith(".out.txt")}
        wanted = {f"{number}.out.txt": expected(f"{key}-item-{number}") for number in range(ITEMS)}
        if texts != wanted:
            wrong = [name for name in {*texts, *wanted} if texts.get(name) != wanted.get(name)]
            found.append(f"{len(wrong)} of the {ITEMS} items of {key} are wrong or missing.")
    return found


#: Builds that are broken on purpose, by a plugin that takes the daemon apart from within: what the checks must say of
#: each, and the plugin.
SABOTAGE: Mapping[str, tuple[str, str]] = {
    "a drain that counts the attempt": (
        "waiting jobs an attempt",
        """
import jobs.ledger
released = jobs.ledger.moves.released
jobs.ledger.moves.released = lambda job, *, now: {**released(job, now=now), "attempts": job.attempts}
""",
    ),
    "no drain: TERM ends the process": (
        "jobs claimed",
        """
import os
import daemon.process
daemon.process._Life._drain = lambda self: os._exit(0)
""",
    ),
    "checkpoints that are not kept": (
        "was done 2 times",
        """
import jobs.ledger
jobs.ledger.Ledger.checkpoint = lambda self, job_id, fence, data: None
""",
    ),
}
_HOOK = """
import pluggy

@pluggy.HookimplMarker("mlxd")
def mlxd_register_tasks(register):
    pass
"""


def sabotage(home: TortureHome, how: str) -> None:
    """Break the build that *home* runs."""
    (home.paths.plugins / "sabotage.py").write_text(_HOOK + SABOTAGE[how][1])
