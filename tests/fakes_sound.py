"""Makes sound files for tests."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def tone(seconds: float, *, rate: int = 16_000, pitch: float = 440.0) -> np.ndarray:
    """Return a tone as 16-bit samples."""
    at = np.arange(int(seconds * rate)) / rate
    return (np.sin(2 * np.pi * pitch * at) * 12_000).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, *, rate: int = 16_000, channels: int = 1) -> Path:
    """Write *samples* as a WAV file, the same in each channel."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.repeat(samples, channels).tobytes())
    return path


def encode(path: Path, samples: np.ndarray, codec: str, *, rate: int = 16_000, picture: bool = False) -> Path:
    """Write *samples* with *codec* into the container that the suffix names, with a *picture* track if asked."""
    import av

    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=rate, layout="mono") if samples.size else None
        video = container.add_stream("mpeg4", rate=5) if picture else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.rate = rate
            resampler = av.AudioResampler(format=sound.codec_context.format, layout="mono", rate=rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(sound.encode(part))
            container.mux(sound.encode())
    return path
