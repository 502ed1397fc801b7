"""A loaded Whisper model serving many recordings at once, by lane.

Each lane has recordings that wait, recordings that are being read, and windows that are decoded together. A step
belongs to one lane (`plugins.lm_turns`): a group of its windows is encoded if there are places, and each window under
way gets a token. The other lanes keep their windows where they are.

A step that raises spoils nobody else: its windows begin anew one at a time, and the one that fails alone ends its
recording.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from jobs.errors import InvalidInput, OutOfMemory, RequestFailed
from jobs.model import Lane
from plugins import mel
from plugins import whisper_net as net
from plugins import whisper_windows as windows
from plugins.lm_turns import Turns
from plugins.mlx_process import on_cpu, out_of_memory
from plugins.priority_semaphore import PrioritySemaphore
from plugins.runtime import Event
from plugins.whisper_job import Transcription, Window
from plugins.whisper_pace import Pace
from plugins.whisper_request import parse
from plugins.whisper_rows import Row, Rows
from plugins.whisper_rules import Rules

#: Recordings of a lane that are read at once at least: they take turns, so that a short one never waits for a long one.
_OPEN: Final = 4
#: Recordings that are decoded in the same moment; two keep ahead of any model.
_READERS: Final = 2
#: Seconds that a step waits for sound if there is nothing else to do: so long a cancellation waits.
_PATIENCE_S: Final = 0.05
#: Seconds that the first window of a lane waits for company at most, outside the interactive lane.
_COMPANY_S: Final = 0.25
#: Bytes of freed buffers that an idle session keeps: asking a GPU's driver for them again takes longer than a token.
_KEPT: Final = 256 * 1024**2
#: Outside the interactive lane windows join when this part of the places is free: each joining copies the others.
_WAVES: Final = 4
#: Share of a batch that may have left it before its caches are copied, on a GPU.
_SLACK: Final = 0.25


class _Line:
    """The recordings of one lane, and their windows under way."""

    def __init__(self, rows: Rows) -> None:
        self.waiting: deque[Transcription] = deque()
        self.open: deque[Transcription] = deque()
        self.rows = rows
        #: Windows of a step that failed: each is tried alone.
        self.suspects: list[Window] = []
        #: When the first window was there while none was under way.
        self.first: float | None = None

    @property
    def jobs(self) -> list[Transcription]:
        return [*self.open, *self.waiting]


class WhisperSession:
    """See `plugins.runtime.Session`."""

    def __init__(
        self,
        model: Any,
        *,
        half: bool,
        batch: int = 16,
        turns: Turns | None = None,
        about: Mapping[str, Any] | None = None,
        rows: Callable[[], Rows] | None = None,
        encode: Callable[[Any, Any], Any] = net.encode,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """*batch* windows at most are decoded together.

        *rows* makes what decodes the windows of one lane; *encode* gives a model's features of spectrograms.
        """
        from mlx_whisper.tokenizer import LANGUAGES, get_tokenizer

        self._model = model
        self._half = half
        self._clock = clock
        self._languages = LANGUAGES
        self._tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
        self._rules = Rules(self._tokenizer, int(model.dims.n_vocab))
        self._batch = max(1, batch)
        self._pace = Pace(self._batch, on_cpu=on_cpu())
        self._turns = turns or Turns()
        self._heard = threading.Event()
        self._readers = PrioritySemaphore(_READERS)
        self._make_rows = rows or self._new_rows
        self._encode = encode
        self._lines = {lane: _Line(self._make_rows()) for lane in Lane}
        self.info: Mapping[str, Any] = {
            **(about or {}),
            "multilingual": bool(model.is_multilingual),
            "dtype": "float16" if half else "float32",
            "device": "cpu" if on_cpu() else "gpu",
            "batch": self._batch,
        }

    @property
    def busy(self) -> bool:
        """Whether there are recordings to work on."""
        return any(line.open or line.waiting for line in self._lines.values())

    def submit(self, request_id: str, request: Mapping[str, Any]) -> None:
        """Take a request (`plugins.whisper_request.WhisperRequest`); a ``ValueError`` refuses it."""
        asked = parse(request, languages=self._languages, multilingual=bool(self._model.is_multilingual))
        turn = partial(self._readers.held, list(Lane).index(asked.lane))
        job = Transcription(request_id, asked, self._model, heard=self._heard.set, turn=turn, clock=self._clock)
        self._lines[asked.lane].waiting.append(job)

    def cancel(self, request_id: str) -> None:
        """Forget a request, wherever it is."""
        for line in self._lines.values():
            for job in [one for one in line.jobs if one.id == request_id]:
                self._drop(line, job)

    def step(self) -> Iterable[Event]:
        """Encode a group of windows, and add a token to each window under way, in the lane whose turn it is."""
        self._heard.clear()
        events: list[Event] = []
        for line in self._lines.values():
            events += self._listen(line)
        lane = self._turns.next([lane for lane, line in self._lines.items() if self._can_work(lane, line)])
        if lane is not None:
            events += self._work(self._lines[lane])
        elif self.busy and not events:
            self._heard.wait(_PATIENCE_S)
        if not self.busy:
            self._rest()
        return events

    def close(self) -> None:
        """Let go of unfinished files; the memory goes with the process."""
        for line in self._lines.values():
            for job in line.jobs:
                self._drop(line, job)

    # -- sound ------------------------------------------------------------------------------------------------------

    def _listen(self, line: _Line) -> list[Event]:
        """Open recordings while there are places, and make windows of what was heard."""
        while line.waiting and len(line.open) < max(_OPEN, self._pace.places()):
            job = line.waiting.popleft()
            job.begin()
            line.open.append(job)
        events: list[Event] = []
        for job in list(line.open):
            # What is ready is kept in memory: enough to fill the batch, shared by those who are open.
            wanted = max(1, -(-self._pace.places() // len(line.open)))
            try:
                job.ready(wanted)
            except ValueError as error:
                self._drop(line, job)
                events.append((job.id, "error", {"type": InvalidInput.slug, "message": str(error)}))
                continue
            events += self._end(line, job)
        return events

    def _end(self, line: _Line, job: Transcription) -> list[Event]:
        """Return the last events of *job* if everything was told."""
        if not job.finished:
            return []
        self._drop(line, job)
        return [job.progress(), job.result()]

    def _drop(self, line: _Line, job: Transcription) -> None:
        """Let go of *job* and of its windows."""
        job.close()
        line.suspects = [one for one in line.suspects if one.job is not job]
        line.rows.leave([row for row in line.rows.rows if row.owner.job is job])
        for jobs in (line.open, line.waiting):
            if job in jobs:
                jobs.remove(job)

    # -- windows ----------------------------------------------------------------------------------------------------

    def _can_work(self, lane: Lane, line: _Line) -> bool:
        if len(line.rows) or line.suspects:
            line.first = None
            return True
        ready = sum(len(job.ready(0)) for job in line.open)
        if not ready:
            line.first = None
            return False
        return lane is Lane.INTERACTIVE or not self._gathering(line, ready)

    def _gathering(self, line: _Line, ready: int) -> bool:
        """Whether the *ready* windows wait a moment for those of recordings that are just being read.

        On a GPU windows that begin together take little longer than one, and readers are slow beside a busy session.
        """
        line.first = self._clock() if line.first is None else line.first
        coming = any(not job.ready(0) for job in line.open)
        late = self._clock() - line.first >= _COMPANY_S
        return self._pace.gathers and coming and not late and ready < self._pace.places()

    def _work(self, line: _Line) -> list[Event]:
        """Do one step's work in a lane."""
        group = self._group(line)
        try:
            if group:
                self._join(line, group)
            ended = self._decode(line)
        except Exception as error:  # noqa: BLE001 - a shape, a full GPU: the session must live on
            return self._recover(line, group, error)
        events: list[Event] = []
        for row in ended:
            try:
                events += row.owner.job.heard(row.owner, _attempt(row))
            except Exception as error:  # noqa: BLE001 - one recording's failure must not end the others
                events += self._fail(line, row.owner.job, error)
                continue
            events += self._end(line, row.owner.job)
        return events

    def _group(self, line: _Line) -> list[Window]:
        """Return the windows to begin with now: one of each recording in turn, earliest first."""
        if line.suspects:
            return [line.suspects.pop(0)] if not len(line.rows) else []
        ready = sum(len(job.ready(0)) for job in line.open)
        places = self._pace.places()
        free = places - len(line.rows)
        urgent = line is self._lines[Lane.INTERACTIVE]
        if not ready or free <= 0 or (len(line.rows) and not urgent and free < min(max(1, places // _WAVES), ready)):
            return []
        group: list[Window] = []
        while len(group) < min(free, ready, self._pace.group()):
            job = line.open[0]
            line.open.rotate(-1)
            if found := job.ready(0):
                group.append(found[0])
                job.take(found[0])
        return group

    def _join(self, line: _Line, group: Sequence[Window]) -> None:
        """Encode the windows of *group* that were not yet, and let them all be decoded."""
        import mlx.core as mx

        new = [window for window in group if window.features is None]
        if new:
            began = self._clock()
            mels = [
                mel.window(
                    one.stretch.samples,
                    before=one.stretch.before,
                    size=one.stretch.size,
                    n_mels=int(self._model.dims.n_mels),
                )
                for one in new
            ]
            stacked = mx.stack(mels)
            features = self._encode(self._model, stacked.astype(mx.float16) if self._half else stacked)
            mx.eval(features)
            self._pace.encoded(len(new), self._clock() - began)
            for at, window in enumerate(new):
                window.features = features[at]
        self._find_languages(group)
        line.rows.join([_row(window) for window in group])

    def _find_languages(self, group: Sequence[Window]) -> None:
        """Detect the language of those whose first window is among *group*."""
        import mlx.core as mx

        unknown = {window.job: window for window in reversed(group) if window.job.language is None}
        if not unknown:
            return
        tokenizer = self._tokenizer
        codes = dict(zip(tokenizer.all_language_tokens, tokenizer.all_language_codes, strict=True))
        features = mx.stack([window.features for window in unknown.values()])
        found = net.detect(self._model, features, start=tokenizer.sot, languages=list(codes))
        for job, token in zip(unknown, found, strict=True):
            job.language = codes[token]

    def _decode(self, line: _Line) -> list[Row]:
        rows = len(line.rows)
        began = self._clock()
        ended = line.rows.step()
        if rows:
            self._pace.stepped(rows, self._clock() - began)
        return ended

    def _recover(self, line: _Line, group: Sequence[Window], error: Exception) -> list[Event]:
        """Begin anew after a step that raised, with what was in it and no other lane's."""
        import mlx.core as mx

        caught = list({row.owner: None for row in line.rows.rows} | dict.fromkeys(group))
        line.rows = self._make_rows()
        mx.clear_cache()
        for window in caught:
            window.features = None
        if out_of_memory(error):
            self._pace.fewer()
        if len(caught) <= 1:
            return [event for window in caught for event in self._fail(line, window.job, error)]
        line.suspects += sorted(caught, key=lambda window: window.stretch.seek)
        return []

    def _fail(self, line: _Line, job: Transcription, error: Exception) -> list[Event]:
        self._drop(line, job)
        message = f"The recording could not be transcribed: {type(error).__name__}: {error}"
        slug = OutOfMemory.slug if out_of_memory(error) else RequestFailed.slug
        return [(job.id, "error", {"type": slug, "message": message})]

    def _new_rows(self) -> Rows:
        # On a GPU copying the caches costs more than some rows that are computed in vain.
        slack = 0.0 if on_cpu() else _SLACK
        return Rows(self._model, self._rules, no_speech=self._tokenizer.no_speech, slack=slack)

    def _rest(self) -> None:
        """Give freed buffers back to the system, unless they are what the next recording takes first."""
        import mlx.core as mx

        if mx.get_cache_memory() > _KEPT:
            mx.clear_cache()


def _row(window: Window) -> Row:
    prompt, start = window.job.prompt()
    return Row(
        owner=window,
        prompt=prompt,
        start=start,
        features=window.features,
        temperature=window.temperature,
        seed=window.seed,
    )


def _attempt(row: Row) -> windows.Attempt:
    """Return what the decoder gave for a window at one temperature."""
    from mlx_whisper.decoding import compression_ratio

    text = row.owner.job.tokenizer().decode(row.tokens).strip()
    return windows.Attempt(
        tokens=row.tokens,
        temperature=row.temperature,
        avg_logprob=row.logprob / (len(row.tokens) + 1),
        compression_ratio=float(compression_ratio(text)) if text else 0.0,
        no_speech_prob=row.no_speech_prob,
    )
