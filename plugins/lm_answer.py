"""One answer as it grows: tokens in, text out, and what is told about it at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from plugins.grammar import Processor
from plugins.lm_request import LmRequest, Prompt
from plugins.sampling import Sampler
from plugins.stop_words import StopWords


class Answer:
    """The state of one request in a session. It can be continued in another batch: it remembers what it has said."""

    def __init__(
        self,
        request_id: str,
        request: LmRequest,
        prompt: Prompt,
        *,
        detokenizer: Any,
        max_tokens: int,
        sampler: Sampler,
        processors: Callable[[Answer], list[Processor]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.id = request_id
        self.request = request
        self.prompt = prompt.tokens
        self.notes = list(prompt.notes)
        self.sampler = sampler
        #: Tokens drawn so far, without the one that ended the answer.
        self.tokens: list[int] = []
        self.text = ""
        self._max_tokens = max_tokens
        self._make_processors = processors
        self._detokenizer = detokenizer
        self._stops = StopWords(request.stop)
        self._clock = clock
        self._began = clock()
        self._first: float | None = None

    @property
    def length(self) -> int:
        """Return the tokens of prompt and answer at their longest."""
        return len(self.prompt) + self._max_tokens

    @property
    def stopped(self) -> bool:
        """Whether a stop word was met."""
        return self._stops.met

    @property
    def insertion(self) -> dict[str, Any]:
        """Return what BatchGenerator.insert wants to begin or continue this answer."""
        return {
            "prompts": [self.prompt + self.tokens],
            "max_tokens": [self._max_tokens - len(self.tokens)],
            "samplers": [self.sampler],
            "logits_processors": [self._make_processors(self)],
        }

    def start(self) -> None:
        """Note that the work on it begins."""
        self._began = self._clock()

    def add(self, token: int, *, last: bool) -> str:
        """Take a *token*, return the text that can be shown; *last* says that none will follow."""
        self._note_first()
        self.tokens.append(token)
        self._detokenizer.add_token(token)
        if last:
            self._detokenizer.finalize()
        return self._show(self._detokenizer.last_segment, last=last)

    def end(self) -> str:
        """Take the end of the text without a token of its own, return the rest of it."""
        self._note_first()
        self._detokenizer.finalize()
        return self._show(self._detokenizer.last_segment, last=True)

    def result(self, reason: str) -> dict[str, Any]:
        """Return the runtime's result."""
        now = self._clock()
        first = self._first if self._first is not None else now
        if reason == "length" and self.request.json_schema is not None:
            self.notes.append("The JSON is cut off: max_tokens was reached.")
        return {
            "text": self.text,
            "finish_reason": reason,
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.tokens),
            # The first token comes with the prompt; the others took the time after it.
            "tokens_per_second": _rate(len(self.tokens) - 1, now - first),
            "prompt_tokens_per_second": _rate(len(self.prompt), first - self._began),
            "notes": self.notes,
        }

    def _note_first(self) -> None:
        if self._first is None:
            self._first = self._clock()

    def _show(self, piece: str, *, last: bool) -> str:
        shown = self._stops.feed(piece)
        if last and not self._stops.met:
            shown += self._stops.rest()
        self.text += shown
        return shown


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 and count > 0 else 0.0
