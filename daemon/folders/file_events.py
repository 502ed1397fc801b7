"""What the system tells of changes in a folder. Only ever a hint: `daemon.folders.watcher` says what is relied on."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver, EventEmitter

#: How often `PollingObserver` compares listings, seconds: it costs a stat of every file.
_POLLING_SECONDS: Final = 10.0
#: File systems on which other machines' changes are never announced.
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afpfs", "webdav", "9p", "ncpfs"})
_REMOTE_PREFIXES: Final = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "macfuse", "osxfuse")

#: Give an observer of this kind ("native", "polling"), not started.
ObserverFactory = Callable[[str], "BaseObserver"]

#: Whether event paths spell names as the folder does. FSEvents composes and decomposes accents as it likes.
EXACT_NAMES: Final = sys.platform != "darwin"


def make_observer(kind: str) -> BaseObserver:
    """Return watchdog's observer of this kind; watchdog is imported here, off the daemon's way to ready."""
    if kind == "polling":
        from watchdog.observers.polling import PollingObserverVFS

        # Not `PollingObserver`, which follows links: out of the folder, and round in circles for ever.
        return PollingObserverVFS(os.lstat, os.scandir, polling_interval=_POLLING_SECONDS)
    from watchdog.observers import Observer

    # Said when a folder is renamed while it is being added; harmless, but where warnings are errors it ends watchdog's
    # one reader of events for good.
    warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
    return Observer()


def is_remote(path: Path, partitions: Callable[[], list[tuple[str, str]]] | None = None) -> bool:
    """Tell whether *path* lies on a network file system; *partitions* gives (mount point, type) of what is mounted."""
    real = os.path.realpath(path)
    mounts = (partitions or _partitions)()
    covering = [(len(point), kind) for point, kind in mounts if _is_below(real, point)]
    kind = max(covering, default=(0, ""))[1].lower()
    return kind in _REMOTE or kind.startswith(_REMOTE_PREFIXES)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _partitions() -> list[tuple[str, str]]:
    import psutil

    return [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


class FolderEvents:
    """Follows one folder until it is stopped. *on_hint* is called on watchdog's thread: be quick there.

    It is told the relative path of what may have changed, "" for the folder itself, None when only a full look helps.
    """

    def __init__(
        self, root: Path, *, recursive: bool, observer: BaseObserver, on_hint: Callable[[str | None], None]
    ) -> None:
        # FSEvents tells real paths (/private/var), whatever it was asked for.
        self._root = os.path.realpath(root)
        self._recursive = recursive
        self._observer = observer
        self._on_hint = on_hint

    def start(self) -> None:
        """Begin to follow.

        Raises:
            OSError: the folder is gone, or the system has no more watches to give.
            RuntimeError, SystemError: watchdog or its FSEvents extension cannot.

        """
        self._observer.schedule(
            self,  # type: ignore[arg-type]  # all an observer asks of its handler is `dispatch`
            self._root,
            recursive=self._recursive,
            event_filter=_interesting(),
        )
        self._observer.start()
        if not self.alive:
            raise RuntimeError("the reader of events has ended; a restart of mlxd brings it back")

    def stop(self) -> None:
        """Stop following and wait for watchdog's threads; also after a `start` that failed."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    @property
    def alive(self) -> bool:
        """Return whether it still follows: an emitter ends itself when its folder is removed or renamed."""
        emitters = self._observer.emitters
        return self._observer.is_alive() and bool(emitters) and all(map(_is_alive, emitters))

    def dispatch(self, event: FileSystemEvent) -> None:
        """Pass on where something happened (watchdog calls this)."""
        for path in (event.src_path, event.dest_path):
            if path:
                self._on_hint(self._relative(os.fsdecode(path)))

    def _relative(self, path: str) -> str | None:
        if path == self._root:
            return ""
        inside = self._root.rstrip("/") + "/"
        return path.removeprefix(inside) if path.startswith(inside) else None


def _is_alive(emitter: EventEmitter) -> bool:
    """Ask the emitter, and the thread that all emitters have their inotify events from, if there is one."""
    reader = getattr(emitter, "_inotify_fd", None)
    return emitter.is_alive() and (reader is None or reader.is_alive())


def _interesting() -> list[Any]:
    """Return the kinds of events that can matter: our own reading must not wake us, nor each file its folder again."""
    from watchdog import events

    return [
        events.FileCreatedEvent,
        events.FileModifiedEvent,
        events.FileMovedEvent,
        events.FileDeletedEvent,
        events.FileClosedEvent,
        events.DirCreatedEvent,
        events.DirMovedEvent,
        events.DirDeletedEvent,
    ]
