"""What follows a job's end: the watched input is settled, plugins hear of it, jobs that waited for it go on.

All of it happens after the commit, so all of it may be lost with the power; `catch_up` does at the next start what
matters to people: an input that should have been moved away is moved away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from daemon.folders.identity import FileChanged, content_digest
from daemon.folders.taken import look
from daemon.folders.trash import Trash
from jobs.errors import InputChanged, LedgerUnavailable, MlxdError
from jobs.journal import Journal
from jobs.ledger import Ledger, utcnow
from jobs.model import After, Job, State
from jobs.outputs import clear_error_sidecar, settle_input, write_error_sidecar
from plugins.manager import PluginManager

log = logging.getLogger(__name__)

#: Name of the built-in task that fetches models.
PULL: Final = "pull"
#: How many finished jobs are looked at after a start.
_LOOK_BACK: Final = 1000
_TROUBLE: Final = frozenset({State.FAILED, State.QUARANTINED, State.BLOCKED})


class Aftermath:
    """Called with every job that left the running state, on its worker's thread.

    *unblock* wakes blocked jobs; *notify* tells whoever wants to know that the job has ended, or stopped for good;
    *anew* has a watched file looked at as if it had never been seen, for its job has stepped aside.
    *journal* is told where an input goes before it goes there; *trash* is where deleted ones go.
    """

    def __init__(
        self,
        *,
        plugins: PluginManager,
        unblock: Callable[[], object],
        journal: Journal,
        trash: Trash,
        notify: Callable[[Job], object] = lambda _job: None,
        anew: Callable[[Path], object] = lambda _path: None,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._journal = journal
        self._trash = trash
        self._clock = clock
        self._plugins = plugins
        self._unblock = unblock
        self._notify = notify
        self._anew = anew

    def __call__(self, job: Job) -> None:
        """Do what follows; nothing here can fail the job any more.

        Raises:
            LedgerUnavailable: not all was done. Doing it again does only what is missing.

        """
        if job.placement.input is not None:
            self._settle(job, job.placement.input)
        if job.terminal or job.state is State.QUARANTINED:
            self._notify(job)
        if job.task == PULL and job.state is State.SUCCEEDED:
            self._unblock()
        if job.terminal:  # last, because it is not asked twice
            self._plugins.job_finished(job)

    def catch_up(self, ledger: Ledger) -> int:
        """Settle inputs whose jobs finished just before the daemon died; return how many."""
        ended = ledger.find(states=(State.SUCCEEDED,), source="folder", limit=_LOOK_BACK)
        late = [job for job in ended if _late(job) and self._journal.reverted(job.id) is None]
        for job in late:
            self(job)
        return len(late)

    def _settle(self, job: Job, path: Path) -> None:
        try:
            if job.state is State.SUCCEEDED:
                clear_error_sidecar(path, root=job.placement.root)
                if job.placement.after is not After.LEAVE:
                    self._put_away(job, path)
            elif job.state in _TROUBLE and job.source.rule is not None and path.exists():
                # Without a rule nobody looks there: whoever submitted it has the job to look at.
                write_error_sidecar(path, _explanation(job), root=job.placement.root)
            elif job.state is State.CANCELLED and job.error is not None and job.error.type == InputChanged.slug:
                # What lies there may have been taken for this job's: when it went back to what it was, for one.
                self._anew(path)
        except LedgerUnavailable:
            raise
        except (MlxdError, OSError) as error:
            log.warning(
                "The input could not be settled: %s", error, extra={"action": "settle_failed", **job.log_context}
            )

    def _put_away(self, job: Job, path: Path) -> None:
        """Move or delete the input so that it can come back; a file that was changed meanwhile is another one."""
        keys = [key for _, key in self._journal.keys(job.id)]
        try:
            lying = look(path, keys, root=job.placement.root)
            if not lying.taken:
                told = {"action": "input_changed", **job.log_context}
                log.info("The input was changed meanwhile; it stays.", extra=told)
                return
            digest = lying.digest or content_digest(path, lying.facts, root=job.placement.root)
        except (FileNotFoundError, FileChanged):
            return

        def plan(target: Path) -> None:
            self._journal.plan(job.id, path, target, digest, now=self._clock())

        root = job.placement.root
        settle_input(
            path,
            job.placement.after,
            root=root,
            plan=plan,
            discard=lambda path: self._trash.put(path, plan, root=root),
        )


def _late(job: Job) -> bool:
    """Tell whether the input should have gone, but is still there untouched; a younger file is another one."""
    path = job.placement.input
    if path is None or job.placement.after is After.LEAVE or job.started_at is None:
        return False
    try:
        return path.lstat().st_mtime < job.started_at.timestamp()
    except OSError:
        return False


def _explanation(job: Job) -> str:
    """Return what the sidecar beside a failed input says."""
    error = job.error
    lines = [
        f"mlxd could not do the task {job.task!r} with this file.",
        "",
        error.message if error else "The reason is not known.",
        "",
        f"Job {job.id}, {job.state.value}, {job.failures or job.attempts} attempt(s).",
        f"Details: mlxd show {job.id}",
        f"Try again: mlxd retry {job.id}",
    ]
    return "\n".join(lines) + "\n"
