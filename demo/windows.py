"""Training windows for the demo Whisper: clips laid out in time, and the tokens they stand for.

A window is only a list of row numbers into one big table of log-mel frames, plus what is to be
added (gain, noise, padding). The accelerator gathers and mixes, so Python stays off the hot path.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from memos import generate
from mlx_whisper.tokenizer import get_tokenizer
from speech import FLOOR, FRAMES, HOP, LEVEL, NOISES, RATE, Chunk, mel_power, noise, written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

TEXT_CTX = 448
PROMPT = TEXT_CTX // 2 - 1
FULL_VOCABULARY = 51_864
PER_SECOND = RATE // HOP
LATEST_START = 50
"""transcribe() lets the first timestamp of a window be at most 1 s: later starts say 1.00."""
_NO_SPEECH_SHARE = 0.9


class Vocabulary:
    """The few token numbers of Whisper's tokenizer that memos need, renumbered from 0."""

    def __init__(self, samples: int = 200_000) -> None:
        """Collect the tokens of many sentences; `unknown` stands for all the others."""
        self.tokenizer = get_tokenizer(multilingual=False, num_languages=99)
        tokenizer = self.tokenizer
        rng = random.Random(0)
        words = {w for _ in range(samples) for w in written(generate(rng).text).split(" ")}
        text = {token for word in words for token in self.full(word)}
        self.special = (
            *(tokenizer.eot, tokenizer.sot, tokenizer.sot_prev),
            *(tokenizer.no_timestamps, tokenizer.no_speech),
        )
        self.used = (
            *sorted(text),
            *self.special,
            *range(tokenizer.timestamp_begin, tokenizer.timestamp_begin + 1501),
        )
        number = {token: index for index, token in enumerate(self.used)}
        self.number = number
        self.unknown = len(self.used)
        self.size = len(self.used) + 1
        self.eot, self.sot, self.previous, self.no_timestamps, self.no_speech = (
            number[token] for token in self.special
        )
        self.time = number[tokenizer.timestamp_begin]

    @cache  # noqa: B019 - one vocabulary lives as long as the program
    def full(self, word: str) -> tuple[int, ...]:
        """Give Whisper's tokens of one word in the middle of a sentence."""
        return tuple(self.tokenizer.encode(" " + word))

    def word(self, word: str) -> list[int]:
        """Give our tokens of one word."""
        return [self.number.get(token, self.unknown) for token in self.full(word)]


@dataclass
class Clip:
    """One sentence in the table of frames."""

    row: int
    length: int
    words: list[list[int]]
    spans: tuple[tuple[float, float], ...]


@dataclass
class Bank:
    """All clips: frames, phonemes, and where each voice's clips are. Row 0 is silence."""

    mel: NDArray[np.float16]
    phones: NDArray[np.uint8]
    names: list[str]
    clips: list[Clip]
    voices: dict[str, list[Clip]]
    noise_row: int


def make_bank(chunks: Iterable[Chunk], vocabulary: Vocabulary) -> Bank:
    """Join the workers' chunks, and add the noises."""
    table: dict[str, int] = {}
    mels = [np.full((1, 80), np.log10(FLOOR), np.float16)]
    labels = [np.zeros(1, np.uint8)]
    clips: list[Clip] = []
    voices: dict[str, list[Clip]] = {}
    row = 1
    for chunk in chunks:
        numbers = [0] + [table.setdefault(name, len(table) + 1) for name in chunk.names]
        labels.append(np.array(numbers, np.uint8)[chunk.phones])
        mels.append(chunk.mel)
        for text, voice, length, spans in zip(chunk.texts, chunk.voices, chunk.lengths, chunk.words, strict=True):
            clip = Clip(row, length, [vocabulary.word(w) for w in text.split(" ")], spans)
            clips.append(clip)
            voices.setdefault(voice, []).append(clip)
            row += length
    for seed, kind in enumerate(NOISES):
        power = mel_power(LEVEL * noise(kind, FRAMES * HOP, seed))
        mels.append(np.log10(np.maximum(power, FLOOR)).astype(np.float16))
        labels.append(np.zeros(FRAMES, np.uint8))
    return Bank(np.concatenate(mels), np.concatenate(labels), ["", *table], clips, voices, row)


@dataclass
class Window:
    """One window being laid out: rows per frame, and the tokens with their spans."""

    rows: NDArray[np.int32]
    gain: NDArray[np.float32]
    end: int = 0
    tokens: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    noisy: float = -20.0
    noise: int = 0
    shift: int = 0
    pad_from: int = FRAMES
    louder: float = 0.0
    tilt: float = 0.0
    silent: bool = False

    def say(self, token: int, span: tuple[int, int] = (-1, -1)) -> None:
        """Append a token and the encoder positions it is heard at."""
        self.tokens.append(token)
        self.spans.append(span)


class Composer:
    """Lays out random windows and joins them to batches."""

    def __init__(self, bank: Bank, vocabulary: Vocabulary, seed: int) -> None:
        """Start a reproducible stream of windows."""
        self.bank = bank
        self.vocabulary = vocabulary
        self.rng = random.Random(seed)
        self._names = list(bank.voices)

    def _pool(self) -> list[Clip]:
        if self.rng.random() < 0.1:
            return self.bank.clips
        return self.bank.voices[self.rng.choice(self._names)]

    def _lead(self) -> int:
        return round(PER_SECOND * self.rng.choice((0.0, self.rng.uniform(0, 0.3), self.rng.uniform(0, 2.5))))

    def _gap(self) -> int:
        longest = 2.5 if self.rng.random() < 0.15 else 0.9
        return round(PER_SECOND * self.rng.uniform(0.1, longest))

    def _place(self, window: Window, clip: Clip, at: int, gain: float) -> None:
        stop = min(at + clip.length, len(window.rows))
        window.rows[at:stop] = np.arange(clip.row, clip.row + stop - at)
        window.gain[at:stop] = gain

    def _stamp(self, window: Window, frame: int, *, first: bool = False) -> None:
        place = min(round(frame / 2), 1500)
        shown = min(place, LATEST_START) if first else place
        window.say(self.vocabulary.time + shown, (place - 3, place + 3))

    def _words(self, window: Window, clip: Clip, at: int) -> None:
        """Say the words that end inside the window."""
        for tokens, (start, end) in zip(clip.words, clip.spans, strict=True):
            first, last = at + start * PER_SECOND, at + end * PER_SECOND
            if last <= len(window.rows):
                for token in tokens:
                    window.say(token, (int(first / 2), int(last / 2) + 1))

    def _sentence(self, window: Window, clip: Clip, at: int, *, first: bool, stamps: bool) -> None:
        """Say one sentence: whole, or only its start when the window's end cuts it."""
        cut = at + clip.length > len(window.rows) + 2
        if not stamps:
            self._words(window, clip, at)
            return
        self._stamp(window, at, first=first)
        if cut and not first:
            return
        self._words(window, clip, at)
        if not cut:
            self._stamp(window, at + clip.length)

    def _speech(self, window: Window, *, stamps: bool) -> None:
        frames, rng = len(window.rows), self.rng
        pool = self._pool()
        at = self._lead()
        if rng.random() < 0.25:  # the end of the sentence before, as windows after a seek have it
            tail, keep = rng.choice(pool), rng.randint(1, 12)
            window.rows[:keep] = np.arange(tail.row + tail.length - keep, tail.row + tail.length)
            at = max(at, keep + 8)
        wanted = 99 if frames == FRAMES and rng.random() < 0.6 else rng.randint(1, 6)
        if frames < FRAMES:
            wanted = rng.randint(1, 2)
        base = 0.0
        for number in range(wanted):
            clip = rng.choice(pool)
            if at >= frames - 4 or (frames < FRAMES and at + clip.length > frames):
                break
            self._place(window, clip, at, base + rng.uniform(-0.3, 0.3))
            self._sentence(window, clip, at, first=number == 0, stamps=stamps)
            window.end = min(frames, at + clip.length)
            at += clip.length + self._gap()
        window.silent = window.end == 0
        if window.silent and stamps:
            window.say(self.vocabulary.time)

    def _surroundings(self, window: Window) -> None:
        rng, frames = self.rng, len(window.rows)
        window.gain += rng.uniform(-2.5, 1.0) if rng.random() < 0.7 else rng.uniform(-0.5, 0.5)
        window.tilt = rng.uniform(-0.5, 0.5) if rng.random() < 0.5 else 0.0
        if rng.random() < 0.65:
            level = float(window.gain.max()) - rng.uniform(1.2, 5.0)
            window.noisy = level - (1.0 if window.silent and rng.random() < 0.5 else 0.0)
        window.noise = self.bank.noise_row + FRAMES * rng.randrange(len(NOISES))
        window.shift = rng.randrange(FRAMES)
        window.louder = rng.uniform(0, 0.6) if rng.random() < 0.4 else 0.0
        if window.end < frames and rng.random() < 0.75:
            tail = rng.choice((0, rng.randint(0, 30), rng.randint(0, 200), rng.randint(0, 3000)))
            window.pad_from = min(frames, window.end + tail)

    def _prompt(self) -> list[int]:
        """Make the text before, with or without its timestamps."""
        rng, vocabulary = self.rng, self.vocabulary
        tokens: list[int] = []
        stamps, at = rng.random() < 0.85, 0
        for _ in range(rng.choice((1, 2, 4, 8, 10, 12, 14))):
            clip = rng.choice(self.bank.clips)
            end = at + clip.length // 2
            words = [token for word in clip.words for token in word]
            if stamps and end <= 1500:
                words = [vocabulary.time + at, *words, vocabulary.time + end]
            tokens += words
            at = end + rng.randint(5, 45) if end < 1400 else 0
        if rng.random() < 0.2:
            tokens = [vocabulary.unknown if rng.random() < 0.1 else t for t in tokens]
        return [vocabulary.previous, *tokens[-PROMPT:]]

    def window(self, frames: int) -> tuple[Window, list[int], list[int]]:
        """Lay out one window; returns it with its prompt and the tokens to be said."""
        vocabulary, rng = self.vocabulary, self.rng
        window = Window(np.zeros(frames, np.int32), np.zeros(frames, np.float32), pad_from=frames)
        stamps = rng.random() > 0.12
        if rng.random() < 0.04:
            window.silent = True
            if stamps:
                window.say(vocabulary.time)
        else:
            self._speech(window, stamps=stamps)
        self._surroundings(window)
        window.say(vocabulary.eot)
        prompt = self._prompt() if rng.random() < (0.6 if frames == FRAMES else 0.2) else []
        start = [vocabulary.sot] if stamps else [vocabulary.sot, vocabulary.no_timestamps]
        return window, [*prompt, *start], window.tokens

    def batch(self, size: int, frames: int) -> dict[str, NDArray[Any]]:
        """Make one batch as arrays."""
        made = [self.window(frames) for _ in range(size)]
        windows = [window for window, _, _ in made]
        longest = max(len(start) + len(said) for _, start, said in made) - 1
        longest = -(-longest // 16) * 16
        inputs = np.full((size, longest), self.vocabulary.eot, np.int32)
        targets = np.full((size, longest), self.vocabulary.eot, np.int32)
        weights = np.zeros((size, longest), np.float32)
        spans = np.full((size, longest, 2), -1, np.int32)
        for index, (window, start, said) in enumerate(made):
            tokens = [*start, *said]
            first, last = len(start) - 1, len(tokens) - 1
            inputs[index, :last] = tokens[:-1]
            targets[index, first:last] = said
            weights[index, first:last] = 1
            spans[index, first:last] = window.spans
            if window.silent and self.rng.random() < _NO_SPEECH_SHARE:
                targets[index, start.index(self.vocabulary.sot)] = self.vocabulary.no_speech
                weights[index, start.index(self.vocabulary.sot)] = 1
        scalars = ("noisy", "noise", "shift", "pad_from", "louder", "tilt")
        return {
            "rows": np.stack([window.rows for window in windows]),
            "gain": np.stack([window.gain for window in windows]),
            "inputs": inputs,
            "targets": targets,
            "weights": weights,
            "spans": spans,
            **{key: np.array([getattr(window, key) for window in windows]) for key in scalars},
        }
