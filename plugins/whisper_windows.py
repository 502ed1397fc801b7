"""What one decoded window means: which pieces of text it has, and how far to go on. Pure.

The rules are those of ``mlx_whisper.transcribe``; one is added: the loop must go forward. There a pair of equal
timestamps at the start of a window, which the decoder's rules allow, means the same window for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

#: Seconds per timestamp token.
PRECISION: Final = 0.02
#: Frames per timestamp token.
STRIDE: Final = 2

#: A window whose temperature was above this does not lead the next one.
HOT: Final = 0.5

# Thresholds of the original: gzip ratio above which a text is a loop, mean log probability below which it is a guess,
# probability of silence above which it is not speech.
_TOO_REPETITIVE: Final = 2.4
_TOO_UNSURE: Final = -1.0
_SILENT: Final = 0.6


class Attempt(NamedTuple):
    """What the decoder gave for one window at one temperature."""

    tokens: Sequence[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class Piece(NamedTuple):
    """A stretch of text within a window."""

    #: Seconds from the window's beginning.
    start: float
    end: float
    tokens: tuple[int, ...]


class Cut(NamedTuple):
    """A window cut up."""

    pieces: list[Piece]
    #: Frames to go on.
    advance: int
    #: Whether the window's last timestamp says that nothing was spoken after it.
    closed: bool


def needs_another(attempt: Attempt) -> bool:
    """Whether to try again at a higher temperature."""
    if attempt.no_speech_prob > _SILENT:
        return False
    return attempt.compression_ratio > _TOO_REPETITIVE or attempt.avg_logprob < _TOO_UNSURE


def is_silent(attempt: Attempt) -> bool:
    """Whether the window has no speech at all."""
    return attempt.no_speech_prob > _SILENT and attempt.avg_logprob <= _TOO_UNSURE


def cut(tokens: Sequence[int], *, size: int, first_timestamp: int) -> Cut:
    """Cut the *tokens* of a window of *size* frames; *first_timestamp* is the token of 0.00 s."""
    stamped = [token >= first_timestamp for token in tokens]
    closed = stamped[-2:] == [False, True]
    ends = [at for at in range(1, len(tokens)) if stamped[at - 1] and stamped[at]]
    if not ends:
        return Cut([Piece(0.0, _end(tokens, size, first_timestamp), tuple(tokens))], size, closed)
    if closed:
        ends.append(len(tokens))
    pieces = []
    for begin, end in zip([0, *ends], ends, strict=False):
        part = tuple(tokens[begin:end])
        start_at, end_at = part[0] - first_timestamp, part[-1] - first_timestamp
        pieces.append(Piece(start_at * PRECISION, end_at * PRECISION, part))
    # What follows the last pair is unfinished: it is decoded again with the next window.
    advance = size if closed else (tokens[ends[-1] - 1] - first_timestamp) * STRIDE
    return Cut(pieces, advance if advance > 0 else size, closed)


def _end(tokens: Sequence[int], size: int, first_timestamp: int) -> float:
    """Return where the only piece of a window ends, seconds."""
    stamps = [token for token in tokens if token >= first_timestamp]
    if stamps and stamps[-1] != first_timestamp:
        return (stamps[-1] - first_timestamp) * PRECISION
    return size / 100


def temperatures(first: float) -> tuple[float, ...]:
    """Return the temperatures to try, from *first* up to 1 in steps of 0.2."""
    steps = max(0, int((1.0 - first) / 0.2 + 1e-6))
    return tuple(round(first + 0.2 * n, 3) for n in range(steps + 1))
