"""Takes a job back: its input returns to where it was, its outputs go to the trash; what has changed since stays.

1. That the job is taken back is written down first: nothing settles its input again, and no scan takes it again.
2. The input returns by the journal, if it still has the content that was moved and its old name is free.
3. Only when the input is back where it was do the outputs go; each only if it still is what the job wrote.

Every step may be repeated: what is done already is found done.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from daemon.folders.identity import Facts, place_key
from daemon.folders.trash import Trash
from daemon.views import RevertedFile, RevertReport
from jobs.errors import JobConflict, JobNotFound, OutputError
from jobs.inputs import clear_error_sidecar
from jobs.journal import Journal, Move
from jobs.ledger import Ledger
from jobs.model import Job


class Reverting:
    """Used on the service's threads; two at once for one job do no harm."""

    def __init__(self, *, ledger: Ledger, journal: Journal, trash: Trash, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._journal = journal
        self._trash = trash
        self._clock = clock

    def __call__(self, job_id: str) -> RevertReport:
        """Take the job back as far as possible, and return what came of each file.

        Raises:
            JobNotFound: there is no such job.
            JobConflict: it has not ended yet.

        """
        job = self._ledger.get(job_id)
        if not job.terminal:
            raise JobConflict(
                f"Job {job.id} is {job.state.value}; it can be taken back when it has ended (mlxd cancel {job.id}).",
                job=job.id,
                state=job.state.value,
            )
        already = self._journal.reverted(job.id) is not None
        self._journal.revert(job.id, now=self._clock())
        returned, refused = self._return_input(job)
        if refused is not None:
            why = "kept, because the input did not come back"
            kept = tuple(RevertedFile(path=one.path, why=why) for one in job.outputs if os.path.lexists(one.path))
            return RevertReport(job=job.id, kept=(refused, *kept), already=already)
        trashed, changed = self._trash_outputs(job)
        return RevertReport(
            job=job.id, input=returned, trashed=tuple(trashed), kept=tuple(changed), already=already and not trashed
        )

    def _return_input(self, job: Job) -> tuple[RevertedFile | None, RevertedFile | None]:
        """Return the input that is back, or what stands in the way of that."""
        path = job.placement.input
        if path is None:
            return None, None
        with contextlib.suppress(OutputError):
            clear_error_sidecar(path, root=job.placement.root)
        move = next((one for one in self._journal.moves(job.id) if one.source == path), None)
        if move is None:
            return RevertedFile(path=path, why="it was never moved"), None
        there, back = _digest(move.target), _digest(path)
        if back == move.sha256 and there is None:
            self._remember(job, path, path)
            return RevertedFile(path=path, now=path), None
        if why := _in_the_way(move, there, back):
            return None, RevertedFile(path=path, now=move.target if there else None, why=why)
        return self._bring_back(job, move)

    def _bring_back(self, job: Job, move: Move) -> tuple[RevertedFile | None, RevertedFile | None]:
        # Known before it is seen: the file keeps its identity on the way, unless it comes from another disk.
        self._remember(job, move.source, move.target)
        try:
            if not self._trash.restore(move.target, move.source, root=job.placement.root):
                return None, RevertedFile(path=move.source, now=move.target, why="another file has its name")
        except OSError as error:
            return None, RevertedFile(path=move.source, now=move.target, why=f"it cannot be moved: {error.strerror}")
        self._remember(job, move.source, move.source)
        if move.target.parent.name == "done":
            with contextlib.suppress(OSError):
                move.target.parent.rmdir()
        return RevertedFile(path=move.source, now=move.source), None

    def _remember(self, job: Job, path: Path, where: Path) -> None:
        """See to it that the file, which lies at *where*, is known at *path*."""
        facts = Facts.of(where.lstat())
        for folder in self._folders(job):
            self._ledger.remember(folder, place_key(path, facts), job.id)

    def _folders(self, job: Job) -> set[Path]:
        """Return the watched folders that the job's input came from; a repeated job has it from the one before."""
        one: Job | None = job
        while one is not None:
            if found := {folder for folder, _ in self._journal.keys(one.id)}:
                return found
            try:
                one = self._ledger.get(one.parent) if one.parent else None
            except JobNotFound:
                return set()
        return set()

    def _trash_outputs(self, job: Job) -> tuple[list[RevertedFile], list[RevertedFile]]:
        trashed, kept = [], []
        expected = {one.path: {one.sha256} for one in job.outputs}
        # What was written beside them, and by earlier attempts.
        noted = self._ledger.intended(job.id)
        for path in dict.fromkeys((*expected, *noted)):
            digest = _digest(path)
            if digest is None:
                continue
            if digest not in expected.get(path, set()) | noted.get(path, frozenset()):
                if path in expected:
                    kept.append(RevertedFile(path=path, why="it was changed since the job wrote it"))
                continue
            try:
                trashed.append(RevertedFile(path=path, now=self._put(job, path, digest)))
            except OutputError as error:
                kept.append(RevertedFile(path=path, why=error.message))
        return trashed, kept

    def _put(self, job: Job, path: Path, digest: str) -> Path:
        def plan(target: Path) -> None:
            self._journal.plan(job.id, path, target, digest, now=self._clock())

        return self._trash.put(path, plan, root=job.placement.root)


def _in_the_way(move: Move, there: str | None, back: str | None) -> str | None:
    """Return why the file cannot return; *there* and *back* are the contents at its new and at its old place."""
    if back is not None:
        return "another file has its name; move that one away and try again"
    if there is None:
        return f"it is no longer at {move.target}"
    if there != move.sha256:
        return f"it was changed since it was moved to {move.target}"
    return None


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of the file *path*, "" if it is none that could be ours, None if nothing has this name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return ""
