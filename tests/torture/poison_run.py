"""A load with poison in it: jobs that kill whatever runner they get, among others that share it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torture import stub_log
from torture.checker import Verdict, check
from torture.demo_jobs import demo_jobs, demo_order, prompt_order, spoken_order
from torture.history import History
from torture.home import TortureHome
from torture.load import Load, Mix, Order, ask, submit_one, wait_ready
from torture.stub import STUB

_STUBS: Final = ("stub:a", "stub:b")
#: Deaths at which a job is put aside.
LIMIT = 3
_CONFIG = """\
drain_seconds = 5
[log]
level = "warning"
[runner]
max_crashes = {limit}
"""
#: What some texts do to the runner of a real language model, in the midst of the others that are aboard.
_POISONED_MODEL: Final = """

from plugins.lm import LmRuntime

_load_model = LmRuntime.load


class Poisoned:
    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def submit(self, request_id, request):
        text = str(request["messages"][-1]["content"] if "messages" in request else request["prompt"])
        self._session.submit(request_id, request)
        if text.startswith("poison"):
            misbehave("poison")


LmRuntime.load = lambda self, model, options: Poisoned(_load_model(self, model, options))
"""
#: The stub also answers what tasks for language models ask. An item whose text begins with "poison" kills it, and
#: kills the runner of a demo model too.
PLUGIN: Final = (
    STUB
    + """

_take = Session.submit


def _take_text(self, request_id, request):
    if "key" not in request:
        text = str(request["messages"][-1]["content"] if "messages" in request else request["prompt"])
        behave = "poison" if text.startswith("poison") else ""
        request = {**request, "key": text, "behave": behave, "seconds": 0.05}
    _take(self, request_id, request)


Session.submit = _take_text
"""
    + _POISONED_MODEL
)
#: What mlxd did before: a death is counted fully against every job aboard, and suspects are not kept apart.
BLAMING: Final = (
    PLUGIN
    + """

import daemon.handles
import jobs.errors

jobs.errors.RunnerDied.shared = jobs.errors.RunnerDied.innocent = property(lambda self: False)
daemon.handles.Handle._alone = lambda self, wish: False
"""
)


#: Every how many-th job of a mix with them is for a demo model, from which on: every other one of the poison, which are
#: the jobs 50, 150, 250 and so on. A few of them keep two processors as busy as all others do.
_DEMO, _FROM = 40, 30


def poisoned(share: float, *, seconds: tuple[float, float], demo: bool = False) -> Mix:
    """Return a mix in which *share* of the jobs is poison; the others take *seconds* (from, to), on two models.

    With *demo* one in `_DEMO` is for a demo model, which takes as long as it takes.
    """

    def mix(number: int, chance: random.Random) -> Order:
        # Whether it is poison depends on its number alone: how many there are is certain, whichever client takes it.
        bad = share > 0 and number % round(1 / share) == round(1 / share) // 2
        real = demo and number % _DEMO == _FROM
        if real and not bad:
            return demo_order(number, chance)
        key = f"{'poison' if bad else 'job'}-{number}"
        if real:
            return Order(key=key, task="generate", params={"prompt": key}, expect={"state": "quarantined"})
        params: dict[str, Any] = {"key": key, "seconds": round(chance.uniform(*seconds), 3)}
        params |= {"model": chance.choice(_STUBS), "behave": "poison" if bad else ""}
        lane = chance.choice(("interactive", "normal", "normal", "batch"))
        return Order(key=key, params=params, lane=lane, expect={"state": "quarantined" if bad else "succeeded"})

    return mix


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one load."""

    verdict: Verdict
    #: Seconds from the first submission to the last end; of those that are no poison.
    seconds: float
    good: int
    poison: int
    #: Jobs for the demo models, without the poison.
    demo: int
    #: Jobs that are no poison, by the runner deaths counted against them; only those with any.
    blamed: Sequence[int]
    broken: Sequence[str]

    @property
    def rate(self) -> float:
        """Return the good jobs done a second."""
        return self.good / self.seconds if self.seconds else 0.0


class PoisonRun:
    """One home, one load."""

    def __init__(self, folder: Path, *, plugin: str = PLUGIN, limit: int = LIMIT) -> None:
        self.home = TortureHome(folder, config=_CONFIG.format(limit=limit), plugin=plugin)
        self.history = History(folder / "history.jsonl")
        self._broken: list[str] = []

    def run(
        self, mix: Mix, count: int, *, seed: str, patience_s: float, rate: float | None = None, batch: bool = False
    ) -> Result:
        """Submit *count* jobs of *mix*, *rate* a second, and wait until they are through, at most *patience_s*."""
        with self.home.supervisor() as supervisor:
            wait_ready(self.home.socket)
            self._warm()
            load = Load(self.home, self.history, clients=4, rate=rate, seed=seed, mix=mix, limit=count)
            began = time.monotonic()
            load.start()
            load.join(patience_s)
            self._broken += load.complaints
            self._wait(began + patience_s)
            result = self._result(began)
            if batch:
                self._batch()
                self._release()
            if len(supervisor.spawns) != 1:
                self._broken.append("The daemon died.")
        self.history.close()
        return result

    def _wait(self, deadline: float) -> None:
        """Wait until all jobs are through, or one of them goes on and on."""
        while self.home.unfinished():
            most = self.home.query("SELECT max(crashes) FROM jobs")[0][0]
            if time.monotonic() > deadline or most > 2 * LIMIT:
                self._broken.append(f"{self.home.unfinished()} jobs were not through; one has {most} deaths.")
                return
            time.sleep(0.1)

    def _warm(self) -> None:
        stubs = [Order(key=f"warm-{model}", params={"key": f"warm-{model}", "model": model}) for model in _STUBS]
        for order in (*stubs, prompt_order(10**6, random.Random(1)), spoken_order(10**6 + 1)):
            self.history.ack(submit_one(self.home.socket, order), order.key, **order.expect)
        self.home.settle(30.0)

    def _result(self, began: float) -> Result:
        home, log = self.home, stub_log.read(self.home.executions)
        verdict = check(self.history.path, ledger=home.ledger, executions=home.executions, results=home.results)
        rows = home.query("SELECT idempotency_key, state, crashes, error FROM jobs")
        bad = [row for row in rows if row[0].startswith("poison")]
        for key, state, crashes, error in bad:
            self._check_poison(key, state, crashes, json.loads(error or "{}"), log[key])
        blamed = [crashes for key, _, crashes, _ in rows if not key.startswith("poison") and crashes]
        if any(crashes > 1 for crashes in blamed):
            self._broken.append(f"Innocent jobs had up to {max(blamed)} deaths counted against them.")
        return Result(
            verdict=verdict,
            seconds=self._last_end() - began,
            good=len(rows) - len(bad),
            poison=len(bad),
            demo=demo_jobs(self.history.path),
            blamed=blamed,
            broken=self._broken,
        )

    def _last_end(self) -> float:
        """Return when the last innocent job ended, by the monotonic clock."""
        asking = "SELECT max(finished_at) FROM jobs WHERE idempotency_key NOT LIKE 'poison%'"
        return float(self.home.query(asking)[0][0] or 0) / 1e6 - time.time() + time.monotonic()

    def _check_poison(
        self, key: str, state: str, crashes: int, error: dict[str, Any], lines: Sequence[stub_log.Line]
    ) -> None:
        begun = sum(line.what == "begin" for line in lines)
        if (state, crashes) != ("quarantined", LIMIT):
            self._broken.append(f"{key} is {state} after {crashes} deaths, begun {begun} times.")
        elif "SIGABRT" not in error["message"] or "mlxd retry" not in error["message"]:
            self._broken.append(f"{key} does not say why, or how it is released: {error['message']}")

    def _batch(self) -> None:
        """A folder of twenty prompts, two of which kill the runner: eighteen answers, and two reasons."""
        folder = self.home.folder / "prompts"
        folder.mkdir()
        for number in range(20):
            (folder / f"{number:02}.txt").write_text(f"{'poison' if number in (3, 14) else 'prompt'} {number}")
        order = Order(key="folder", task="batch", params={"folder": str(folder), "model": "stub:a"}, lane="batch")
        job = submit_one(self.home.socket, order)
        found = json.loads(ask(self.home.socket, "GET", f"/v1/jobs/{job}/wait?timeout=90", patience=100)[2])
        counts = {name: (found["result"] or {}).get(name) for name in ("succeeded", "failed")}
        if found["state"] != "succeeded" or counts != {"succeeded": 18, "failed": 2}:
            self._broken.append(f"The folder with two poison items is {found['state']}, with {counts}.")

    def _release(self) -> None:
        """What is put aside can be released, as its reason says; poison comes back after as many deaths."""
        job = self.home.query("SELECT id FROM jobs WHERE state = 'quarantined' LIMIT 1")
        if not job:
            return
        status, _, _ = ask(self.home.socket, "POST", f"/v1/jobs/{job[0][0]}/retry")
        self.home.settle(30.0)
        state, crashes = self.home.query("SELECT state, crashes FROM jobs WHERE id = ?", job[0])[0]
        if status >= 300 or (state, crashes) != ("quarantined", LIMIT):
            self._broken.append(f"After its release ({status}) the poison is {state}, with {crashes} deaths.")
