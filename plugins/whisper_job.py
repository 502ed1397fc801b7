"""One recording being transcribed: decode a piece, or decode a window, until it is done."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from plugins import whisper_windows as windows
from plugins.audio import RATE, Sound
from plugins.mel import WINDOW, Mel, MelBuilder
from plugins.runtime import Event
from plugins.whisper_request import WhisperRequest

# Windows a recording may take beyond one a second: with more it creeps, and each then moves on by its whole length.
_SPARE_WINDOWS: Final = 20


class Transcription:
    """The state of one request. Each `step` does one bounded piece of work and returns what to tell."""

    def __init__(
        self,
        request_id: str,
        request: WhisperRequest,
        model: Any,
        *,
        half: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.id = request_id
        self.request = request
        self._model = model
        self._half = half
        self._clock = clock
        self._temperatures = windows.temperatures(request.temperature)
        self._notes: list[str] = []
        self._segments: list[dict[str, Any]] = []
        self._tokens: list[int] = []
        self._prompt_from = 0
        self._seek = 0
        self._windows = 0
        self._attempt = 0
        self._features: Any = None
        self._last_speech = 0.0
        self._mel: Mel
        self._tokenizer: Any = None
        self._initial = 0
        self._began = clock()
        self._total: float | None = None
        self._work = self._run()

    def step(self) -> list[Event]:
        """Do the next piece of work; the last one's events end with ``done``.

        Raises:
            ValueError: the file cannot be used; the message says why.

        """
        return next(self._work)

    def close(self) -> None:
        """Let go of an unfinished file."""
        self._work.close()

    def _run(self) -> Generator[list[Event], None, None]:
        """The whole job; each yield is the end of a piece of work."""
        yield from self._listen()
        self._prepare()
        while self._seek < self._mel.content:
            yield self._window()
        yield [(self.id, "done", self._result())]

    # -- sound ------------------------------------------------------------------------------------------------------

    def _listen(self) -> Iterator[list[Event]]:
        self._began = self._clock()
        sound, builder = Sound(self.request.file, below=self.request.below), MelBuilder(self._model.dims.n_mels)
        self._total = sound.duration
        try:
            for piece in sound.pieces():
                builder.add(piece)
                yield [self._progress()]
        finally:
            sound.close()
        self._total = sound.samples / RATE
        self._notes += sound.notes
        self._mel = builder.finish()

    def _prepare(self) -> None:
        from mlx_whisper.tokenizer import get_tokenizer

        language = self.request.language or self._detect()
        self._language = language
        self._tokenizer = get_tokenizer(
            self._model.is_multilingual,
            num_languages=self._model.num_languages,
            language=language,
            task=self.request.task,
        )
        if self.request.initial_prompt:
            self._tokens = list(self._tokenizer.encode(" " + self.request.initial_prompt.strip()))
            self._initial = len(self._tokens)

    def _detect(self) -> str:
        if not self._model.is_multilingual:
            return "en"
        _, probabilities = self._model.detect_language(self._cast(self._mel.beginning()))
        return str(max(probabilities, key=probabilities.get))

    # -- windows ----------------------------------------------------------------------------------------------------

    def _window(self) -> list[Event]:
        """Decode the window at hand once; a doubtful result is tried again in the next step."""
        size = min(WINDOW, self._mel.content - self._seek)
        mel = self._cast(self._mel.window(self._seek, size))
        attempt = self._decode(self._features if self._features is not None else mel)
        if windows.needs_another(attempt) and self._attempt + 1 < len(self._temperatures):
            self._attempt += 1
            return []
        self._attempt, self._features = 0, None
        self._windows += 1
        before = len(self._segments)
        if windows.is_silent(attempt):
            self._seek += size
        else:
            self._take(attempt, mel, size)
        new = self._segments[before:]
        return [*((self.id, "segment", segment) for segment in new), self._progress()]

    def _decode(self, mel: Any) -> windows.Attempt:
        import mlx.core as mx
        from mlx_whisper.decoding import DecodingOptions, decode

        temperature = self._temperatures[self._attempt]
        # Drawn anew for each attempt, so that what others transcribe meanwhile changes nothing.
        mx.random.seed(self._seek * len(self._temperatures) + self._attempt)
        options = DecodingOptions(
            task=self.request.task,
            language=self._language,
            temperature=temperature,
            prompt=self._tokens[self._prompt_from :],
            fp16=self._half,
        )
        result = decode(self._model, mel, options)
        self._features = result.audio_features  # the encoder's work need not be done again for another temperature
        return windows.Attempt(
            tokens=[int(token) for token in result.tokens],
            temperature=temperature,
            avg_logprob=float(result.avg_logprob),
            compression_ratio=float(result.compression_ratio),
            no_speech_prob=float(result.no_speech_prob),
        )

    def _take(self, attempt: windows.Attempt, mel: Any, size: int) -> None:
        """Keep what a window says and go on."""
        cut = windows.cut(attempt.tokens, size=size, first_timestamp=self._tokenizer.timestamp_begin)
        found = [self._segment(piece) for piece in cut.pieces]
        advance = cut.advance
        if self.request.word_timestamps:
            advance = self._align(found, mel, size, cut)
        if self._windows > self._mel.content // 100 + _SPARE_WINDOWS:
            advance = size
        self._seek += advance
        kept = [one for one in found if one["start"] != one["end"] and one["text"].strip()]
        for one in kept:
            self._tokens += one["tokens"]
            self._segments.append(_public(one, words=self.request.word_timestamps))
        if not self.request.condition_on_previous_text or attempt.temperature > windows.HOT:
            self._prompt_from = len(self._tokens)

    def _segment(self, piece: windows.Piece) -> dict[str, Any]:
        """Return *piece* as mlx_whisper's timing wants it."""
        offset = self._seek / 100
        text = [token for token in piece.tokens if token < self._tokenizer.eot]
        return {
            "seek": self._seek,
            "start": offset + piece.start,
            "end": offset + piece.end,
            "text": self._tokenizer.decode(text),
            "tokens": list(piece.tokens),
        }

    def _align(self, found: list[dict[str, Any]], mel: Any, size: int, cut: windows.Cut) -> int:
        """Give each segment its words; return the frames to go on, which end with the last word."""
        timing = importlib.import_module("mlx_whisper.timing")  # two seconds of numba and scipy, only when asked for
        timing.add_word_timestamps(
            segments=found,
            model=self._model,
            tokenizer=self._tokenizer,
            mel=mel,
            num_frames=size,
            last_speech_timestamp=self._last_speech,
        )
        ends = [float(word["end"]) for one in found for word in one["words"]]
        self._last_speech = ends[-1] if ends else float(found[-1]["end"])
        to_last_word = round(self._last_speech * 100) - self._seek
        return to_last_word if not cut.closed and to_last_word > 0 else cut.advance

    # -- telling ----------------------------------------------------------------------------------------------------

    def _cast(self, mel: Any) -> Any:
        import mlx.core as mx

        return mel.astype(mx.float16) if self._half else mel

    def _progress(self) -> Event:
        done = self._seek / 100 if self._total is None else min(self._seek / 100, self._total)
        return self.id, "progress", {"done": round(done, 2), "total": self._total and round(self._total, 2)}

    def _result(self) -> dict[str, Any]:
        seconds = self._clock() - self._began
        duration = self._total or 0.0
        return {
            "text": self._tokenizer.decode(self._tokens[self._initial :]).strip(),
            "language": self._language,
            "duration": round(duration, 3),
            "segments": self._segments,
            "realtime_factor": round(duration / seconds, 2) if seconds > 0 else 0.0,
            "notes": self._notes,
        }


def _public(segment: Mapping[str, Any], *, words: bool) -> dict[str, Any]:
    """Return what is told of a segment: plain floats, NumPy's are no JSON."""
    shown = {
        "start": round(float(segment["start"]), 3),
        "end": round(float(segment["end"]), 3),
        "text": segment["text"].strip(),
    }
    return {**shown, "words": _plain_words(segment["words"])} if words else shown


def _plain_words(words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "word": str(one["word"]),
            "start": round(float(one["start"]), 3),
            "end": round(float(one["end"]), 3),
            "probability": round(float(one["probability"]), 4),
        }
        for one in words
    ]
