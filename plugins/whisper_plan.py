"""What of a recording is decoded next: windows, cut from the samples as they come in.

With cutting, a window ends in a pause and the next one is known at once; where there is no pause, or without cutting,
the next one begins where the text of this one ends. At most the half minute at hand is kept here: two hours take no
more memory than one minute.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from plugins import whisper_cuts as cuts
from plugins.audio import RATE
from plugins.mel import HOP, REACH, WINDOW
from plugins.whisper_reader import Begin, End, Reader, hasher


class Stretch(NamedTuple):
    """What one window is made of."""

    #: Its first frame (of 10 ms) in the recording, and how many it has.
    seek: int
    size: int
    #: 16-bit samples, with *before* of them ahead of the first frame and some after the last.
    samples: Any
    before: int
    #: Whether what follows is a window of its own, whatever the text of this one says.
    closed: bool

    def rest(self, frames: int) -> Stretch:
        """Return what follows the first *frames*."""
        skipped = self.before + frames * HOP - REACH
        return self._replace(
            seek=self.seek + frames, size=self.size - frames, samples=self.samples[skipped:], before=REACH
        )

    def quiet(self, frames: int) -> bool:
        """Tell whether there is nothing but a pause after the first *frames*."""
        loud = cuts.loudness(self.samples[self.before : self.before + self.size * HOP])
        return cuts.is_quiet(loud[frames:], loud)


class Mark(NamedTuple):
    """A place to go on from: a frame, and what tells whether the samples before it are the same."""

    frame: int
    digest: str


class Plan:
    """One recording, from its samples to its windows."""

    def __init__(self, reader: Reader, *, cutting: bool, at: int = 0) -> None:
        """*at* is the frame from which the reader was asked to tell, 0 unless an earlier attempt came so far."""
        self._reader = reader
        self._cutting = cutting
        self._wanted = at
        self._at = 0
        self._first = 0
        self._samples: Any = None
        self._hasher = hasher()
        self._open = False
        self._end: End | None = None
        #: Seconds of the whole, as far as is known.
        self.duration: float | None = None
        #: Whether what an earlier attempt did stands; None until that is known.
        self.resumed: bool | None = None

    @property
    def notes(self) -> list[str]:
        """Return what a person should know about the result, once all was heard."""
        return self._end.notes if self._end else []

    @property
    def finished(self) -> bool:
        """Whether there is no window left."""
        return self._end is not None and not self._open and self._at >= self._end.samples // HOP

    @property
    def mark(self) -> Mark:
        """Return the place up to which windows were planned."""
        return Mark(self._at, self._hasher.hexdigest())

    def next(self) -> Stretch | None:
        """Return the next window; None if the one before has to be decoded first, or more has to be heard.

        Raises:
            ValueError: the file cannot be used; the message says why.

        """
        if self._open:
            return None
        while not self._enough():
            if not self._take():
                return None
        if self.finished or self._samples is None:
            return None
        return self._window()

    def go_on(self, frames: int) -> None:
        """Say that the open window came so far."""
        self._open = False
        self._advance(frames)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def _enough(self) -> bool:
        return self._end is not None or self._heard >= (self._at + WINDOW) * HOP + REACH

    @property
    def _heard(self) -> int:
        return self._first + (0 if self._samples is None else len(self._samples))

    def _take(self) -> bool:
        import numpy as np

        told = self._reader.take()
        if told is None:
            return False
        if isinstance(told, ValueError):
            raise told
        if isinstance(told, Begin):
            self.duration, self.resumed = told.duration, told.resumed
            self._first, self._hasher = told.sample, told.hashed
            self._at = self._wanted if told.resumed else 0
        elif isinstance(told, End):
            self._end, self.duration = told, told.samples / RATE
        else:
            self._samples = told if self._samples is None else np.concatenate([self._samples, told])
        return True

    def _window(self) -> Stretch:
        left = WINDOW if self._end is None else self._end.samples // HOP - self._at
        size, last = min(left, WINDOW), self._end is not None and left <= WINDOW
        start = max(0, self._at * HOP - REACH)
        samples = self._samples[start - self._first : (self._at + size) * HOP + REACH - self._first]
        before = self._at * HOP - start
        found = cuts.cut(cuts.loudness(samples[before : before + size * HOP])) if self._cutting and not last else None
        if found is None:
            self._open = True
            return Stretch(self._at, size, samples.copy(), before, closed=False)
        stretch = Stretch(self._at, found, samples[: before + found * HOP + REACH].copy(), before, closed=True)
        self._advance(found)
        return stretch

    def _advance(self, frames: int) -> None:
        """Go on by *frames*, and forget the samples that no window looks at any more."""
        begin = self._at * HOP - self._first
        self._hasher.update(self._samples[begin : begin + frames * HOP].tobytes())
        self._at += frames
        spare = max(0, self._at * HOP - REACH - self._first)
        self._samples = self._samples[spare:]
        self._first += spare
