"""A loaded Whisper model: several recordings take turns, window by window, the urgent ones first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jobs.errors import InvalidInput, RequestFailed
from jobs.model import Lane
from plugins.mlx_process import on_cpu
from plugins.runtime import Event
from plugins.whisper_job import Transcription
from plugins.whisper_request import parse

#: Recordings of one lane under way at once: each keeps its sound in memory, 32 kB a second.
AT_ONCE: Final = 4


class WhisperSession:
    """See `plugins.runtime.Session`."""

    def __init__(self, model: Any, *, half: bool, about: Mapping[str, Any] | None = None) -> None:
        from mlx_whisper.tokenizer import LANGUAGES

        self._model = model
        self._half = half
        self._languages = LANGUAGES
        self._lanes: dict[Lane, deque[Transcription]] = {lane: deque() for lane in Lane}
        self.info: Mapping[str, Any] = {
            **(about or {}),
            "multilingual": bool(model.is_multilingual),
            "dtype": "float16" if half else "float32",
            "device": "cpu" if on_cpu() else "gpu",
        }

    @property
    def busy(self) -> bool:
        """Whether there are recordings to work on."""
        return any(self._lanes.values())

    def submit(self, request_id: str, request: Mapping[str, Any]) -> None:
        """Take a request (`plugins.whisper_request.WhisperRequest`); a ``ValueError`` refuses it."""
        asked = parse(request, languages=self._languages, multilingual=bool(self._model.is_multilingual))
        self._lanes[asked.lane].append(Transcription(request_id, asked, self._model, half=self._half))

    def cancel(self, request_id: str) -> None:
        """Forget a request."""
        for lane, line in self._lanes.items():
            for one in [job for job in line if job.id == request_id]:
                one.close()
                line.remove(one)
            self._lanes[lane] = line

    def step(self) -> Iterable[Event]:
        """Decode one piece of sound or one window of the recording whose turn it is."""
        line = next(line for lane in Lane if (line := self._lanes[lane]))
        job = line.popleft()
        try:
            events = job.step()
        except ValueError as error:
            return [(job.id, "error", {"type": InvalidInput.slug, "message": str(error)})]
        except Exception as error:  # noqa: BLE001 - one recording's failure must not end the others
            message = f"The recording could not be transcribed: {type(error).__name__}: {error}"
            return [(job.id, "error", {"type": RequestFailed.slug, "message": message})]
        if not (events and events[-1][1] == "done"):
            line.insert(min(AT_ONCE - 1, len(line)), job)  # its next turn comes after those of the others at work
        elif not self.busy:
            self._rest()
        return events

    def close(self) -> None:
        """Let go of unfinished files; the memory goes with the process."""
        for line in self._lanes.values():
            while line:
                line.pop().close()

    def _rest(self) -> None:
        import mlx.core as mx

        mx.clear_cache()
