"""The thread that writes kept beginnings: the files, their checksums and the deleting of others are its business."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from plugins.lm_prefix_disk_file import Plan
from plugins.lm_prefix_disk_folder import PrefixFolder

log = logging.getLogger("mlxd.runner")

#: Pieces that may wait for the disk: bounds the memory that they take.
_WAITING: Final = 4
#: Seconds that the owner waits for the disk when nobody is being answered.
_WAIT_S: Final = 0.05
#: Seconds that the end waits for what was handed over.
_CLOSING_S: Final = 1.0

_NEXT: Final = object()
_END: Final = object()


class Writer:
    """Writes one entry after another; all methods are the owner's, and none waits for the disk unless asked to."""

    def __init__(self, folder: PrefixFolder) -> None:
        self._folder = folder
        self._queue: queue.Queue[Any] = queue.Queue()
        self._room = threading.Semaphore(_WAITING)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        #: False after the folder could not be used: then nothing is written any more.
        self.works = True

    def ready(self, *, wait: bool) -> bool:
        """Whether a piece would not be one too many."""
        if not self._room.acquire(timeout=_WAIT_S if wait else None, blocking=wait):
            return False
        self._room.release()
        return True

    def begin(self, key: str, plan: Plan, *, superseded: Sequence[Path]) -> None:
        """Begin an entry; those that it *supersedes* are deleted when it is there."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prefixes", daemon=True)
            self._thread.start()
        self._queue.put((key, plan, superseded))

    def give(self, piece: Any) -> None:
        """Hand over a piece of the array under way."""
        self._room.acquire()
        self._queue.put(piece)

    def next(self) -> None:
        """End the array under way."""
        self._queue.put(_NEXT)

    def end(self) -> None:
        """End the entry."""
        self._queue.put(_END)

    def close(self) -> None:
        """End the thread, with a moment's patience."""
        if self._thread is not None:
            self._closing.set()
            self._queue.put(_END)
            self._queue.put(None)
            self._thread.join(_CLOSING_S)
            self._thread = None

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (begun := self._queue.get()) is not None:
            if begun is _END:  # of an entry that the end cut short
                continue
            key, plan, superseded = begun
            pieces = self._pieces()
            try:
                self._write(key, plan, pieces, superseded)
            except FileNotFoundError:  # it was cleared meanwhile
                pass
            except OSError as error:  # a full disk, a folder that is a stranger's: a cache is not worth a job
                self.works = False
                log.warning("Beginnings of prompts are not kept on the disk: %s", error)
            except ValueError:  # cut short by the end
                pass
            for _ in pieces:  # so that nothing of it stays in the queue
                pass

    def _write(self, key: str, plan: Plan, pieces: Iterator[Any], superseded: Sequence[Path]) -> None:
        reserved = self._folder.reserve(key, plan.size)
        if reserved is None:
            return
        file, path = reserved
        with contextlib.ExitStack() as undo:
            undo.callback(self._folder.drop, path)
            with file:
                plan.write(file, _arrays(pieces, len(plan.specs)))
                file.flush()
                self._folder.publish(path)
            undo.pop_all()
        for one in superseded:
            self._folder.drop(one)

    def _pieces(self) -> Iterator[Any]:
        """Yield the pieces of one entry, with `_NEXT` after each array."""
        while (one := self._queue.get()) is not _END:
            if one is _NEXT:
                yield one
            else:
                self._room.release()
                yield one


def _arrays(pieces: Iterator[Any], count: int) -> Iterator[Iterator[Any]]:
    for _ in range(count):
        yield _array(pieces)


def _array(pieces: Iterator[Any]) -> Iterator[Any]:
    """Yield the pieces up to the end of an array."""
    for piece in pieces:
        if piece is _NEXT:
            return
        yield piece
