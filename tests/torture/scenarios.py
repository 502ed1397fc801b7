"""What has to go on in a home so that every failpoint is reached: jobs of all kinds, files, schedules, stops.

`mix` is what clients submit; `Scenes` does the rest, a little at a time, and more of what is asked for.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from torture.history import History
from torture.home import TortureHome
from torture.launchsim import Supervisor
from torture.load import Order, Refused, ask, submit_one
from torture.stub import STUB

CONFIG = """\
drain_seconds = 6
[log]
level = "warning"
[watch]
rescan_seconds = 2
[runner]
max_crashes = 1000
[queue.workers]
interactive = 2
normal = 4
batch = 2
[[folders]]
path = "in"
create = true
settle_seconds = 0.05
recipe = false
[[folders.rules]]
task = "stub"
match = ["*.txt"]
after = "done"
[[folders.rules]]
name = "bad"
task = "stub"
match = ["*.bad"]
params = { behave = "raise" }
[[folders]]
path = "gone"
create = true
settle_seconds = 0.05
recipe = false
task = "stub"
match = ["*.txt"]
after = "delete"
[[folders]]
path = "kept"
create = true
settle_seconds = 0.05
recipe = false
task = "stub"
match = ["*.txt"]
[[schedules]]
name = "tick"
every = "1s"
task = "tick"
[[notify]]
name = "told"
rules = ["stub"]
command = ["/bin/true"]
"""

#: Lines of the stub, and what is put below them.
_PATCHES = {
    "        for index in range(params.outputs):\n": "            draft(ctx, key, index)\n",
    "    register(Stub())\n": "    register(Tick())\n",
}
_MORE = """

def draft(ctx: Any, key: str, index: int) -> None:
    if key.startswith("draft"):
        ctx.output(f"{ctx.stem or 'stub'}-{index}.txt", f"draft of attempt {ctx.job.fence}")
    if key.startswith("orphan") and ctx.job.fence % 2:
        from jobs.errors import LedgerUnavailable

        raise LedgerUnavailable("The disk is full, says the stub.")


class Nothing(BaseModel):
    pass


class Tick:
    name, summary, params = "tick", "Does next to nothing.", Nothing

    def run(self, ctx: Any, params: BaseModel) -> Mapping[str, Any]:
        return {"text": "tock"}


def use_the_systems_trash() -> None:
    import sys

    if "daemon.parts" in sys.modules:
        from daemon.folders.trash import Trash

        environ = {"HOME": str(HOME)}
        sys.modules["daemon.parts"].make_trash = lambda home: Trash(home.cache / "trash", environ=environ)


def clear_up_all_the_time() -> None:
    import sys

    if "daemon.housekeeping" in sys.modules:
        housekeeping = sys.modules["daemon.housekeeping"].Housekeeping
        plain = housekeeping.look

        def look(self: Any) -> None:
            self._due, self._idle = 0.0, lambda: True
            plain(self)

        housekeeping.look = look


Stub.repeatable = True
use_the_systems_trash()
clear_up_all_the_time()
"""


def _plugin() -> str:
    text = STUB
    for line, below in _PATCHES.items():
        if line not in text:
            raise ValueError(f"The stub has no line {line!r}.")
        text = text.replace(line, line + below)
    return text + _MORE


#: The stub, and more: "draft" jobs write each file twice, "orphan" jobs are told that the ledger cannot be written; it
#: can be repeated, so its jobs leave recipes; a task for schedules that leaves no line in the log of executions, as
#: their jobs have no keys; the system's trash, which is not used where MLXD_HOME is set; and old jobs are looked for
#: whenever somebody is awake, not only once a day while nothing runs.
PLUGIN = _plugin()

_RUNNING = "SELECT id FROM jobs WHERE idempotency_key LIKE 'cancel-%' AND state = 'running'"
_UNDONE = "SELECT count(*) FROM jobs WHERE idempotency_key LIKE ? AND state IN ('queued', 'running', 'blocked')"
#: Failpoint (its beginning) -> the scene that leads there; what is not named comes of the load.
_LEADS = {
    "file.": "file",
    "input.": "file",
    "ledger.plan": "file",
    "ledger.remember": "kept",
    "notice.": "file",
    "input.explained": "bad",
    "trash.": "gone",
    "ledger.stop": "cancel",
    "ledger.cancel": "cancel",
    "ledger.block": "block",
    "ledger.requeue": "block",
    "ledger.desk": "desk",
    "ledger.schedule": "schedule",
    "orphan.": "orphan",
    "drain.": "stop",
    "ledger.release": "stop",
}


def mix(number: int, chance: random.Random, *, folder: Path) -> Order:
    """Return a job of every kind in turn; *folder* is where some put their outputs."""
    key, size = f"job-{number}", chance.choice((64, 300))
    params: dict[str, Any] = {"key": key, "size": size}
    expect: dict[str, Any] = {"size": size}
    lane = chance.choice(("interactive", "normal", "normal", "batch"))
    more: dict[str, Any] = {}
    match number % 9:
        case 0:
            params |= {"steps": 4, "seconds": 0.2}
            lane = "batch"
        case 1 | 2:
            params |= {"model": chance.choice(("stub:a", "stub:b", "stub:c")), "seconds": 0.03}
        case 3:
            params |= {"outputs": 3}
            expect |= {"outputs": 3}
        case 4:
            key = params["key"] = f"draft-{number}"
        case 5:
            params |= {"model": "stub:a"}
            more = {"placement": {"directory": str(folder / f"{key}")}}
        case 6:
            # A model of its own: what is loaded again and again would hold up the others.
            params |= {"model": "stub:d", "behave": "SIGKILL" if number % 27 == 6 else "", "until_fence": 1}
        case 7:
            params |= {"behave": "raise"}
            expect |= {"state": "failed"}
        case _:
            more = {"not_before": (datetime.now(UTC) + timedelta(seconds=chance.uniform(0.1, 0.6))).isoformat()}
    return Order(key=key, params=params, lane=lane, expect=expect, more=more)


class Scenes:
    """Everything that clients and files do beside the load. One thread."""

    def __init__(self, home: TortureHome, history: History, launchd: Supervisor, chance: random.Random) -> None:
        self._home, self._history, self._launchd, self._chance = home, history, launchd, chance
        self._number = 0
        self._next = 0.0
        self._stopped = 0.0
        #: The process that was asked last.
        self._asked_to_stop: int | None = None
        for name in ("in", "gone", "kept"):
            (home.folder / name).mkdir(exist_ok=True)
        #: Failpoint scene -> what does it.
        self._scenes: Mapping[str, Callable[[], object]] = {
            "file": lambda: self._file("in", ".txt"),
            "bad": lambda: self._file("in", ".bad", state="failed"),
            "gone": lambda: self._file("gone", ".txt"),
            "kept": self._kept,
            "cancel": self._cancel,
            "block": self._block,
            "desk": self._desk,
            "schedule": self._schedule,
            "orphan": self._orphan,
        }
        #: Files put into watched folders.
        self.files: list[Path] = []

    def __call__(self, missing: Callable[[], Collection[str]]) -> None:
        """Do something of what leads to the *missing* failpoints, and now and then something else."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 0.1
        wanted = _wanted(missing())
        for name, scene in self._scenes.items():
            if name in wanted or self._chance.random() < 0.02:
                self._number += 1
                scene()
        if now > self._stopped + 1.5:
            self._stop(now, missing)

    def calm(self) -> None:
        """Let no schedule fire any more, and go on with the folder that `_desk` left paused where mlxd died meanwhile.

        Raises:
            OSError, http.client.HTTPException: nobody answered, or with a refusal.

        """
        gone = {"path": str(self._home.folder / "gone")}
        for request in (("/v1/schedules/tick/pause",), ("/v1/folders/resume", gone)):
            status, _, said = ask(self._home.socket, "POST", *request)
            if status != http.client.OK:
                raise ConnectionError(f"POST {request[0]}: {status} {said!r}")

    def untaken(self) -> int:
        """Return how many files have not become jobs."""
        return len(self.files) - self._taken()

    def _stop(self, now: float, missing: Callable[[], Collection[str]]) -> None:
        """Ask the daemon to stop, once in its life as launchd does: a second time it would give up its start.

        What is missing is asked after which daemon lives, not before: the last one may have died of it meanwhile, and
        the next one, stopped in vain, would stay away until a client comes.
        """
        pid = self._launchd.pid
        if pid not in (None, self._asked_to_stop) and "stop" in _wanted(missing()):
            self._stopped, self._asked_to_stop = now, pid
            self._launchd.kill(signal.SIGTERM)

    def _file(self, folder: str, ending: str, **expect: Any) -> None:
        """Put a file into a watched folder; not more than a few while nobody takes them."""
        if len(self.files) > 40 + self._taken():
            return
        path = self._home.folder / folder / f"file-{self._number}{ending}"
        content = f"{path.name} {self._chance.random()}".encode()
        path.write_bytes(content)
        self._history.file(path, hashlib.sha256(content).hexdigest(), **expect)
        self.files.append(path)

    def _kept(self) -> None:
        """Put a file where it stays, and give an earlier one a new date: it is known by what is in it."""
        if earlier := [path for path in self.files if path.parent.name == "kept"]:
            os.utime(self._chance.choice(earlier))
        self._file("kept", ".txt")

    def _taken(self) -> int:
        found = self._ask("SELECT count(*) FROM jobs WHERE source_kind = 'folder'")
        return int(found[0][0]) if found else 0

    def _cancel(self) -> None:
        """Take back a job that runs, and submit another long one."""
        for (job,) in self._ask(_RUNNING):
            self._post(f"/v1/jobs/{job}/cancel")
        if self._few("cancel-%"):
            # First in its lane: what waits there for a free worker would keep four failpoints waiting too.
            order = self._order("cancel", "interactive", seconds=2.0, state=["cancelled", "succeeded"])
            self._submit(replace(order, more={"priority": 10}))

    def _block(self) -> None:
        """Let a job whose model is not there try again in vain, and submit another."""
        for (job,) in self._ask("SELECT id FROM jobs WHERE state = 'blocked' LIMIT 1"):
            self._post(f"/v1/jobs/{job}/retry")
        if self._few("block-%"):
            self._submit(self._order("block", model=str(self._home.folder / "no-such-model"), state=["blocked"]))

    def _desk(self) -> None:
        """Pause a watched folder and go on with it."""
        for what in ("pause", "resume"):
            self._post(f"/v1/folders/{what}", {"path": str(self._home.folder / "gone")})

    def _schedule(self) -> None:
        """Add a schedule, run it by hand, remove it."""
        name = f"added-{self._number}"
        self._post("/v1/schedules", {"name": name, "task": "tick", "every": "1h"})
        self._post(f"/v1/schedules/{name}/run")

    def _orphan(self) -> None:
        """Submit a job whose last write fails, so that the daemon has to notice by itself that nobody runs it."""
        if self._few("orphan-%"):
            self._submit(self._order("orphan", "interactive"))

    # -- small change -----------------------------------------------------------------------------------------------

    def _order(self, name: str, lane: str = "normal", *, state: Any = "succeeded", **params: Any) -> Order:
        key = f"{name}-{self._number}"
        return Order(key=key, params={"key": key, **params}, lane=lane, expect={"state": state})

    def _few(self, keys: str) -> bool:
        """Tell whether only a few jobs like these are not done."""
        found = self._ask(_UNDONE, (keys,))
        return not found or found[0][0] < 3

    def _submit(self, order: Order) -> str | None:
        """Submit until it is acknowledged: a key that may have been taken must be known by its job."""
        for _ in range(200):
            try:
                job = submit_one(self._home.socket, order, patience=5.0)
            except (Refused, OSError, http.client.HTTPException, ValueError):
                self._history.unknown(order.key)
                time.sleep(0.02)
            else:
                self._history.ack(job, order.key, **order.expect)
                return job
        return None

    def _post(self, target: str, body: Any = None) -> bool:
        try:
            return ask(self._home.socket, "POST", target, body, patience=5.0)[0] < 300
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Ask the ledger; nothing is there as long as there are no tables."""
        try:
            return self._home.query(sql, parameters)
        except sqlite3.OperationalError:
            return []


def _wanted(missing: Collection[str]) -> set[str]:
    """Return the scenes that lead to the *missing* failpoints."""
    return {scene for name in missing for start, scene in _LEADS.items() if name.startswith(start)}


def strange(home: TortureHome, history: list[Mapping[str, Any]]) -> list[str]:
    """Return what no checker of jobs sees: inputs, schedules' times and notices, each exactly once."""
    return [*_inputs(home, history), *_fires(home), *_notices(home)]


def _inputs(home: TortureHome, history: list[Mapping[str, Any]]) -> list[str]:
    """Every input is where it should be, once, with the content that was put there."""
    places = {
        ".txt in in": home.folder / "in" / "done",
        ".txt in gone": home.folder / ".local" / "share" / "Trash" / "files",
        ".bad in in": home.folder / "in",
        ".txt in kept": home.folder / "kept",
    }
    found = []
    for line in history:
        if line["kind"] == "file":
            path = Path(line["path"])
            place = places[f"{path.suffix} in {path.parent.name}"]
            # A name is numbered only if it was taken.
            copies = [path, place / path.name, *place.glob(f"{path.stem} (*){path.suffix}")]
            copies = [one for one in dict.fromkeys(copies) if one.is_file()]
            hashes = [hashlib.sha256(one.read_bytes()).hexdigest() for one in copies]
            where = [one.parent.name for one in copies]
            if hashes != [line["sha256"]] or where != [place.name]:
                found.append(f"the input {path} should be in {place}, and is in {where or 'no place'}")
    return found


def _fires(home: TortureHome) -> list[str]:
    asking = "SELECT job_id FROM fires WHERE job_id IS NOT NULL"
    fired = [job for (job,) in home.query(asking)]
    made = {str(job): state for job, state in home.query("SELECT id, state FROM jobs WHERE source_kind = 'schedule'")}
    found = [] if sorted(fired) == sorted(made) else [f"{len(fired)} times of schedules fired, {len(made)} jobs came"]
    return found + [f"the schedule's job {job} is {state}" for job, state in made.items() if state != "succeeded"]


def _notices(home: TortureHome) -> list[str]:
    """Each success of a folder's rule is told by one delivery."""
    rows = home.query(
        "SELECT id, (SELECT count(*) FROM jobs AS told WHERE told.parent = jobs.id AND told.task = 'deliver') "
        "FROM jobs WHERE source_kind = 'folder' AND source_rule = 'stub' AND state = 'succeeded'"
    )
    return [f"the end of {job} was told by {count} deliveries" for job, count in rows if count != 1]
