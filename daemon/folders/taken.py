"""Whether a watched file still is what its job was made of: its keys in the ledger against what lies there now."""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from daemon.folders.identity import (
    Facts,
    FileChanged,
    HashingStopped,
    content_digest,
    digest_of,
    is_dataless,
    is_regular,
    place_key,
)
from jobs.errors import InputChanged
from jobs.model import Job

#: Jobs of which it is kept in mind that their file was looked at.
_KEPT: Final = 1000


class Keys(Protocol):
    """What is needed of the journal."""

    def keys(self, job_id: str) -> list[tuple[Path, str]]:
        """Return (watched folder, key) of every watched file that became this job."""


class Lying(NamedTuple):
    """What lies at a job's place."""

    facts: Facts
    #: Whether it is what the job was made of; of a job that knows of no file's state anything is.
    taken: bool
    #: SHA-256, None if that is not known without reading.
    digest: str | None = None


def look(
    path: Path, keys: Collection[str], *, root: Path | None = None, stopping: Callable[[], bool] = lambda: False
) -> Lying:
    """Hold the file *path* against the *keys* of its job. It is read only if its stat says that it was touched.

    Raises:
        FileChanged: it is no ordinary file, or was written to meanwhile.
        HashingStopped: *stopping* said so.
        OSError: it is not there, or cannot be read.

    """
    status = path.lstat()
    if not is_regular(status):
        raise FileChanged
    facts = Facts.of(status)
    digests = {digest for key in keys if (digest := digest_of(key))}
    if not keys or place_key(path, facts) in keys:
        return Lying(facts, taken=True, digest=min(digests) if len(digests) == 1 else None)
    if not digests:
        return Lying(facts, taken=False)
    now = content_digest(path, facts, root=root, stopping=stopping)
    return Lying(facts, taken=now in digests, digest=now)


class TakenFiles:
    """The files that jobs of watched folders were made of. Any thread may ask."""

    def __init__(self, journal: Keys) -> None:
        self._journal = journal
        # Of touched files, by job: a recording is not read through at the beginning and at the end of its job.
        self._found: dict[str, Facts] = {}

    def require(self, job: Job, stopping: Callable[[], bool] = lambda: False) -> None:
        """Raise `InputChanged` if the file of *job* holds something else by now.

        What is missing, a link, unreadable or still in a cloud is the task's to complain of.
        """
        path = job.placement.input
        if path is None or not (keys := [key for _, key in self._journal.keys(job.id)]):
            return
        try:
            status = path.lstat()
            if is_dataless(status) or self._found.get(job.id) == Facts.of(status):
                return
            if (lying := look(path, keys, root=job.placement.root, stopping=stopping)).taken:
                self._remember(job.id, lying.facts)
                return
        except FileChanged:
            if not _is_file(path):
                return
        except (HashingStopped, OSError):
            return
        raise InputChanged(
            f"{path.name} was changed after it was taken, before this job had read it. What it holds now is a job of "
            "its own, if its folder takes it.",
            file=str(path),
        )

    def _remember(self, job_id: str, facts: Facts) -> None:
        if len(self._found) >= _KEPT:
            self._found.clear()
        self._found[job_id] = facts


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
