"""Runners that die and hang, one after the other, while jobs on another model go on; and what was seen meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture import stub_log
from torture.demo_jobs import prompt_order
from torture.history import History, read
from torture.home import TortureHome
from torture.launchsim import Supervisor, group
from torture.load import Load, Order, ask, submit_one, wait_ready
from torture.misfortunes import HANGS
from torture.row import percentile
from torture.vitals import Vitals, look

#: Seconds without a sign of life until a runner with work is taken for hung; it tells something every 5 ms.
SILENCE_S = 1.5
#: Seconds beyond that until a hung runner's job has begun anew, on a new runner that has loaded its model.
FOUND_S = 4.0
#: Seconds by which the others' times may grow.
GROWTH_S = 1.0
#: Megabytes by which the daemon may grow.
GROWTH_MB = 20.0
#: The model whose jobs nothing may happen to.
BYSTANDER = "stub:b"
_CONFIG = """\
drain_seconds = 1
[log]
level = "warning"
[runner]
silence_timeout_s = {silence}
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long the others are watched in peace, what befalls the runners, and which victims there are at a time."""

    calm_s: float
    misfortunes: Sequence[str]
    #: Models whose runners are attacked, each by a thread of its own.
    victims: Sequence[str] = ("stub:a",)
    #: What the runner of the demo model for text is sent from outside, one after the other, while it has a job.
    demo: Sequence[signal.Signals] = ()
    silence_s: float = SILENCE_S
    #: How long a job that was hit is waited for, seconds.
    patience_s: float = 30.0
    #: Which percentile of the times is judged.
    share: float = 0.99


@dataclass
class Seen:
    """What came of a siege."""

    broken: list[str] = field(default_factory=list)
    #: Seconds from the begin of the hit attempt to the begin of the next one: of deaths, and of hangs.
    after_death: list[float] = field(default_factory=list)
    after_hang: list[float] = field(default_factory=list)
    #: Turnaround of the bystander's jobs, seconds, before and during.
    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    hits: int = 0
    #: Of them on the demo model.
    demo: int = 0

    def measured(self) -> dict[str, Any]:
        """Return the figures worth keeping."""
        first, last = self.vitals[0], self.vitals[-1]
        return {
            "demo_runners_broken": self.demo,
            "bystander_p99_before_s": round(percentile(self.before, 0.99), 3),
            "bystander_p99_during_s": round(percentile(self.during, 0.99), 3),
            "bystander_jobs": len(self.before) + len(self.during),
            "hang_found_worst_s": round(max(self.after_hang, default=0.0), 3),
            "daemon_rss_growth_mb": round(last.rss_mb - first.rss_mb, 2),
            "daemon_fds": f"{first.fds} -> {last.fds}",
            "daemon_threads": f"{first.threads} -> {last.threads}",
        }


class Siege:
    """One home under one plan."""

    def __init__(self, folder: Path, plan: Plan, *, seed: int, plugin: str) -> None:
        config = _CONFIG.format(silence=plan.silence_s)
        self.home = TortureHome(folder, config=config, plugin=plugin)
        self.history = History(folder / "history.jsonl")
        self.seen = Seen()
        self._plan, self._seed = plan, seed
        self._numbers = itertools.count()
        self._queue = iter(enumerate(plan.misfortunes))
        self._lock = threading.Lock()
        self._hit: list[tuple[str, str]] = []
        self._attack_began = 0.0

    def run(self) -> Seen:
        """Do all of it; afterwards the daemon is stopped."""
        with self.home.supervisor() as supervisor:
            self._supervisor = supervisor
            supervisor.wait_spawn(1)
            wait_ready(self.home.socket)
            pid = supervisor.pid
            self._under_load()
            self._check_life(supervisor, pid)
            supervisor.stop()
            if left := group({one.pid for one in supervisor.exits}):
                self.seen.broken.append(f"{len(left)} runners outlived their daemon.")
        self.history.close()
        self._measure()
        return self.seen

    # -- the attack -------------------------------------------------------------------------------------------------

    def _under_load(self) -> None:
        load = Load(self.home, self.history, clients=2, rate=8.0, seed=f"{self._seed}-bystander", mix=_bystander)
        for model in (BYSTANDER, *self._plan.victims):  # so that their loading is none of the difference
            self._done(self._submit(model, "warm"), time.monotonic() + 30.0)
        if self._plan.demo:
            self._done(self._submit_demo(random.Random(self._seed)), time.monotonic() + 30.0)
        load.start()
        time.sleep(self._plan.calm_s)
        self._attack_began = time.monotonic()
        self._look()
        threads = [threading.Thread(target=self._attack, args=(victim,)) for victim in self._plan.victims]
        threads.append(threading.Thread(target=self._attack_demo))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.stop()
        self.seen.broken += load.complaints
        if not self.seen.broken and not self.home.settle(self._plan.patience_s):
            self.seen.broken.append(f"{self.home.unfinished()} jobs were not done at the end.")
        self._look()

    def _attack(self, victim: str) -> None:
        chance = random.Random(f"{self._seed}-{victim}")
        while (entry := self._next()) is not None:
            number, how = entry
            beside = self._submit(victim, f"{victim}-{number}-beside")
            time.sleep(chance.uniform(0.0, 0.05))
            hit = self._submit(victim, f"{victim}-{number}-{how}", behave=how, until_fence=1)
            self._hit.append((hit[1], how))
            deadline = time.monotonic() + self._plan.patience_s
            for one in (hit, beside):
                if not self._done(one, deadline):
                    self.seen.broken.append(f"{one[1]} was not done within {self._plan.patience_s:g} s after {how}.")

    def _attack_demo(self) -> None:
        """Break the demo model's runner in the middle of real work; each job has to give its known text."""
        chance = random.Random(f"{self._seed}-demo")
        for how in self._plan.demo:
            self._hit_demo(how, chance)

    def _hit_demo(self, how: signal.Signals, chance: random.Random) -> None:
        """Break one; a job that was through before the signal came does not count, and another one is submitted."""
        deadline = time.monotonic() + self._plan.patience_s
        while time.monotonic() < deadline:
            job = self._submit_demo(chance)
            time.sleep(chance.uniform(0.0, 0.1))
            self._send(how)
            if not self._done(job, deadline):
                self.seen.broken.append(f"{job[1]} was not done within {self._plan.patience_s:g} s after {how.name}.")
            if self.home.query("SELECT crashes FROM jobs WHERE id = ?", job[:1])[0][0]:
                self.seen.demo += 1
                return
        self.seen.broken.append(f"The demo model's runner never died at work of {how.name}.")

    def _send(self, how: signal.Signals) -> None:
        """Send *how* to the demo model's runner if it has a job."""
        for model in json.loads(ask(self.home.socket, "GET", "/v1/health")[2])["models"]:
            if model["ref"].startswith("demo:") and model["leases"] and model["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(model["pid"], how)

    def _submit_demo(self, chance: random.Random) -> tuple[str, str]:
        # Text alone: a window of speech may take longer on a slow processor than a runner may be silent here.
        order = prompt_order(next(self._numbers), chance)
        job = submit_one(self.home.socket, order)
        self.history.ack(job, order.key, **order.expect)
        return job, order.key

    def _next(self) -> tuple[int, str] | None:
        with self._lock:
            return next(self._queue, None)

    def _submit(self, model: str, name: str, **params: Any) -> tuple[str, str]:
        key = f"{name}-{next(self._numbers)}"
        order = Order(key=key, params={"key": key, "model": model, "seconds": 0.15, **params})
        job = submit_one(self.home.socket, order)
        self.history.ack(job, key)
        return job, key

    def _done(self, job: tuple[str, str], deadline: float) -> bool:
        """Wait for the job's end."""
        while (left := deadline - time.monotonic()) > 0:
            target = f"/v1/jobs/{job[0]}/wait?timeout={left:.1f}"
            try:
                _, _, body = ask(self.home.socket, "GET", target, patience=left + 5)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)  # the daemon is gone; whether that may be is not the question here
                continue
            return b'"succeeded"' in body
        return False

    # -- what was seen ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        pid = self._supervisor.pid
        if pid is not None:
            self.seen.vitals.append(look(pid))

    def _check_life(self, supervisor: Supervisor, pid: int | None) -> None:
        if len(supervisor.spawns) > 1 or supervisor.pid != pid:
            how = sorted({one.status for one in supervisor.exits})
            self.seen.broken.append(f"The daemon died {len(supervisor.exits)} times, with {how}.")
            return
        first, last, say = self.seen.vitals[0], self.seen.vitals[-1], self.seen.broken.append
        runners = len(self._plan.victims) + 1 + bool(self._plan.demo)
        # One child more may be the spare, which is there from two seconds after a load until the next one.
        if last.zombies or last.children > runners + 1:
            say(f"{last.zombies} zombies and {last.children} children for {runners} models.")
        if last.fds > first.fds + 3 or last.threads > first.threads + 2:
            say(f"Descriptors {first.fds} -> {last.fds}, threads {first.threads} -> {last.threads}.")
        if last.rss_mb > first.rss_mb + GROWTH_MB:
            say(f"The daemon grew from {first.rss_mb:.0f} to {last.rss_mb:.0f} MB.")

    def _measure(self) -> None:
        log, seen = stub_log.read(self.home.executions), self.seen
        seen.hits = len(self._hit) + seen.demo
        for key, how in self._hit:
            self._measure_hit(how, key, log[key])
        for ack in read(self.history.path):
            if ack["kind"] == "ack" and ack["key"].startswith("bystander"):
                self._measure_bystander(ack["at"], log[ack["key"]])
        share = self._plan.share
        if (grown := percentile(seen.during, share) - percentile(seen.before, share)) > GROWTH_S:
            seen.broken.append(f"The other model's jobs took {grown:.2f} s longer ({share:.0%} of them).")
        if (found := percentile(seen.after_hang, share)) > SILENCE_S + FOUND_S:
            seen.broken.append(f"Hangs were found after {found:.2f} s ({share:.0%}), not {SILENCE_S + FOUND_S:g} s.")

    def _measure_bystander(self, asked: float, lines: list[stub_log.Line]) -> None:
        end = stub_log.first(lines, "end")
        if end is not None:
            (self.seen.before if asked < self._attack_began else self.seen.during).append(end - asked)
        if sum(line.what == "begin" for line in lines) > 1:
            self.seen.broken.append(f"{lines[0].key}, a job of the other model, had to be tried again.")

    def _measure_hit(self, how: str, key: str, lines: list[stub_log.Line]) -> None:
        began, again = stub_log.first(lines, "begin"), stub_log.first(lines, "begin", after=1)
        if began is None or again is None:
            self.seen.broken.append(f"{key} was never tried again after {how}.")
            return
        (self.seen.after_hang if how in HANGS else self.seen.after_death).append(again - began)


def _bystander(number: int, _: random.Random) -> Order:
    key = f"bystander-{number}"
    return Order(key=key, params={"key": key, "model": BYSTANDER, "seconds": 0.05})
