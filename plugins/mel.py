"""The log-mel spectrogram of a whole recording, computed piece by piece.

The same numbers as ``mlx_whisper.audio.log_mel_spectrogram`` with 30 s of padding, whose intermediate arrays for one
hour take more than a gigabyte at once; here it is 32 kB a second of sound and nothing else.
"""

from __future__ import annotations

from typing import Any, Final

#: Samples per frame (10 ms), and per transform.
HOP: Final = 160
N_FFT: Final = 400
#: Frames in a window of 30 s.
WINDOW: Final = 3000

_SILENCE: Final = -10.0  # log10 of the floor of 1e-10
_RANGE: Final = 8.0  # what lies further below the loudest frame is clamped


class MelBuilder:
    """Takes samples, gives a `Mel`."""

    def __init__(self, n_mels: int) -> None:
        from mlx_whisper.audio import hanning, mel_filters

        self._filters = mel_filters(n_mels)
        self._hanning = hanning(N_FFT)
        self._rest: Any = None
        self._frames: list[Any] = []
        self._samples = 0

    def add(self, samples: Any) -> None:
        """Take the next float32 *samples*, at least 201 at first."""
        import numpy as np

        self._samples += len(samples)
        if self._rest is None:
            # The first frame is centred on the first sample: what lies before it is mirrored.
            start = samples[: N_FFT // 2 + 1]
            start = np.pad(start, (0, N_FFT // 2 + 1 - len(start)))
            self._rest = start[1:][::-1].astype(np.float32)
        buffer = np.concatenate([self._rest, samples])
        count = max(0, (len(buffer) - N_FFT) // HOP + 1)
        if count:
            self._frames.append(self._transform(buffer[: (count - 1) * HOP + N_FFT], count))
        self._rest = buffer[count * HOP :]

    def finish(self) -> Mel:
        """Return the spectrogram; frames that still hold sound but lie beyond its end are kept too."""
        import numpy as np

        content = self._samples // HOP
        missing = content + 3 - sum(map(len, self._frames))
        if missing > 0:
            buffer = np.zeros((missing - 1) * HOP + N_FFT, np.float32)
            rest = self._rest[: len(buffer)]
            buffer[: len(rest)] = rest
            self._frames.append(self._transform(buffer, missing))
        return Mel(np.concatenate(self._frames), content)

    def _transform(self, samples: Any, count: int) -> Any:
        """Return the log10 of the mel energies of *count* frames as a NumPy array."""
        import mlx.core as mx
        import numpy as np

        strided = mx.as_strided(mx.array(samples), shape=[count, N_FFT], strides=[HOP, 1])
        energies = mx.fft.rfft(strided * self._hanning).abs().square() @ self._filters.T
        return np.array(mx.maximum(energies, 1e-10).log10())


class Mel:
    """A finished spectrogram."""

    def __init__(self, frames: Any, content: int) -> None:
        self._frames = frames
        self._floor = float(frames.max()) - _RANGE
        #: Frames of the recording itself.
        self.content = content

    def window(self, seek: int, size: int) -> Any:
        """Return the *size* frames from *seek* as a window of 3000, filled up with zeros as Whisper does."""
        import mlx.core as mx

        scaled = self._scaled(self._frames[seek : seek + size])
        return mx.pad(scaled, [(0, WINDOW - size), (0, 0)]) if size < WINDOW else scaled

    def beginning(self) -> Any:
        """Return the first 30 s, filled up with silence: what the language is detected from."""
        import mlx.core as mx
        import numpy as np

        first = self._frames[:WINDOW]
        padding = np.full((WINDOW - len(first), first.shape[1]), _SILENCE, np.float32)
        return mx.array(self._scaled(np.concatenate([first, padding])))

    def _scaled(self, frames: Any) -> Any:
        import mlx.core as mx

        return (mx.maximum(mx.array(frames), self._floor) + 4.0) / 4.0
