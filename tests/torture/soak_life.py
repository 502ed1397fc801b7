"""A daemon in mixed use for a while, and what of it grew meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from torture.checker import check
from torture.demo_jobs import demo_order
from torture.history import History
from torture.home import MODELS, TortureHome
from torture.killing import FileDropper
from torture.load import Load, Mix, Order, mixed, wait_ready
from torture.row import Say, percentile
from torture.soak_guests import Guests
from torture.stub import STUB
from torture.vitals import Vitals, look, slope

#: What the stub models really take, megabytes: two of them fit the budget, three do not.
BALLAST_MB = {"stub:a": 120, "stub:b": 160, "stub:c": 200, "stub:d": 240}
#: Bytes at which the log is put aside, and how many of these are kept.
LOG_BYTES, LOG_KEEP = 200_000, 2
_CONFIG = f"""\
drain_seconds = 10
[memory]
budget = "600MB"
[defaults]
keep_alive = "20s"
[log]
level = "info"
max_bytes = {LOG_BYTES}
keep = {LOG_KEEP}
[watch]
rescan_seconds = 5
[[folders]]
path = "in"
create = true
settle_seconds = 0.1
task = "stub"
match = ["*.txt"]
[[schedules]]
name = "often"
every = "2s"
task = "stub"
params = {{ key = "often" }}
"""
_MODEL = '[models."{ref}"]\npath = "{path}"\nruntime = "stub"\noptions = {{ bytes = {bytes}, ballast = {bytes} }}\n'
#: The stub, whose models take the memory that they say they need.
PLUGIN: Final = (
    STUB
    + """

_load = StubRuntime.load


def _load_heavy(self, model, options):
    session = _load(self, model, options)
    session.ballast = b"1" * int(options.get("ballast", 0))
    return session


StubRuntime.load = _load_heavy
"""
)
#: A task that keeps a descriptor and 50 kB of every job: in the daemon, where tasks run.
LEAKING: Final = (
    PLUGIN
    + """

_KEPT = []
_run = Stub.run


def _leaky(self, ctx, params):
    _KEPT.append((os.open("/dev/null", os.O_RDONLY), b"1" * 50_000))
    return _run(self, ctx, params)


Stub.run = _leaky
"""
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may grow. The slopes are those of a line through everything after the warm-up."""

    rss_kb_per_job: float
    #: Over the whole time after the warm-up.
    fds: float = 8.0
    threads: float = 8.0
    ledger_bytes_per_job: float = 6_000.0
    wal_mb: float = 16.0
    health_p99_s: float = 1.0


@dataclass(kw_only=True)
class Soaked:
    """What was seen."""

    measured: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    promised: int = 0


def _mix(demo_share: float, turn: int) -> Mix:
    def mix(number: int, chance: random.Random) -> Order:
        if chance.random() < demo_share:
            return demo_order(number, chance)
        # By turns, so that models are swapped now and then, and not for each job.
        return mixed(number, chance, model=MODELS[number // turn % len(MODELS)])

    return mix


class Soak:
    """One home, used for *seconds*, of which the first *warm_s* do not count; a model's turn lasts *turn* jobs."""

    def __init__(
        self, folder: Path, *, seed: int, seconds: float, warm_s: float, turn: int = 25, plugin: str = PLUGIN
    ) -> None:
        models = [
            _MODEL.format(ref=ref, path=folder / "models" / ref.replace(":", "-"), bytes=size * 1_000_000)
            for ref, size in BALLAST_MB.items()
        ]
        self.home = TortureHome(folder, config=_CONFIG + "".join(models), plugin=plugin)
        self.history = History(folder / "history.jsonl")
        self._seed, self._seconds, self._warm_s = seed, seconds, warm_s
        self._turn = turn
        self._vitals: list[tuple[int, Vitals]] = []
        self._wal_mb = 0.0

    def run(self, limits: Limits, *, demo_share: float, say: Say) -> Soaked:
        """Use it, let it come to rest, stop it, and hold what grew against *limits*."""
        soaked = Soaked()
        with self.home.supervisor() as supervisor:
            wait_ready(self.home.socket)
            guests = self._use(supervisor.pid or 0, demo_share, soaked, say)
            if not self.home.settle(120.0):
                soaked.broken.append(f"{self.home.unfinished()} jobs were not done two minutes after the end.")
            if len(supervisor.spawns) > 1:
                soaked.broken.append(f"The daemon died, with {[one.status for one in supervisor.exits]}.")
            self._measure(soaked, guests)
            supervisor.stop()
        self.history.close()
        self._judge(soaked, limits)
        self._check(soaked)
        return soaked

    def _use(self, pid: int, demo_share: float, soaked: Soaked, say: Say) -> Guests:
        guests = Guests(self.home, self.history, seed=self._seed)
        files = FileDropper(self.home, self.history, rate=1.5, seed=f"{self._seed}-soak")
        mix = _mix(demo_share, self._turn)
        load = Load(self.home, self.history, clients=2, rate=10.0, seed=f"{self._seed}-soak", mix=mix)
        everybody = [load, files, *guests.everybody]
        for one in everybody:
            one.start()
        self._watch(pid, say)
        for one in everybody:
            one.stop()
        if not files.settle(self.home, 60.0):
            soaked.broken.append("Not every file became a job.")
        soaked.broken += load.complaints
        soaked.broken += [text for guest in guests.everybody for text in guest.complaints[:5]]
        soaked.measured |= {guest.name: guest.visits for guest in guests.everybody}
        return guests

    def _watch(self, pid: int, say: Say) -> None:
        began, pause = time.monotonic(), threading.Event()
        said = began
        while time.monotonic() - began < self._seconds:
            pause.wait(min(5.0, self._seconds / 60))
            try:
                vitals = look(pid)
            except psutil.NoSuchProcess:
                return
            self._wal_mb = max(self._wal_mb, _size(self.home.ledger.with_name(self.home.ledger.name + "-wal")) / 1e6)
            if time.monotonic() - began > self._warm_s:
                self._vitals.append((self._jobs(), vitals))
            if time.monotonic() - said > 60.0:
                said = time.monotonic()
                say(f"{self._jobs()} jobs, {vitals.rss_mb:.0f} MB, {vitals.fds} descriptors")

    def _jobs(self) -> int:
        return int(self.home.query("SELECT count(*) FROM jobs")[0][0])

    def _measure(self, soaked: Soaked, guests: Guests) -> None:
        jobs, vitals = [jobs for jobs, _ in self._vitals], [vitals for _, vitals in self._vitals]
        hours = (vitals[-1].at - vitals[0].at) / 3600
        rss = slope([(one.at / 3600, one.rss_mb) for one in vitals])
        done = max(1, jobs[-1] - jobs[0])
        soaked.measured |= {
            "minutes": round(self._seconds / 60, 1),
            "jobs": self._jobs(),
            "model_loads": sum(line.startswith("load ") for line in _lines(self.home.executions)),
            "rss_first_mb": round(vitals[0].rss_mb, 1),
            "rss_last_mb": round(vitals[-1].rss_mb, 1),
            "rss_slope_mb_per_h": round(rss, 1),
            "rss_kb_per_job": round(rss * hours * 1024 / done, 2),
            "fds_growth": round(_growth(vitals, "fds", hours), 1),
            "threads_growth": round(_growth(vitals, "threads", hours), 1),
            "children_most": max(one.children for one in vitals),
            "ledger_bytes_per_job": round(_size(self.home.ledger) / max(1, self._jobs())),
            "wal_most_mb": round(self._wal_mb, 2),
            "log_bytes": sum(_size(path) for path in self.home.paths.logs.glob("mlxd.log*")),
            "health_p99_s": round(percentile(guests.health, 0.99), 3),
        }

    def _judge(self, soaked: Soaked, limits: Limits) -> None:
        seen = soaked.measured
        bounds = {
            "rss_kb_per_job": limits.rss_kb_per_job,
            "fds_growth": limits.fds,
            "threads_growth": limits.threads,
            "ledger_bytes_per_job": limits.ledger_bytes_per_job,
            "wal_most_mb": limits.wal_mb,
            "log_bytes": LOG_BYTES * (LOG_KEEP + 1) * 1.1,
            "health_p99_s": limits.health_p99_s,
            "children_most": len(MODELS) + 3,
        }
        for name, most in bounds.items():
            if not seen[name] <= most:
                soaked.broken.append(f"{name} is {seen[name]:,}; at most {most:,} is allowed.")
        if seen["model_loads"] <= len(MODELS):
            soaked.broken.append("No model was ever swapped: the budget is too large for this to be a test.")

    def _check(self, soaked: Soaked) -> None:
        home = self.home
        # Jobs of the schedule are nobody's order.
        verdict = check(self.history.path, ledger=home.ledger, executions=None, results=home.results, whole=False)
        soaked.lost, soaked.doubled, soaked.promised = verdict.lost, verdict.doubled, verdict.promised
        soaked.broken += verdict.sentences


def _growth(vitals: Sequence[Vitals], name: str, hours: float) -> float:
    return slope([(one.at / 3600, getattr(one, name)) for one in vitals]) * hours


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
