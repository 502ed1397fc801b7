"""Keeps the system's events coming for one watched folder, through its removal, return and replacement."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

from daemon.config.folders import FolderConfig
from daemon.folders.file_events import FolderEvents, ObserverFactory, is_remote
from daemon.folders.intake import describe

log: Final = logging.getLogger(__name__)


class Following:
    """Used by the watcher's thread alone; *on_hint* is called on watchdog's threads."""

    def __init__(
        self,
        folder: FolderConfig,
        *,
        observer_factory: ObserverFactory | None,
        on_hint: Callable[[str | None], None],
    ) -> None:
        """*observer_factory* gives watchdog's observers by kind; None means that there are none."""
        self._folder = folder
        self._factory = observer_factory if folder.events != "off" else None
        self._on_hint = on_hint
        self._events: FolderEvents | None = None
        self._identity: tuple[int, int] | None = None
        self._told_by = "none"
        #: Why there are no events, if there should be some.
        self.problem: str | None = None

    @property
    def kind(self) -> str:
        """Return what tells of changes: "native", "polling", or "none"."""
        return self._told_by if self._events is not None else "none"

    def follow(self, identity: tuple[int, int] | None) -> None:
        """See to it that events come from the folder with this (device, inode), or from none.

        A folder that was removed and made again, or renamed away and replaced, has another identity: the events of
        the old one would never speak of it. Called before each scan, so that nothing happens unseen in between.
        """
        if self._events is not None and (identity != self._identity or not self._events.alive):
            self.stop()
        if self._events is None and identity is not None and self._factory is not None:
            self._start(identity, self._factory)

    def stop(self) -> None:
        """Stop the events and wait for their threads."""
        if self._events is not None:
            self._events.stop()
            self._events = None

    def _start(self, identity: tuple[int, int], factory: ObserverFactory) -> None:
        self._told_by = self._kind()
        events = FolderEvents(
            self._folder.path,
            recursive=self._folder.recursive,
            observer=factory(self._told_by),
            on_hint=self._on_hint,
        )
        try:
            events.start()
        except (OSError, RuntimeError, SystemError) as error:  # watchdog's FSEvents extension raises the latter two
            events.stop()
            self.problem = f"changes are only noticed at rescans: {_why(error)}"
            log.warning("No events from a folder: %s", _why(error), extra={"action": "folder_without_events"})
            return
        self._events, self._identity, self.problem = events, identity, None

    def _kind(self) -> str:
        if self._folder.events == "auto":
            return "polling" if is_remote(self._folder.path) else "native"
        return self._folder.events


def _why(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        return "the system's limit of watched folders is reached (fs.inotify.max_user_watches, max_user_instances)"
    return describe(error)
