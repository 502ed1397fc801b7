"""Synthetic speech for the demo Whisper: espeak-ng voices, noise, log-mel features.

The espeak-ng *library* is used, not the program, because it also reports when each word and each
phoneme is spoken. That alignment is what lets so small a model be trained in so short a time. No
MLX in here, so that worker processes stay light.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from memos import sample
from scipy.signal import resample_poly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RATE = 16_000
HOP = 160
N_FFT = 400
N_MELS = 80
FRAMES = 3000
"""Mel frames of a Whisper window: 30 s."""
LEVEL = 0.1
"""RMS every clip is brought to before gain is applied."""
FLOOR = 1e-10
ACCENTS = (
    *("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
    *("en-029", "en-us-nyc"),
)
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
VOICES = tuple(accent + variant for variant in VARIANTS for accent in ACCENTS)
NOISES = ("white", "pink", "brown", "hum")
SPEEDS = (130, 210)
PITCHES = (25, 75)
RANGES = (35, 65)
_RATE, _PITCH, _RANGE = 1, 3, 4
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_WORD, _PHONEME = 1, 7
_UTF8 = 1
_LIBRARIES = (
    *("libespeak-ng.so.1", "libespeak-ng.1.dylib", "libespeak-ng.dylib", "espeak-ng.dll"),
    *("/opt/homebrew/lib/libespeak-ng.dylib", "/usr/local/lib/libespeak-ng.dylib"),
)


class SpeechError(RuntimeError):
    """Speech cannot be synthesised on this machine."""


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken."""

    name: str = "en-us"
    speed: int = 165
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence at 16 kHz and its `written` text, with the spans of words and phonemes in seconds."""

    text: str
    voice: str
    audio: Floats
    words: tuple[tuple[float, float], ...]
    phones: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.audio) / RATE


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _load_library() -> ctypes.CDLL:
    for name in (*_LIBRARIES, ctypes.util.find_library("espeak-ng") or ""):
        if name:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    message = (
        "espeak-ng is missing: install it (Debian: apt-get install espeak-ng, "
        "macOS: brew install espeak-ng) and run this again"
    )
    raise SpeechError(message)


class Speaker:
    """The espeak-ng library in this process."""

    def __init__(self) -> None:
        """Load the library; raises SpeechError when it is not installed."""
        self._lib = _load_library()
        self._source_rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self._source_rate <= 0:
            message = "espeak-ng was found, but not its voice data (espeak-ng-data)"
            raise SpeechError(message)
        self._audio: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, float]] = []
        self._phones: list[tuple[str, float]] = []
        self._callback = _Callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: object, count: int, events: ctypes.Array[_Event]) -> int:
        if wave and count > 0:
            self._audio.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while (event := events[index]).type:
            when = event.sample / self._source_rate
            if event.type == _WORD:
                self._words.append((event.text_position - 1, when))
            elif event.type == _PHONEME:
                self._phones.append((event.id.string.decode("utf-8", "replace"), when))
            index += 1
        return 0

    def say(self, text: str, voice: Voice) -> Utterance:
        """Speak one sentence; silence at both ends is cut off."""
        self._audio, self._words, self._phones = [], [], []
        if self._lib.espeak_SetVoiceByName(voice.name.encode()):
            message = f"espeak-ng has no voice {voice.name!r}"
            raise SpeechError(message)
        for parameter, value in (
            (_RATE, voice.speed),
            (_PITCH, voice.pitch),
            (_RANGE, voice.range),
        ):
            self._lib.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        wave = np.concatenate(self._audio).astype(np.float32) / 32768
        audio = resample_poly(wave, 320, 441).astype(np.float32)
        return self._cut(text, voice.name, audio)

    def _cut(self, text: str, voice: str, audio: Floats) -> Utterance:
        loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
        first, last = int(loud[0]), int(loud[-1]) + 1
        audio = audio[first:last]
        audio = audio * np.float32(LEVEL / max(1e-6, float(np.sqrt(np.mean(audio**2)))))
        shift, end = first / RATE, (last - first) / RATE
        phones = [(name, min(max(0.0, when - shift), end)) for name, when in self._phones]
        spans = self._spans(text, shift, end)
        return Utterance(written(text), voice, audio, spans, tuple(phones))

    def _spans(self, text: str, shift: float, end: float) -> tuple[tuple[float, float], ...]:
        """Give each printed word its span; words spoken as one ("of the") share theirs."""
        starts, position = [], 0
        for word in text.split(" "):
            inside = [when for at, when in self._words if position <= at < position + len(word)]
            starts.append(min(max(0.0, inside[0] - shift), end) if inside else None)
            position += len(word) + 1
        spans: list[tuple[float, float]] = []
        for index, start in enumerate(starts):
            later = [other for other in starts[index + 1 :] if other is not None]
            if start is None:
                spans.append(spans[-1] if spans else (0.0, later[0] if later else end))
            else:
                spans.append((start, later[0] if later else end))
        return tuple(spans)


@cache
def speaker() -> Speaker:
    """Return this process's speaker."""
    return Speaker()


def written(text: str) -> str:
    """Give a sentence as Whisper prints it: its decoder never writes a colon, so "3.30 pm"."""
    return text.replace(":", ".")


def random_voice(rng: random.Random, name: str | None = None) -> Voice:
    """Pick how to speak, of all voices or of one."""
    return Voice(
        name or rng.choice(VOICES),
        rng.randint(*SPEEDS),
        rng.randint(*PITCHES),
        rng.randint(*RANGES),
    )


@cache
def _filters() -> Floats:
    spec = importlib.util.find_spec("mlx_whisper")
    if spec is None or spec.origin is None:
        message = "mlx_whisper is not installed"
        raise SpeechError(message)
    with np.load(Path(spec.origin).parent / "assets" / "mel_filters.npz") as arrays:
        return np.asarray(arrays[f"mel_{N_MELS}"], np.float32)


def mel_power(audio: Floats) -> Floats:
    """Mel power of 16 kHz audio, frame by frame, as mlx_whisper computes it (before the log)."""
    padded = np.pad(audio, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: len(audio) // HOP]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, axis=-1)) ** 2
    return (power.astype(np.float32) @ _filters().T).astype(np.float32)


def noise(kind: str, samples: int, seed: int) -> Floats:
    """Make background noise of RMS 1."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(samples).astype(np.float32)
    if kind == "hum":
        times = np.arange(samples, dtype=np.float32) / RATE
        tones = [np.sin(2 * np.pi * 50 * (k + 1) * times) / (k + 1) for k in range(6)]
        white = 0.3 * white + 2 * np.sum(tones, axis=0).astype(np.float32)
    elif kind != "white":
        spectrum = np.fft.rfft(white)
        slope = 0.5 if kind == "pink" else 1.0
        spectrum /= np.maximum(1, np.arange(len(spectrum))) ** slope
        spectrum[: max(1, 40 * samples // RATE)] = 0  # below 40 Hz: nothing a microphone gives
        white = np.fft.irfft(spectrum, samples).astype(np.float32)
    return (white / np.sqrt(np.mean(white**2))).astype(np.float32)


def silence(seconds: float) -> Floats:
    """Make digital silence."""
    return np.zeros(round(seconds * RATE), np.float32)


def dirty(audio: Floats, rng: random.Random, *, snr: float | None, gain_db: float) -> Floats:
    """Add noise at a signal-to-noise ratio in dB (None: no noise), then gain."""
    if snr is not None:
        level = LEVEL * 10 ** (-snr / 20)
        audio = audio + level * noise(rng.choice(NOISES), len(audio), rng.randrange(2**31))
    return np.clip(audio * 10 ** (gain_db / 20), -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Chunk:
    """Training clips of one worker, joined: features, phoneme per frame, texts, word spans."""

    mel: NDArray[np.float16]
    phones: NDArray[np.uint8]
    names: tuple[str, ...]
    lengths: tuple[int, ...]
    texts: tuple[str, ...]
    voices: tuple[str, ...]
    words: tuple[tuple[tuple[float, float], ...], ...]


def _labels(clip: Utterance, frames: int, table: dict[str, int]) -> NDArray[np.uint8]:
    labels = np.zeros(frames, np.uint8)
    for name, when in clip.phones:
        number = 0 if name.startswith("_") else table.setdefault(name, len(table) + 1)
        labels[round(when * RATE / HOP) :] = number
    return labels


def _make_chunk(task: tuple[int, int]) -> Chunk:
    seed, size = task
    rng = random.Random(seed)
    table: dict[str, int] = {}
    mels, labels, clips = [], [], []
    for _ in range(size):
        clip = speaker().say(sample(rng, "train").text, random_voice(rng))
        mel = np.log10(np.maximum(mel_power(clip.audio), FLOOR)).astype(np.float16)
        mels.append(mel)
        labels.append(_labels(clip, len(mel), table))
        clips.append(clip)
    return Chunk(
        np.concatenate(mels),
        np.concatenate(labels),
        tuple(table),
        tuple(len(mel) for mel in mels),
        tuple(clip.text for clip in clips),
        tuple(clip.voice for clip in clips),
        tuple(clip.words for clip in clips),
    )


def chunks(clips: int, workers: int, seed: int, size: int = 100) -> Iterator[Chunk]:
    """Synthesise training clips on several processes; the same for any number of workers."""
    speaker()
    tasks = [(seed * 1_000_003 + number, size) for number in range(-(-clips // size))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_make_chunk, tasks)
