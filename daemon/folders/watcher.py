"""Watches folders: one thread that sleeps until something is due or something happens.

Events are hints that make it quick; a full look at every folder, at start and every *rescan_seconds*, makes it right:
events get lost (FSEvents drops and merges them, inotify's queue overflows), never come (network drives), or cannot be
had at all. With no events whatsoever every file is still taken, within the rescan.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from daemon.config.folders import FolderConfig
from daemon.folders.complaints import Complaints
from daemon.folders.file_events import ObserverFactory, make_observer
from daemon.folders.finder import Finder
from daemon.folders.following import Following
from daemon.folders.intake import Intake
from daemon.folders.patrol import Patrol
from daemon.views import FolderStatus

_T = TypeVar("_T")

log: Final = logging.getLogger(__name__)

#: More hints than this at once and one full scan is cheaper.
_MOST_HINTS: Final = 20_000
#: How long callers wait for the thread, seconds.
_PATIENCE: Final = 30.0


_Work = tuple[list[tuple[Callable[[], Any], Future[Any]]], dict[Path, set[str | None]]]


class Watcher:
    """Owns the patrols; `start`, `reconfigure`, `rescan`, `status` and `stop` may be called from any thread."""

    def __init__(
        self,
        *,
        intake: Intake,
        clock: Callable[[], float] = time.monotonic,
        observer_factory: ObserverFactory | None = make_observer,
        rescan_seconds: float = 60.0,
        finder: Callable[..., Finder] = Finder,
        paused: Callable[[], Container[Path]] = frozenset,
    ) -> None:
        """*clock* gives seconds; *observer_factory* None means no events at all; *finder* looks into a folder.

        *paused* gives the folders that are to be left alone for now.
        """
        self._intake = intake
        self._clock = clock
        self._observer_factory = observer_factory
        self._rescan_seconds = rescan_seconds
        self._finder = finder
        self._paused = paused
        self._patrols: dict[Path, Patrol] = {}
        # The watched folders within each watched folder, which it must leave alone.
        self._inner: dict[Path, frozenset[Path]] = {}
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlxd-large-files")
        # A daemon thread, because a dead network server may hold it in a call for ever; `stop` waits for it otherwise.
        self._thread = threading.Thread(target=self._run, name="mlxd-watcher", daemon=True)
        self._snapshot: list[FolderStatus] = []
        # Everything below is shared with other threads, under this condition.
        self._changed = threading.Condition()
        self._commands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._hints: dict[Path, set[str | None]] = {}
        self._woken = False
        self._stopping = False

    def start(self, folders: Iterable[FolderConfig]) -> None:
        """Begin to watch; returns at once, the first look happens on the watcher's thread."""
        self._arrange(folders)
        self._thread.start()

    def reconfigure(self, folders: Iterable[FolderConfig], *, rescan_seconds: float | None = None) -> None:
        """Watch these folders from now on; folders that stay as they are go on undisturbed."""
        wanted = tuple(folders)
        self._ask(lambda: self._arrange(wanted, rescan_seconds))

    def rescan(self) -> int:
        """Look through all folders now; return how many files wait, or were taken by this."""
        return self._ask(self._scan_all) or 0

    def pause(self, folder: Path, *, paused: bool) -> None:
        """Take nothing of the watched *folder* from now on, or go on; who calls this remembers it."""
        self._ask(lambda: self._set_paused(folder, paused=paused))

    def reconsider(self, path: Path) -> None:
        """Look at the file *path* as if it had never been seen; returns at once."""
        with self._changed:
            self._commands.append((partial(self._reconsider, path), Future()))
            self._changed.notify()

    def status(self) -> list[FolderStatus]:
        """Return how each folder did when the thread last looked."""
        return list(self._snapshot)

    def wake(self) -> None:
        """Make the thread look at the clock again."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def stop(self) -> None:
        """Stop watching and wait for all threads; files that are not taken yet are found after the next start."""
        self._intake.interrupt()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._background.shutdown(wait=True, cancel_futures=True)

    def _ask(self, command: Callable[[], _T]) -> _T | None:
        """Have *command* done on the thread and return its result; None if the watcher does not run."""
        future: Future[_T] = Future()
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                return None
            self._commands.append((command, future))
            self._changed.notify()
        try:
            return future.result(_PATIENCE)
        except (CancelledError, TimeoutError):
            return None

    # The thread.

    def _run(self) -> None:
        try:
            while (work := self._await_work()) is not None:
                commands, hints = work
                for command, future in commands:
                    _answer(command, future)
                now = self._clock()
                for path, patrol in self._patrols.items():
                    self._turn(patrol, hints.get(path, ()), now)
                self._publish()
        finally:
            for patrol in self._patrols.values():
                patrol.close()
            for _, future in self._commands:
                future.cancel()

    def _await_work(self) -> _Work | None:
        """Sleep until there is something to do; None means stop."""
        deadline = min((patrol.next_deadline() for patrol in self._patrols.values()), default=math.inf)
        with self._changed:
            while not (self._stopping or self._commands or self._hints or self._woken):
                left = None if deadline == math.inf else deadline - self._clock()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            if self._stopping:
                return None
            commands, hints = self._commands, self._hints
            self._commands, self._hints, self._woken = [], {}, False
            return commands, hints

    def _turn(self, patrol: Patrol, hints: Iterable[str | None], now: float) -> None:
        try:
            for hint in hints:
                patrol.hint(hint, now)
            patrol.turn(now)
        except Exception as error:  # one folder's surprise must not end the watching of all
            log.exception("A watched folder could not be looked after.", extra={"action": "folder_failed"})
            patrol.hold_back(f"unexpected {type(error).__name__}", now)

    def _hint(self, folder: Path, relative: str | None) -> None:
        """Note a hint; called on watchdog's threads."""
        with self._changed:
            hints = self._hints.setdefault(folder, set())
            if len(hints) < _MOST_HINTS:
                hints.add(relative)
            else:
                self._hints[folder] = {None}
            self._changed.notify()

    def _arrange(self, folders: Iterable[FolderConfig], rescan_seconds: float | None = None) -> None:
        wanted = {folder.path: folder for folder in folders if folder.enabled}
        inner = {path: frozenset(other for other in wanted if path in other.parents) for path in wanted}
        if rescan_seconds in (None, self._rescan_seconds):
            kept = {
                path: patrol
                for path, patrol in self._patrols.items()
                if wanted.get(path) == patrol.folder and inner[path] == self._inner[path]
            }
        else:
            self._rescan_seconds, kept = rescan_seconds or self._rescan_seconds, {}
        for path in self._patrols.keys() - kept.keys():
            self._patrols[path].close()
        self._inner = inner
        paused = self._paused()
        self._patrols = {
            path: kept.get(path) or self._patrol(folder, paused=path in paused) for path, folder in wanted.items()
        }
        self._publish()

    def _set_paused(self, folder: Path, *, paused: bool) -> None:
        if patrol := self._patrols.get(folder):
            patrol.pause(paused=paused)
            self._publish()  # whoever asked looks at the status next

    def _reconsider(self, path: Path) -> None:
        for root, patrol in self._patrols.items():
            if path.is_relative_to(root):
                patrol.reconsider(path.relative_to(root).as_posix(), self._clock())

    def _publish(self) -> None:
        self._snapshot = [patrol.status() for patrol in self._patrols.values()]

    def _patrol(self, folder: FolderConfig, *, paused: bool) -> Patrol:
        complaints = Complaints()
        return Patrol(
            folder,
            finder=self._finder(folder, complaints=complaints, excluded=self._inner[folder.path]),
            following=Following(
                folder, observer_factory=self._observer_factory, on_hint=partial(self._hint, folder.path)
            ),
            complaints=complaints,
            intake=self._intake,
            background=self._background,
            wake=self.wake,
            clock=self._clock,
            rescan_seconds=self._rescan_seconds,
            paused=paused,
        )

    def _scan_all(self) -> int:
        now = self._clock()
        before = sum(patrol.taken for patrol in self._patrols.values())
        for patrol in self._patrols.values():
            patrol.expedite()
            self._turn(patrol, (), now)
        self._publish()
        return sum(folder.waiting + folder.taken for folder in self._snapshot) - before


def _answer(command: Callable[[], _T], future: Future[_T]) -> None:
    try:
        future.set_result(command())
    except Exception as error:  # noqa: BLE001 - it is raised again, in the thread that asked
        future.set_exception(error)
