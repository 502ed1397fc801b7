"""The whole daemon under the launch agent, killed while files come into its watched folder; in real time."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from torture.demo_jobs import SAMPLES, known_words
from torture.home import TortureHome
from torture.launchsim import Supervisor
from torture.load import wait_ready
from torture.watch_lives import HOLD, RESCAN, Script
from torture.watch_verdict import Taken

_CONFIG = """
[watch]
rescan_seconds = {rescan}

[[folders]]
path = {root}
task = "stub"
settle_seconds = {hold}
output = {made}

[[folders]]
path = {prompts}
create = true
task = "generate"
settle_seconds = {hold}
output = {answers}
"""
#: Jobs made of files: params, result, state, what ended them, wall-clock times; and the key by which the file is known.
_JOBS = """
SELECT jobs.params, jobs.result, jobs.state, json_extract(jobs.error, '$.type'),
    jobs.created_at, jobs.started_at, jobs.finished_at, seen.key FROM jobs
JOIN seen ON seen.job_id = jobs.id AND seen.key LIKE 'content:%' WHERE jobs.task = 'stub' ORDER BY jobs.seq
"""


class KilledDaemon:
    """A daemon whose watched folder fills while it is killed, again and again."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.script = Script(folder / "w", chance)
        self._chance = chance
        #: A second watched folder, for a demo model: prompts whose answers are known.
        self.prompts, self.answers = folder / "prompts", folder / "answers"
        for place in (self.prompts, self.answers):
            place.mkdir(parents=True)
        self._samples = sorted((SAMPLES / "prompts").iterdir())
        places = {"root": self.script.disk.root, "made": folder / "made", "prompts": self.prompts}
        quoted = {name: json.dumps(str(path)) for name, path in (places | {"answers": self.answers}).items()}
        self.home = TortureHome(folder / "h", config=_CONFIG.format(hold=HOLD, rescan=RESCAN, **quoted))
        #: Seconds from each kill until the next life of the daemon took a file.
        self.recoveries: list[float] = []
        self.kills: list[float] = []
        self.broken: list[str] = []

    def run(self, kills: int) -> None:
        """Kill the daemon *kills* times, let the rest settle, and stop it."""
        with self.home.supervisor() as supervisor:
            for number in range(kills):
                supervisor.wait_spawn(number + 1)
                self._life(supervisor)
            while self.script.go():
                time.sleep(0.02)
            self._calm()
            if not self.home.settle(60):
                self.broken.append(f"{self.home.unfinished()} jobs of files are not done after a minute")

    def taken(self) -> list[Taken]:
        """Return what became jobs, and what these have read."""
        found = []
        for params, result, state, error, created, started, finished, key in self.home.query(_JOBS):
            digest = str(key).split(":")[1]
            path = str(json.loads(params)["file"])
            read = json.loads(result)["key"] if state == "succeeded" else digest
            # Its content was no longer there; whether that is true, the verdict asks of who wrote the files.
            unread = (state, error) == ("cancelled", "input-changed")
            if state != "succeeded" and not unread and Path(path).exists():
                self.broken.append(f"the job of {path!r} is {state} though the file is there")
            aside = (_monotonic(started), _monotonic(finished)) if unread else None
            found.append(Taken(path, digest, read, _monotonic(created), aside))
        return found

    def demo(self) -> int:
        """Return how many of the prompts were answered once, and rightly; what is wrong with the others is told."""
        asking = "SELECT source_detail, state, json_extract(result, '$.text') FROM jobs WHERE task = 'generate'"
        answered = sorted(self.home.query(asking))
        wanted = sorted(
            (str(path), "succeeded", known_words(path.stem).split())
            for path in self.prompts.iterdir()
            if path.is_file()
        )
        if [(*row[:2], str(row[2]).split()) for row in answered] != wanted:
            self.broken.append(f"{len(wanted)} prompts became {[row[:2] for row in answered]}, or other answers")
        if len(files := list(self.answers.glob("*.txt"))) != len(wanted):
            self.broken.append(f"{len(wanted)} prompts have {len(files)} files of answers")
        return len(wanted)

    def _life(self, supervisor: Supervisor) -> None:
        self.script.begin(4)
        if self._samples:
            shutil.copy(self._samples.pop(), self.prompts)
        if self._chance.random() < 0.7:  # otherwise it may die while it starts
            wait_ready(self.home.socket, timeout=60.0)
        until = time.monotonic() + self._chance.uniform(0.2, 3.5 * HOLD)
        while time.monotonic() < until:
            self.script.go()
            time.sleep(0.02)
        self.kills.append(time.monotonic())
        supervisor.kill()

    def _calm(self) -> None:
        """Return when no job has come for as long as one may take; whoever is later is lost."""
        wait_ready(self.home.socket, timeout=60.0)
        count, since = -1, time.monotonic()
        while time.monotonic() < since + HOLD + RESCAN + 2.0:
            if (now := len(self.home.query(_JOBS))) != count:
                count, since = now, time.monotonic()
            time.sleep(0.1)


def recoveries(kills: Sequence[float], taken: Sequence[Taken]) -> list[float]:
    """Return the seconds from each of *kills* until a file was taken again, where one came before the next kill."""
    found = []
    for kill, after in zip(kills, [*kills[1:], float("inf")], strict=True):
        if times := [one.at - kill for one in taken if kill < one.at < after]:
            found.append(min(times))
    return found


def _monotonic(created: int) -> float:
    """Return the ledger's time, microseconds since 1970, by this machine's other clock."""
    return created / 1e6 - time.time() + time.monotonic()
