"""Decodes the sound of any audio or video file to 16 kHz mono, piece by piece, with PyAV: no ffmpeg program needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final

from jobs.files import open_below

#: Samples a second of what comes out.
RATE: Final = 16_000

#: Samples in one piece, at least: ten seconds, a third of a megabyte.
PIECE: Final = 10 * RATE

# Missing by more than this (seconds, and share of the whole) counts as cut short: headers round, encoders pad.
_SLACK_S: Final = 1.0
_SLACK: Final = 0.02

_UNKNOWN_LENGTH: Final = 0xFFFF_0000

# Broken packets in a row after which the rest is given up.
_PATIENCE: Final = 50


class Sound:
    """The first sound track of a file. Use it once: iterate `pieces`, then read `notes`."""

    def __init__(self, path: Path, *, below: Path | None = None) -> None:
        """Open *path*, below the folder *below* without following links.

        Raises:
            ValueError: it is missing, empty, not a regular file, or has no sound that can be decoded; says which.

        """
        import av

        self._path = path
        self._file = _open(path, below)
        try:
            self._container: Any = av.open(self._file, options=_options(self._file), **_lenient(av.__version__))
        except (av.FFmpegError, OSError, ValueError) as error:
            self._file.close()
            raise ValueError(_unreadable(path)) from error
        if not self._container.streams.audio:
            self.close()
            raise ValueError(f"{path.name} has no sound track that can be decoded.")
        self._stream = self._container.streams.audio[0]
        #: Seconds, as the file says; None if it does not.
        self.duration = self._said_duration()
        #: Samples decoded so far.
        self.samples = 0
        #: What a person should know about the result.
        self.notes: list[str] = []

    def close(self) -> None:
        """Give the file back."""
        self._container.close()
        self._file.close()

    def pieces(self) -> Iterator[Any]:
        """Yield the sound as arrays of 16-bit samples, about ten seconds each; closes the file at the end.

        Raises:
            ValueError: there is not one sample in it.

        """
        import numpy as np

        with closing(self):
            gathered: list[Any] = []
            told = 0
            for part in self._parts():
                gathered.append(part)
                self.samples += len(part)
                if self.samples - told >= PIECE:
                    told = self.samples
                    yield np.concatenate(gathered)
                    gathered = []
            if gathered:
                yield np.concatenate(gathered)
            if not self.samples:
                raise ValueError(f"{self._path.name} has a sound track without a single sample that can be decoded.")
            self._note_gaps()

    def _parts(self) -> Iterator[Any]:
        """Yield what comes out of the resampler, whatever its length."""
        import av

        # 16 bits are what Whisper's own loader takes: the same file gives the same samples.
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        for frame in self._frames_and_end():
            for out in resampler.resample(frame):
                yield out.to_ndarray().reshape(-1)

    def _frames_and_end(self) -> Iterator[Any]:
        """Yield decoded frames, then None, which flushes the resampler; skip what is broken."""
        import av

        broken = 0
        packets = self._container.demux(self._stream)
        while broken < _PATIENCE:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except (av.FFmpegError, OSError):
                broken += 1
                continue
            broken = 0 if frames else broken
            yield from frames
        if broken:
            self.notes.append("Parts of the sound could not be decoded and are missing.")
        yield None

    def _said_duration(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else float(self._container.duration) / 1e6

    def _note_gaps(self) -> None:
        got = self.samples / RATE
        if missing := _riff_lacks(self._path):
            self.notes.append(f"The file is cut short: {missing:,} bytes that its header announces are missing.")
        elif self.duration and self.duration - got > max(_SLACK_S, self.duration * _SLACK):
            self.notes.append(f"The file says {self.duration:.1f} s but ends after {got:.1f} s: it is cut short.")


def _options(file: IO[bytes]) -> dict[str, str]:
    """Return what makes FFmpeg read the WAV in *file* by 64 KiB instead of 2 KiB, {} for what is none.

    Every packet has to get Python's lock back, beside a model that is at work: 30 s of it are 15 packets, not 469. More
    than one packet to guess the codec from would make opening take 30 ms instead of 1.
    """
    head = file.read(12)
    file.seek(0)
    return {"max_size": "65536", "max_probe_packets": "1"} if _is_riff_wave(head) else {}


def _is_riff_wave(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def _lenient(version: str) -> dict[str, Any]:
    """Return what makes PyAV *version* open a file whose title is no UTF-8; from 19 on it does so by itself."""
    return {"metadata_errors": "ignore"} if int(version.partition(".")[0]) < 19 else {}  # noqa: PLR2004 - see above


def _open(path: Path, below: Path | None = None) -> IO[bytes]:
    """Open *path* if it is a regular file with something in it; a named pipe must not make us wait."""
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags) if below is None else open_below(path, flags, root=below)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be opened: {error.strerror}.") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        os.close(descriptor)
        raise ValueError(f"{path.name} is {'empty' if stat.S_ISREG(found.st_mode) else 'not a file'}.")
    return os.fdopen(descriptor, "rb")


def _riff_lacks(path: Path) -> int:
    """Return the bytes a WAV header announces beyond the file's end; the decoder takes what is there in silence."""
    with path.open("rb") as file:
        head, size = file.read(12), file.seek(0, 2)
    announced = int.from_bytes(head[4:8], "little") + 8
    # Programs that write to a pipe cannot know the length and announce the largest there is.
    if not _is_riff_wave(head) or announced >= _UNKNOWN_LENGTH:
        return 0
    return max(0, announced - size)


def _unreadable(path: Path) -> str:
    """Say what is probably the matter with a file that no decoder takes."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        head[:-3].decode("utf-8")
        text = b"\0" not in head
    except UnicodeDecodeError:
        text = False
    if text:
        return f"{path.name} holds text, not sound."
    return f"{path.name} is no audio or video that can be decoded, or its beginning or end is missing."
