"""Builds of mlxd that break a promise: code for the home's plugin, which the daemon runs before it recovers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Build:
    """One broken program."""

    name: str
    #: Added to the plugin.
    code: str
    #: The failpoints that show it.
    names: tuple[str, ...]
    #: How it is told: "stuck" (running with nobody who runs it), or members of `torture.checker.Verdict`.
    caught_as: tuple[str, ...]


_NO_RECOVERY = """

import jobs.ledger
jobs.ledger.Ledger.recover = lambda self, owner: []
"""

_EARLY_ANSWER = """

import threading
import daemon.dispatcher, jobs.accepting, jobs.ledger, jobs.rows
from jobs.model import Job

_add, _put = jobs.ledger.Ledger.add, daemon.dispatcher.Dispatcher.put
promised = {}

def add(self, new, *, limit=None, seen=None):
    job_id = self._new_id()
    row = jobs.rows.new_row(new, job_id=job_id, now=self.now())
    promised[id(new)] = job_id
    threading.Timer(0.1, _add, (self, new), {"limit": limit, "seen": seen}).start()
    names = set(Job.model_fields) & set(row)
    return Job.model_validate({"seq": 0, **{name: row[name] for name in names}, "source": new.source}), True

def insert(self, connection, new):
    job_id = promised.pop(id(new), None)
    return jobs.accepting.insert_job(connection, new, new_id=lambda: job_id or self._new_id(), now=self.now())

jobs.ledger.Ledger.insert = insert
jobs.ledger.Ledger.add = add
jobs.ledger.Ledger.add_all = lambda self, news, *, limit=None: [self.add(new, limit=limit) for new in news]
daemon.dispatcher.Dispatcher.put = lambda self, job: threading.Timer(0.2, _put, (self, job)).start()
"""

_NO_INTENT = """

import jobs.ledger
jobs.ledger.Ledger.intend = lambda self, job_id, fence, output: None
"""

BUILDS = {
    "c0": Build(
        name="no recovery at the start",
        code=_NO_RECOVERY,
        names=("job.claimed", "ledger.finish.commit"),
        caught_as=("stuck",),
    ),
    "c1": Build(
        name="an answer before the commit",
        code=_EARLY_ANSWER,
        names=("ledger.add.commit", "ledger.finish.committed"),
        caught_as=("lost",),
    ),
    "c2": Build(
        name="no intent noted before a file gets its name",
        code=_NO_INTENT,
        names=("output.named", "job.done"),
        caught_as=("doubled",),
    ),
}
