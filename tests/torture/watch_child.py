"""``python -m torture.watch_child``: a watcher on a ledger in a process of its own, to be killed and to be measured."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from daemon.config.folders import FolderConfig
from daemon.folders.file_events import make_observer
from daemon.folders.intake import Intake
from daemon.folders.watcher import Watcher
from jobs.accepting import SeenFile
from jobs.ledger import Ledger
from jobs.model import Job, NewJob


class Durable:
    """The ledger as intake sees it. What the watcher read, and what the job would read, is kept with the job."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.seen, self.remember = ledger.seen, ledger.remember
        self.get, self.is_output = ledger.get, ledger.is_output

    def submit(self, new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        """Write the job down together with what the watcher has seen."""
        read = hashlib.sha256(Path(new.params["file"]).read_bytes()).hexdigest()
        noted = {"key": seen[1] if seen else "", "read": read, "at": time.monotonic()}
        return self._add(new.model_copy(update={"params": {**new.params, **noted}}), seen)

    def _add(self, new: NewJob, seen: SeenFile | None) -> tuple[Job, bool]:
        return self._ledger.add(new, limit=None, seen=seen)


class Forgetful(Durable):
    """The control: the jobs are durable, but what was seen is a set in memory, as in paperless-ngx."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._seen: dict[tuple[Path, str], str] = {}
        self.seen = lambda folder, key: self._seen.get((folder, key))
        self.remember = lambda folder, key, job_id: self._seen.update({(folder, key): job_id})

    def _add(self, new: NewJob, seen: SeenFile | None) -> tuple[Job, bool]:
        job, created = self._ledger.add(new, limit=None)
        folder, *keys = seen or (Path(),)
        self._seen |= {(folder, key): job.id for key in keys}
        return job, created


def main(asked: dict[str, Any]) -> None:
    """Watch until standard input ends, or until killed."""
    ledger = Ledger(Path(asked["ledger"]))
    memory = (Durable if asked["durable"] else Forgetful)(ledger)
    folder = FolderConfig(path=Path(asked["root"]), task="stub", settle_seconds=asked["hold"])
    watcher = Watcher(
        intake=Intake(submit=memory.submit, ledger=memory),
        observer_factory=make_observer,
        rescan_seconds=asked["rescan"],
    )
    watcher.start([folder])
    watcher.rescan()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    watcher.stop()
    ledger.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
