"""One recording being transcribed: which of its windows can be decoded now, and what their texts amount to.

Windows that were cut from each other are decoded in any order, and told in the order of time. A checkpoint says up to
where everything was told; what an earlier attempt told is not decoded again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from plugins import whisper_windows as windows
from plugins.mel import HOP, WINDOW
from plugins.runtime import Event
from plugins.whisper_plan import Mark, Plan, Stretch
from plugins.whisper_reader import Reader, Turn
from plugins.whisper_request import WhisperRequest
from plugins.whisper_words import Aligner, public

#: Windows a recording may take beyond one a second: with more it creeps, and each then moves on by its whole length.
_SPARE_WINDOWS: Final = 20
#: Frames that are worth a window of their own after a text that ended before its window did.
_LEAST_REST: Final = 20


@dataclass(eq=False)
class Clip:
    """A part of the recording that does not depend on the text before it, as far as it has come."""

    #: Where to go on once it was told; for one without an end it is set when its window is done.
    mark: Mark
    segments: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    last_speech: float = 0.0
    windows: int = 0


@dataclass(eq=False)
class Window:
    """One window on its way to its text."""

    job: Transcription
    clip: Clip
    stretch: Stretch
    #: The encoded sound, once it is: for another temperature it need not be done again.
    features: Any = None
    attempt: int = 0

    @property
    def temperature(self) -> float:
        """Return the temperature of this attempt."""
        return self.job.temperatures[self.attempt]

    @property
    def seed(self) -> int:
        """Return a number of this attempt's own, so that what others transcribe meanwhile changes nothing."""
        return self.stretch.seek * len(self.job.temperatures) + self.attempt


class Transcription:
    """The state of one request."""

    def __init__(
        self,
        request_id: str,
        request: WhisperRequest,
        model: Any,
        *,
        heard: Callable[[], None] = lambda: None,
        turn: Turn = nullcontext,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.id = request_id
        self.request = request
        self.temperatures = windows.temperatures(request.temperature)
        #: The language's code; None until it was detected.
        self.language = request.language or (None if model.is_multilingual else "en")
        self._model = model
        self._heard = heard
        self._turn = turn
        self._clock = clock
        self._aligner = Aligner(model) if request.word_timestamps else None
        self._plan: Plan | None = None
        self._clips: deque[Clip] = deque()
        self._done: set[Clip] = set()
        self._ready: deque[Window] = deque()
        self._tokenizer: Any = None
        self._segments: list[dict[str, Any]] = []
        self._texts: list[str] = []
        #: What leads the next window, with previous text.
        self._context: list[int] = []
        self._last_speech = 0.0
        #: Frames: up to where everything was told, and from where on by this attempt.
        self._at = self._since = 0
        self._windows = 0
        self._restored = False
        self._began = 0.0

    # -- windows out ------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether its file is being read."""
        return self._plan is not None

    def begin(self) -> None:
        """Start to read the file."""
        self._began = self._clock()
        resume = self.request.resume
        frame, digest = (resume.frame, resume.digest) if resume else (0, "")
        reader = Reader(
            self.request.file,
            below=self.request.below,
            skip=frame * HOP,
            digest=digest,
            heard=self._heard,
            turn=self._turn,
        )
        self._plan = Plan(reader, cutting=not self.request.condition_on_previous_text, at=frame)

    def ready(self, wanted: int) -> Sequence[Window]:
        """Return the windows that can be decoded now, about *wanted* if there are so many, earliest first.

        Raises:
            ValueError: the file cannot be used; the message says why.

        """
        plan = self._plan
        if plan is None:
            return self._ready
        while len(self._ready) < wanted and (stretch := plan.next()) is not None:
            clip = Clip(plan.mark)
            self._clips.append(clip)
            self._ready.append(Window(self, clip, stretch))
        if not self._restored and plan.resumed is not None:
            self._restore(same=plan.resumed)
        return self._ready

    def take(self, window: Window) -> None:
        """Note that *window* is being worked on."""
        self._ready.remove(window)

    def back(self, window: Window) -> None:
        """Put *window* back: it comes next."""
        self._ready.appendleft(window)

    @property
    def finished(self) -> bool:
        """Whether everything was told but the end."""
        return self._plan is not None and self._plan.finished and not self._clips

    def close(self) -> None:
        """Let go of the file."""
        if self._plan is not None:
            self._plan.close()

    def _restore(self, *, same: bool) -> None:
        """Go on from what an earlier attempt did, if the sound before is the same."""
        self._restored = True
        if not same or self.request.resume is None:
            return
        resume = self.request.resume
        self._since = self._at = resume.frame
        self._context, self._last_speech, self._windows = list(resume.context), resume.last_speech, resume.windows
        self.language = resume.language or self.language

    # -- texts in ---------------------------------------------------------------------------------------------------

    def tokenizer(self) -> Any:
        """Return the tokenizer for its language, which must be known."""
        if self._tokenizer is None:
            from mlx_whisper.tokenizer import get_tokenizer

            self._tokenizer = get_tokenizer(
                self._model.is_multilingual,
                num_languages=self._model.num_languages,
                language=self.language,
                task=self.request.task,
            )
        return self._tokenizer

    def prompt(self) -> tuple[list[int], int]:
        """Return what a window is fed before its text, and where in it the text is said to start."""
        tokenizer = self.tokenizer()
        before = self._context
        if not before and self.request.initial_prompt and not (self._windows and self._conditioned):
            before = list(tokenizer.encode(" " + self.request.initial_prompt.strip()))
            if self._conditioned:
                self._context = before
        most = int(self._model.dims.n_text_ctx) // 2 - 1
        led = [tokenizer.sot_prev, *before[-most:]] if before else []
        return [*led, *tokenizer.sot_sequence], len(led)

    @property
    def _conditioned(self) -> bool:
        return self.request.condition_on_previous_text

    def heard(self, window: Window, attempt: windows.Attempt) -> list[Event]:
        """Take what *window* said; return what can be told. A doubtful text is tried again: see `ready`."""
        if windows.needs_another(attempt) and window.attempt + 1 < len(self.temperatures):
            window.attempt += 1
            self.back(window)
            return []
        clip, stretch = window.clip, window.stretch
        self._windows += 1
        clip.windows += 1
        advance = stretch.size if windows.is_silent(attempt) else self._keep(window, attempt)
        if self._conditioned:
            self._lead(clip, attempt)
        if stretch.closed:
            self._follow(window, advance)
        else:
            self._pass(window, advance)
        return self._tell()

    def _keep(self, window: Window, attempt: windows.Attempt) -> int:
        """Keep what the window says; return the frames to go on."""
        clip, stretch = window.clip, window.stretch
        tokenizer = self.tokenizer()
        cut = windows.cut(attempt.tokens, size=stretch.size, first_timestamp=tokenizer.timestamp_begin)
        found = [self._segment(piece, stretch.seek) for piece in cut.pieces]
        advance = cut.advance
        if self._aligner is not None:
            last = max(clip.last_speech, self._last_speech if self._conditioned else stretch.seek / 100)
            advance, clip.last_speech = self._aligner.align(
                found, tokenizer, window.features, size=stretch.size, seek=stretch.seek, cut=cut, last_speech=last
            )
        for one in found:
            if one["start"] != one["end"] and one["text"].strip():
                clip.tokens += one["tokens"]
                clip.segments.append(public(one, words=self._aligner is not None))
        allowed = WINDOW // 100 if stretch.closed else stretch.seek // 100 + _SPARE_WINDOWS
        creeping = (clip.windows if stretch.closed else self._windows) > allowed
        return stretch.size if creeping else advance

    def _segment(self, piece: windows.Piece, seek: int) -> dict[str, Any]:
        """Return *piece* as mlx_whisper's timing wants it."""
        tokenizer, offset = self.tokenizer(), seek / 100
        text = [token for token in piece.tokens if token < tokenizer.eot]
        return {
            "seek": seek,
            "start": offset + piece.start,
            "end": offset + piece.end,
            "text": tokenizer.decode(text),
            "tokens": list(piece.tokens),
        }

    def _lead(self, clip: Clip, attempt: windows.Attempt) -> None:
        """Let what was said lead the next window, unless it was said at a high temperature."""
        if windows.is_silent(attempt):
            return
        most = int(self._model.dims.n_text_ctx)
        self._context = [] if attempt.temperature > windows.HOT else (self._context + clip.tokens)[-most:]
        self._last_speech = max(self._last_speech, clip.last_speech)

    def _follow(self, window: Window, advance: int) -> None:
        """In a window with an end of its own: decode what is left of it, if there is any sound."""
        stretch = window.stretch
        if stretch.size - advance < _LEAST_REST or stretch.quiet(advance):
            self._done.add(window.clip)
        else:
            self.back(Window(self, window.clip, stretch.rest(advance)))

    def _pass(self, window: Window, advance: int) -> None:
        """In a window without one: the next begins where this text ends, or beyond what is left of the sound."""
        stretch = window.stretch
        rest = stretch.size - advance
        last = stretch.size < WINDOW and not self._conditioned
        if last and rest > 0 and (rest < _LEAST_REST or stretch.quiet(advance)):
            advance = stretch.size
        if self._plan is not None:
            self._plan.go_on(advance)
            window.clip.mark = self._plan.mark
        self._done.add(window.clip)

    # -- telling ----------------------------------------------------------------------------------------------------

    def _tell(self) -> list[Event]:
        """Return what is ready in the order of time."""
        events: list[Event] = []
        while self._clips and self._clips[0] in self._done:
            clip = self._clips.popleft()
            self._done.discard(clip)
            events += [(self.id, "segment", one) for one in clip.segments]
            self._segments += clip.segments
            self._texts.append(self.tokenizer().decode(clip.tokens))
            self._at = clip.mark.frame
            told = {"text": self._texts[-1], "since": self._since / 100, "state": self._state(clip.mark)}
            events.append((self.id, "window", {**told, "last": self.finished}))
        return [*events, self.progress()] if events else []

    def _state(self, mark: Mark) -> dict[str, Any]:
        """Return what another attempt needs to go on from here."""
        return {
            "frame": mark.frame,
            "digest": mark.digest,
            "language": self.language,
            "context": self._context,
            "last_speech": self._last_speech,
            "windows": self._windows,
        }

    def progress(self) -> Event:
        """Return how far it is, in seconds of sound."""
        total = self._plan.duration if self._plan is not None else None
        done = self._at / 100 if total is None else min(self._at / 100, total)
        return self.id, "progress", {"done": round(done, 2), "total": total and round(total, 2)}

    def result(self) -> Event:
        """Return the end: what this attempt heard, and from where on."""
        duration = (self._plan and self._plan.duration) or 0.0
        since = self._since / 100
        seconds = self._clock() - self._began
        return (
            self.id,
            "done",
            {
                "text": "".join(self._texts).strip(),
                "language": self.language or "en",
                "duration": round(duration, 3),
                "segments": self._segments,
                "since": since,
                "realtime_factor": round((duration - since) / seconds, 2) if seconds > 0 else 0.0,
                "notes": list(self._plan.notes) if self._plan else [],
            },
        )
