"""The log-mel spectrogram of one window, from its samples.

The same numbers as ``mlx_whisper.audio.log_mel_spectrogram`` gives for these frames of the recording, but for one
thing: there everything more than eight decades below the loudest frame *of the recording* is clamped, which has to be
known before the first window; here the loudest frame *of the window* counts. That is how Whisper was trained, on pieces
of half a minute, and only what is 80 dB below the loudest sound is touched at all.
"""

from __future__ import annotations

from typing import Any, Final

#: Samples per frame (10 ms), and per transform.
HOP: Final = 160
N_FFT: Final = 400
#: Samples before a frame's place, and after it, that it looks at.
REACH: Final = N_FFT // 2
#: Frames in a window of 30 s.
WINDOW: Final = 3000

_RANGE: Final = 8.0  # what lies further below the loudest frame is clamped


def window(samples: Any, *, before: int, size: int, n_mels: int) -> Any:
    """Return (3000, *n_mels*) for *size* frames, filled up with zeros as Whisper does.

    The 16-bit *samples* begin *before* samples ahead of the first frame's place: `REACH`, or 0 at the recording's
    beginning, where what lies before it is mirrored. Where they end too early silence is assumed.
    """
    import mlx.core as mx

    log = _logarithms(_around(samples, before, size), size, n_mels)
    scaled = (mx.maximum(log, log.max() - _RANGE) + 4.0) / 4.0
    return mx.pad(scaled, [(0, WINDOW - size), (0, 0)]) if size < WINDOW else scaled


def _around(samples: Any, before: int, size: int) -> Any:
    """Return exactly the float32 samples that *size* frames look at, as an MLX array."""
    import mlx.core as mx
    import numpy as np

    wanted = (size - 1) * HOP + N_FFT
    if not before:
        start = samples[: REACH + 1]
        start = np.pad(start, (0, REACH + 1 - len(start)))
        samples = np.concatenate([start[1:][::-1], samples[: wanted - REACH]])
    samples = samples[:wanted]
    if len(samples) < wanted:
        samples = np.pad(samples, (0, wanted - len(samples)))
    # 16 bits and a division are what Whisper's own loader does: the same file gives the same samples.
    return mx.array(samples).astype(mx.float32) / 32768.0


def _logarithms(samples: Any, size: int, n_mels: int) -> Any:
    import mlx.core as mx
    from mlx_whisper.audio import hanning, mel_filters

    strided = mx.as_strided(samples, shape=[size, N_FFT], strides=[HOP, 1])
    energies = mx.fft.rfft(strided * hanning(N_FFT)).abs().square() @ mel_filters(n_mels).T
    return mx.maximum(energies, 1e-10).log10()
