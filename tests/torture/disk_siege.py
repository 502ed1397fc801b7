"""One daemon whose disks fail, and what its clients see of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from torture.checker import Verdict, check
from torture.demo_jobs import prompt_order, spoken_order, sprinkled
from torture.history import History, read
from torture.home import OPEN, TortureHome
from torture.inject import Disk, Fault, Strace, limit_files, mounts_work, until
from torture.load import Load, Order, Refused, ask, mixed, submit_one, wait_ready

#: Seconds within which everything has to go on by itself once the disk is well.
BY_ITSELF_S = 30.0
#: Seconds of patience with a daemon that is not to blame: a slow machine.
_PATIENCE_S = 60.0
_DISK_BYTES = 32 << 20
#: The usual mix, a share of it for the demo model of text: a memo may keep two busy cores for half a minute, and a
#: recovery is only over when nothing waits.
_MIX = sprinkled(mixed, 0.1, prompt_order)
#: What a refusal has to say: what to do, or that nothing need be done.
_ADVICE = re.compile("Free some space|Check the|Close that|Try again|Put it back")
_WAITING = (*OPEN, "blocked")


class Siege:
    """A home in *folder* with small disks of its own where that can be had, its daemon, its history.

    *sabotage* is a plugin that breaks the build; *environ* is added to the daemon's environment.
    """

    def __init__(
        self, folder: Path, *, seed: str, sabotage: str | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._environ = environ
        self._stack = ExitStack()
        self._chance = random.Random(f"{seed}-disk")
        self._names = itertools.count()
        self._sabotage = sabotage
        #: Faults that hit, by name; calls that were made to fail.
        self.faults: dict[str, int] = {}
        self.injected = 0
        #: Seconds from each disk's recovery until all went on.
        self.recoveries: list[float] = []
        self.broken: list[str] = []
        self.refused = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.home = TortureHome(self.folder / "home")
            self.disks: dict[str, Disk] = {}
            if mounts_work():
                places = {"state": self.home.paths.state, "results": self.home.results, "logs": self.home.paths.logs}
                self.disks = {name: stack.enter_context(Disk(path, _DISK_BYTES)) for name, path in places.items()}
            if self._sabotage is not None:
                (self.home.paths.plugins / "sabotage.py").write_text(self._sabotage)
            self.history = History(self.folder / "history.jsonl")
            self.supervisor = stack.enter_context(self.home.supervisor(environ=self._environ))
            wait_ready(self.home.socket, _PATIENCE_S)
            self._warm()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Faults.

    def once(self, fault: Fault) -> int:
        """Let a call of *fault* fail under a few jobs; return how many did, after all went on again.

        strace counts in each thread; it leaves as soon as one call has failed, so that it is not one in each.
        """
        name = f"{fault.calls} {fault.error}"
        load = self._load(4)
        with self._strace(name, fault) as strace:
            until(lambda: strace.injected or not (_busy(load) or self._waiting()), _PATIENCE_S)
        healed = time.monotonic()
        self._finish(load)
        if strace.injected:
            self._hit(name)
            self._recovered(name, healed)
        return strace.injected

    def outage(self, name: str, begin: Callable[[], object], end: Callable[[], object], *, seconds: float) -> None:
        """Submit jobs from *begin* to *end*, *seconds* long, and see how all goes on afterwards."""
        load = self._load(None)
        time.sleep(0.1)
        begin()
        self.history.event("fault", name=name)
        refused = load.refused
        time.sleep(seconds)
        hit = load.refused > refused or self._blocked() or bool(self.health()["problems"])
        if hit:
            self._hit(name)
            self._must_be_told(name)
        end()
        healed = time.monotonic()
        self.history.event("healed", name=name)
        load.stop(BY_ITSELF_S)
        self._take(load)
        if hit:
            self._recovered(name, healed)

    def failing(self, fault: Fault, *, seconds: float) -> None:
        """Let the calls of *fault* fail all the time for *seconds*."""
        name = f"{fault.calls} {fault.error} for {seconds:g} s"
        strace = Strace(self._pid(), fault, log=self._log())
        self.outage(name, strace.__enter__, strace.__exit__, seconds=seconds)
        self.injected += strace.injected

    def unsyncable(self, *, seconds: float) -> int:
        """Submit jobs while nothing can be synced: none may be acknowledged; return how many were.

        Jobs that run then would end their error budget on a disk that is broken for good, so nothing runs.
        """
        name = "fdatasync EIO, all"
        with self._strace(name, Fault(calls="fdatasync", error="EIO")) as strace:
            load = self._load(None)
            time.sleep(seconds)
            acknowledged = load.acknowledged
        healed = time.monotonic()
        load.stop(BY_ITSELF_S)
        self._take(load)
        if strace.injected or acknowledged:
            self._hit(name)
            if acknowledged:
                self.broken.append(f"{acknowledged} jobs were acknowledged while no sync worked")
            self._recovered(name, healed)
        return acknowledged

    def killed_after_refusal(self) -> bool:
        """Kill the daemon right after it refused a job whose sync failed; return whether the job is there all the same.

        It may be: its bytes were written, only not synced. Then the same key has to give this very job.
        """
        key = f"refused-{next(self._names)}"
        order = Order(key=key, params={"key": key}, expect={})
        with self._strace("killed after a refusal", Fault(calls="fdatasync", error="EIO")):
            with contextlib.suppress(Refused, OSError):
                submit_one(self.home.socket, order)
                self.broken.append("A job was acknowledged while no sync worked.")
            self.history.unknown(key)
            lives = len(self.supervisor.spawns)
            self.supervisor.kill()
        killed = time.monotonic()
        self.supervisor.wait_spawn(lives + 1)
        wait_ready(self.home.socket, _PATIENCE_S)
        found = self.home.query("SELECT id FROM jobs WHERE idempotency_key = ?", (key,))
        job_id = submit_one(self.home.socket, order)
        self.history.ack(job_id, key)
        if found and found != [(job_id,)]:
            self.broken.append(f"{key} was refused, came back as {found} and was taken again as {job_id}.")
        self._hit("killed after a refusal")
        self._recovered("killed after a refusal", killed, killed=True)
        return bool(found)

    def killed_when_full(self) -> None:
        """Kill the daemon while the ledger's disk is full: it cannot start, and does so by itself when it can."""
        name = "state: killed while the disk is full"
        self._last_pid = self._pid()
        self.disks["state"].fill()
        lives = len(self.supervisor.spawns)
        self.supervisor.kill()
        self.supervisor.wait_spawn(lives + 2)  # one start, at least, has failed
        self.disks["state"].free()
        healed = time.monotonic()
        wait_ready(self.home.socket, _PATIENCE_S)
        self._hit(name)
        self._recovered(name, healed, killed=True)

    def nearly_fill(self, disk: Disk) -> None:
        """Fill *disk* up to a few pages: what is written then is cut short before it fails."""
        disk.fill(leave=self._chance.randrange(0, 1 << 15))

    def stunt(self) -> None:
        """Let the daemon's files not grow beyond what the ledger's log has now: short writes, then EFBIG."""
        log = self.home.ledger.with_name(f"{self.home.ledger.name}-wal")
        limit_files(self._pid(), log.stat().st_size + self._chance.randrange(1 << 14))

    def unstunt(self) -> None:
        """Let them grow again."""
        limit_files(self._pid(), None)

    def submit(self, count: int) -> None:
        """Submit *count* jobs and wait until each is acknowledged."""
        self._finish(self._load(count))

    # What comes of them.

    def verdict(self) -> Verdict:
        """Hold what was acknowledged against what there is."""
        until(lambda: not self._waiting(), _PATIENCE_S)
        refusals = {line["why"] for line in read(self.history.path) if line["kind"] == "refused"}
        self.broken += [f"a refusal says nothing to do: {why}" for why in refusals if not _ADVICE.search(why)]
        return check(
            self.history.path,
            ledger=self.home.ledger,
            executions=self.home.executions,
            results=self.home.results,
        )

    def health(self) -> dict[str, Any]:
        """Return the health page."""
        return dict(json.loads(ask(self.home.socket, "GET", "/v1/health")[2]))

    def _must_be_told(self, name: str) -> None:
        """The daemon has to say that something is wrong, and what."""
        told: list[str] = []
        if until(lambda: told.extend(self.health()["problems"]) or told, 12.0) is None:
            self.broken.append(f"{name}: the daemon did not say that anything is wrong")
        elif not any(word in " ".join(told) for word in ("disk", "written", "quota")):
            self.broken.append(f"{name}: the reason is not told: {told}")

    def _recovered(self, name: str, healed: float, *, killed: bool = False) -> None:
        """Wait until the daemon is well, nothing waits, and it is still the same process."""
        well = until(lambda: self.health()["status"] == "ok" and not self._waiting(), _PATIENCE_S)
        took = time.monotonic() - healed
        self.recoveries.append(took)
        self.history.event("well", name=name, took=took)
        if well is None or took > BY_ITSELF_S:
            told = self.health()["problems"]
            self.broken.append(f"{name}: not well after {took:.1f} s: {told}, {self._waiting()} jobs wait")
        if not killed and self._pid() != self._last_pid:
            self.broken.append(f"{name}: the daemon ended: {self.supervisor.exits[-1]}")
        self._last_pid = self._pid()

    def _waiting(self) -> int:
        found = self.home.query("SELECT count(*) FROM jobs WHERE state IN (?, ?, ?)", _WAITING)
        return int(found[0][0])

    def _blocked(self) -> bool:
        return bool(self.home.query("SELECT 1 FROM jobs WHERE state = 'blocked' LIMIT 1"))

    # Small change.

    def _warm(self) -> None:
        """Let the daemon have what it has after a while: runners, connections, lazy imports."""
        for order in (prompt_order(0, self._chance), spoken_order(1)):
            self.history.ack(submit_one(self.home.socket, order), order.key, **order.expect)
        self._load(4).join(_PATIENCE_S)
        until(lambda: not self._waiting(), _PATIENCE_S)

    @contextlib.contextmanager
    def _strace(self, name: str, fault: Fault) -> Iterator[Strace]:
        self._last_pid = self._pid()
        self.history.event("fault", name=name)
        with Strace(self._last_pid, fault, log=self._log()) as strace:
            yield strace
        self.history.event("healed", name=name)
        self.injected += strace.injected

    def _log(self) -> Path:
        return self.folder / f"strace-{next(self._names)}.log"

    def _pid(self) -> int:
        found = until(lambda: self.supervisor.pid, _PATIENCE_S)
        assert found is not None, "the daemon is not there"
        assert self.supervisor.pid is not None
        return self.supervisor.pid

    def _hit(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1

    def _load(self, limit: int | None) -> Load:
        self._last_pid = self._pid()
        number = next(self._names)
        load = Load(
            self.home,
            self.history,
            limit=limit,
            rate=None if limit else 40.0,
            seed=number,
            mix=_MIX,
            prefix=f"{number}-",
        )
        load.start()
        return load

    def _finish(self, load: Load) -> None:
        load.join(_PATIENCE_S)
        self._take(load)

    def _take(self, load: Load) -> None:
        self.refused += load.refused
        self.broken += load.complaints


def _busy(load: Load) -> bool:
    return any(thread.is_alive() for thread in load._threads)
