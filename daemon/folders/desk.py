"""What people ask about watched folders besides watching them: try out, pause, resume, take a job back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from daemon.config.folders import FolderConfig
from daemon.folders.expectation import Past
from daemon.folders.preview import Asking, Preview
from daemon.folders.reverting import Reverting
from daemon.views import FolderStatus, FolderTest, RevertReport
from jobs.errors import InvalidInput
from jobs.journal import Journal
from jobs.ledger import Ledger
from jobs.model import Job, State

#: Past jobs that are looked at to tell how long one takes.
_PAST: Final = 200


class Watching(Protocol):
    """What the desk needs of the watcher."""

    def pause(self, folder: Path, *, paused: bool) -> None:
        """Take nothing of *folder* from now on, or go on."""

    def status(self) -> list[FolderStatus]:
        """Return the watched folders."""


class FolderDesk:
    """Any thread may call any method."""

    def __init__(
        self,
        *,
        folders: Callable[[], Iterable[FolderConfig]],
        watcher: Watching,
        journal: Journal,
        revert: Reverting,
        asking: Asking,
        clock: Callable[[], datetime],
    ) -> None:
        self._folders = folders
        self._watcher = watcher
        self._journal = journal
        self._asking = asking
        self._clock = clock
        self._revert = revert

    def revert(self, job_id: str) -> RevertReport:
        """Take a job back; see `daemon.folders.reverting.Reverting`."""
        return self._revert(job_id)

    def pause(self, path: Path) -> FolderStatus:
        """Take nothing of the watched folder *path* until `resume`, also after a restart.

        Raises:
            InvalidInput: it is no watched folder.

        """
        folder = self._watched(path)
        self._journal.pause(folder.path, now=self._clock())
        return self._tell(folder, paused=True)

    def resume(self, path: Path) -> FolderStatus:
        """Go on with the watched folder *path*. Raises as `pause` does."""
        folder = self._watched(path)
        self._journal.resume(folder.path)
        return self._tell(folder, paused=False)

    def test(self, path: Path, *, limit: int) -> FolderTest:
        """Tell what would become of the file or folder *path*; nothing is written.

        Raises:
            InvalidInput: it is not there, or no watched folder holds it.

        """
        folder = self._holding(path)
        start = _relative(path, folder.path) or ""
        excluded = frozenset(other.path for other in self._enabled() if folder.path in other.path.parents)
        if start and not os.path.lexists(folder.path / start):
            raise InvalidInput(f"{path} does not exist.", file=str(path))
        preview = Preview(folder, asking=self._asking, excluded=excluded)
        return preview.run(start, limit=limit, paused=folder.path in self._journal.paused())

    def _tell(self, folder: FolderConfig, *, paused: bool) -> FolderStatus:
        self._watcher.pause(folder.path, paused=paused)
        found = next((one for one in self._watcher.status() if one.path == folder.path), None)
        return found or FolderStatus(path=folder.path)

    def _enabled(self) -> list[FolderConfig]:
        return [folder for folder in self._folders() if folder.enabled]

    def _watched(self, path: Path) -> FolderConfig:
        for folder in self._enabled():
            if _relative(path, folder.path) == "":
                return folder
        raise InvalidInput(f"{path} is not a watched folder. {self._those_there_are()}", file=str(path))

    def _holding(self, path: Path) -> FolderConfig:
        """Return the innermost watched folder that *path* is or lies in."""
        found = [folder for folder in self._enabled() if _relative(path, folder.path) is not None]
        if not found:
            raise InvalidInput(f"No watched folder holds {path}. {self._those_there_are()}", file=str(path))
        return max(found, key=lambda folder: len(folder.path.parts))

    def _those_there_are(self) -> str:
        names = ", ".join(str(folder.path) for folder in self._enabled())
        return f"Watched are: {names}." if names else "No folder is watched; docs/config.md says how."


def past_jobs(ledger: Ledger, journal: Journal, task: str) -> list[Past]:
    """Return the latest jobs of *task* that were done, with their inputs' sizes as far as these are still there."""
    found = ledger.find(states=(State.SUCCEEDED,), task=task, limit=_PAST)
    return [Past(_size(job, journal), seconds) for job in found if (seconds := _seconds(job)) is not None]


def _took_no_time(job: Job) -> bool:
    """Tell whether a recorded result stood for the job's own."""
    return bool((job.result or {}).get("reused_from"))


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None or _took_no_time(job):
        return None
    return max(0.0, (job.finished_at - job.started_at).total_seconds())


def _size(job: Job, journal: Journal) -> int | None:
    given = job.placement.input or job.params.get("file")
    if given is None:
        return None
    try:
        return os.lstat(given).st_size
    except (OSError, TypeError, ValueError):
        pass
    moved = [move.target for move in journal.moves(job.id) if move.source == job.placement.input]
    try:
        return os.lstat(moved[0]).st_size if moved else None
    except OSError:
        return None


def _relative(path: Path, folder: Path) -> str | None:
    """Return where *path* lies in *folder*, "" for the folder itself, None if it does not; links do not matter."""
    for one, other in ((path, folder), (path.parent.resolve() / path.name, folder.resolve()), (path.resolve(), folder)):
        if one == other:
            return ""
        if one.is_relative_to(other):
            return one.relative_to(other).as_posix()
    return None
