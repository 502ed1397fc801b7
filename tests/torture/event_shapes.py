"""Ways in which a watcher hears of changes: the kernel's, by listings, as FSEvents tells them, or not at all."""

from __future__ import annotations

import itertools
import random
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from watchdog import events
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from daemon.folders import file_events
from daemon.folders.file_events import ObserverFactory, make_observer
from torture.watched_disk import Change


class Silence:
    """No events at all."""

    #: What the folder's `events` says.
    kind = "off"
    factory: ObserverFactory | None = None

    def deliver(self, changes: Iterable[Change]) -> None:
        """Tell nobody."""


class Real:
    """watchdog's own observer; `deliver` returns when everything that was done before has been told."""

    def __init__(self, root: Path, kind: str) -> None:
        self._root = root
        self.kind = kind
        self._heard = threading.Condition()
        self._markers: set[str] = set()
        self._numbers = itertools.count()
        #: Times that nothing was heard for two seconds: an observer that has ended, or lost the event.
        self.deaf = 0
        # A file moved out of the folder holds all later events back for this long, half a second.
        InotifyMoveEventGrouper.delay = 0.02
        file_events._POLLING_SECONDS = 0.03

    def factory(self, _kind: str) -> Any:
        """Return a new observer that also tells us what it tells the watcher."""
        return _Tapped(make_observer(self.kind), self)

    def deliver(self, changes: Iterable[Change]) -> None:
        """Make a file that mlxd leaves alone, and wait until its event comes: those before it have come by then."""
        if not list(changes) or not self._root.is_dir():
            return
        marker = self._root / f".marker-{next(self._numbers)}"
        marker.touch()
        with self._heard:
            self.deaf += not self._heard.wait_for(lambda: str(marker) in self._markers, 2.0)
            self._markers.clear()
        marker.unlink()

    def hear(self, path: str) -> None:
        """Note an event; called on watchdog's thread."""
        if "/.marker-" in path:
            with self._heard:
                self._markers.add(path)
                self._heard.notify_all()


class _Tapped:
    def __init__(self, observer: Any, real: Real) -> None:
        self._observer = observer
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)

    def schedule(self, handler: Any, path: str, **options: Any) -> Any:
        return self._observer.schedule(_Tap(handler, self._real), path, **options)


class _Tap:
    def __init__(self, handler: Any, real: Real) -> None:
        self._handler = handler
        self._real = real

    def dispatch(self, event: events.FileSystemEvent) -> None:
        self._handler.dispatch(event)
        self._real.hear(str(event.src_path))
        self._real.hear(str(event.dest_path))  # a new marker with an old one's inode looks like the old one, renamed


class LikeFSEvents:
    """A replay with all that FSEvents and watchdog's emitter for it do to events on a Mac.

    Merged (a write may come as a creation, a creation as a write), dropped, told twice or long after, in another order,
    of files that are gone, with names composed or decomposed at will, renames in halves, no word of what is in a folder
    that was renamed in, never that a file was closed; for whole stretches nothing at all, which is what watchdog makes
    of MustScanSubDirs; and an emitter that ends when its folder is renamed.
    """

    kind = "native"

    def __init__(self, chance: random.Random, *, drops: float = 0.15) -> None:
        """*drops* is the share of changes of which nothing is told, besides the silent stretches."""
        self._chance = chance
        self._drops = drops
        self._observer: _Replay | None = None
        self._silent = 0
        self._late: list[events.FileSystemEvent] = []
        self._paths: list[str] = ["/nowhere"]
        #: Events told, and changes of which nothing was.
        self.told = 0
        self.untold = 0

    def factory(self, _kind: str) -> Any:
        """Return a new observer."""
        self._observer = _Replay()
        return self._observer

    def end(self) -> None:
        """Let the emitter end itself, as when its folder is renamed."""
        if self._observer is not None:
            self._observer.stop()

    def deliver(self, changes: Iterable[Change]) -> None:
        """Tell of *changes*, more or less."""
        for event in self._shaped(list(changes)):
            if self._observer is not None:
                self.told += 1
                self._observer.tell(event)

    def _shaped(self, changes: list[Change]) -> Iterator[events.FileSystemEvent]:
        if self._silent:
            self._silent -= 1
            self.untold += len(changes)
            return
        if changes and self._chance.random() < 0.05:
            self._silent = self._chance.randrange(2, 20)
        merged = list({change.target or change.path: change for change in changes}.values())
        self._chance.shuffle(merged)
        for change in merged:
            if self._chance.random() < self._drops:
                self.untold += 1
                continue
            self._paths.append(change.target or change.path)
            for event in self._events(change):
                if self._chance.random() < 0.1:
                    self._late.append(event)
                else:
                    yield event
        if self._chance.random() < 0.1:
            yield events.FileCreatedEvent(self._spelled(self._chance.choice(self._paths)))
        if self._late and self._chance.random() < 0.3:
            yield self._late.pop()

    def _events(self, change: Change) -> Iterator[events.FileSystemEvent]:
        path, target = self._spelled(change.path), self._spelled(change.target)
        if change.kind == "moved" and self._chance.random() < 0.5:
            yield (events.DirMovedEvent if change.folder else events.FileMovedEvent)(path, target)
        elif change.kind == "moved":
            yield (events.DirDeletedEvent if change.folder else events.FileDeletedEvent)(path)
            yield (events.DirCreatedEvent if change.folder else events.FileCreatedEvent)(target)
        elif change.folder:
            yield (events.DirDeletedEvent if change.kind == "deleted" else events.DirCreatedEvent)(path)
        elif change.kind == "deleted":
            yield events.FileDeletedEvent(path)
        else:
            yield self._chance.choice([events.FileCreatedEvent, events.FileModifiedEvent])(path)

    def _spelled(self, path: str) -> str:
        return unicodedata.normalize(self._chance.choice(["NFC", "NFD"]), path)


class _Replay:
    """As much of an observer as a watcher asks for."""

    def __init__(self) -> None:
        self._running = False
        self._handlers: list[tuple[Any, tuple[type, ...]]] = []
        self.emitters = [self]

    def schedule(self, handler: Any, _path: str, *, recursive: bool, event_filter: list[type]) -> None:
        assert recursive
        self._handlers.append((handler, tuple(event_filter)))

    def start(self) -> None:
        self._running = True

    def stop(self) -> None:
        self._running = False

    def join(self) -> None:
        pass

    def is_alive(self) -> bool:
        return self._running

    def tell(self, event: events.FileSystemEvent) -> None:
        for handler, kinds in self._handlers if self._running else []:
            if isinstance(event, kinds):
                handler.dispatch(event)
