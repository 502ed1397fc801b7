"""Builds that deal wrongly with a failing disk: plugins that break the daemon they are loaded into."""

from __future__ import annotations

_HOOK = '''
import pluggy

@pluggy.HookimplMarker("mlxd")
def mlxd_job_finished(job):
    """A plugin has to have a hook."""
'''

#: An acknowledgement does not wait for the disk, so its errors are never heard of.
UNSYNCED = """
from jobs.database import Database

writer = Database._writer

def unsynced(self, *, durable):
    connection = writer(self, durable=durable)
    connection.exec_driver_sql("PRAGMA synchronous = OFF")
    connection.commit()
    return connection

Database._writer = unsynced
"""

#: What the ledger refused is acknowledged all the same.
BRAVE = """
from datetime import UTC, datetime
from daemon.service import Service
from jobs.errors import LedgerUnavailable
from jobs.model import Job, new_job_id

submit, submit_all = Service.submit, Service.submit_all

def invented(new):
    return Job(**new.model_dump(), id=new_job_id(), seq=1, created_at=datetime.now(UTC)), True

def brave(self, new, *, seen=None):
    try:
        return submit(self, new, seen=seen)
    except LedgerUnavailable:
        return invented(new)

def all_brave(self, news):
    told = submit_all(self, news)
    return [invented(new) if isinstance(one, LedgerUnavailable) else one for new, one in zip(news, told, strict=True)]

Service.submit, Service.submit_all = brave, all_brave
"""

#: A problem that came up stays, though writing works again.
GLOOMY = """
import contextlib
from jobs.database import Database
from jobs.errors import LedgerUnavailable

@contextlib.contextmanager
def remembered(self):
    try:
        yield
    except LedgerUnavailable as error:
        self.problem = error.message
        raise

Database._remembered = remembered
"""

#: Results without a place fail their jobs, as a wrong request does.
HARSH = """
from jobs import files

files._PASSING = frozenset()
"""


def plugin(*sabotage: str) -> str:
    """Return a single-file plugin that does all of *sabotage*."""
    return "\n".join((_HOOK, *sabotage))
