"""Decodes a recording on a thread of its own while the model works, never far ahead of it.

The thread has nothing to do with MLX. It stops when so many pieces wait that nobody has taken, and goes on when one was
taken; whoever takes them is told of new ones by *heard*.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from plugins.audio import Sound
from plugins.mel import REACH

#: Pieces of about ten seconds that may wait.
AHEAD: Final = 4


class Begin(NamedTuple):
    """The first thing told: what the pieces after it are."""

    #: Seconds of the whole, as the file says; None if it does not.
    duration: float | None
    #: The place of the first sample that comes, counted from the recording's beginning.
    sample: int
    #: Whether what was asked to be skipped is there as it was.
    resumed: bool
    #: A `hasher` that has taken the samples that were skipped.
    hashed: Any


class End(NamedTuple):
    """The last thing told."""

    #: Samples of the whole recording.
    samples: int
    #: What a person should know about the result.
    notes: list[str]


#: A piece is an array of 16-bit samples.
Told = Begin | End | ValueError | Any
#: Gives a block in which to decode.
Turn = Callable[[], AbstractContextManager[None]]


class Reader:
    """One recording on its way."""

    def __init__(
        self,
        path: Path,
        *,
        below: Path | None = None,
        skip: int = 0,
        digest: str = "",
        heard: Callable[[], None] = lambda: None,
        turn: Turn = nullcontext,
        ahead: int = AHEAD,
    ) -> None:
        """Read *path* (below the folder *below* without following links).

        The first *skip* samples are not told, but for the last few that the first frame looks at, if their `hasher`
        gives *digest*; otherwise everything is told. It is decoded within *turn* only, which is left to wait.
        """
        self._path, self._below = path, below
        self._skip, self._digest = skip, digest
        self._heard, self._turn, self._ahead = heard, turn, ahead
        self._lock = threading.Condition()
        self._waiting: deque[Told] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mlxd-sound", daemon=True)
        self._thread.start()

    def take(self) -> Told | None:
        """Return what is next, None if there is nothing yet."""
        with self._lock:
            if not self._waiting:
                return None
            self._lock.notify()
            return self._waiting.popleft()

    def close(self) -> None:
        """Stop reading; what waits is thrown away."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._lock.notify()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end, *timeout* in seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        told = self._told()
        try:
            more = True
            while more and self._has_room():
                with self._turn():
                    more = self._fill(told)
            told.close()
        except ValueError as error:
            self._say(error)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises on a stranger's file spoils this file alone
            self._say(ValueError(f"{self._path.name} could not be decoded: {type(error).__name__}: {error}"))

    def _has_room(self) -> bool:
        """Wait until something was taken; False if nobody will."""
        with self._lock:
            self._lock.wait_for(lambda: self._closed or len(self._waiting) < self._ahead)
            return not self._closed

    def _fill(self, told: Generator[Told, None, None]) -> bool:
        """Decode until so much waits that it suffices; return whether there is more."""
        for one in told:
            self._say(one)
            if self._closed or len(self._waiting) >= self._ahead:
                return True
        return False

    def _say(self, one: Told) -> None:
        with self._lock:
            if self._closed:
                return
            self._waiting.append(one)
        self._heard()

    def _told(self) -> Generator[Told, None, None]:
        if self._skip:
            sound = Sound(self._path, below=self._below)
            if (rest := self._skipped(sound)) is not None:
                first, pieces, hashed = rest
                yield Begin(sound.duration, self._skip - min(REACH, self._skip), resumed=True, hashed=hashed)
                yield first
                yield from pieces
                yield End(sound.samples, sound.notes)
                return
            sound.close()
        sound = Sound(self._path, below=self._below)
        yield Begin(sound.duration, 0, resumed=False, hashed=hasher())
        yield from sound.pieces()
        yield End(sound.samples, sound.notes)

    def _skipped(self, sound: Sound) -> tuple[Any, Iterator[Any], Any] | None:
        """Return what follows the samples to be skipped, in two parts, and their hash so far; None if they differ."""
        import numpy as np

        hashed, left, tail = hasher(), self._skip, np.zeros(0, np.int16)
        pieces = sound.pieces()
        for piece in pieces:
            if self._closed:
                break
            hashed.update(piece[:left].tobytes())
            if len(piece) >= left:
                if hashed.hexdigest() != self._digest:
                    break
                whole = np.concatenate([tail, piece])
                return whole[max(0, len(tail) + left - REACH) :], pieces, hashed
            left -= len(piece)
            tail = np.concatenate([tail, piece])[-REACH:]
        return None


def hasher() -> Any:
    """Return what tells whether samples are the same ones: it takes their bytes."""
    return hashlib.blake2b(digest_size=16)
