"""One answer as it grows: tokens in, text out, and what is told about it at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from jobs.model import Lane
from plugins.grammar import Processor
from plugins.lm_request import LmRequest, Prompt
from plugins.sampling import Stream
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
        processors: Callable[[Answer], list[Processor]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.id = request_id
        self.request = request
        self.prompt = prompt.tokens
        self.notes = list(prompt.notes)
        self.stream = Stream(request.seed) if request.seed is not None else None
        #: Tokens drawn so far, without the one that ended the answer.
        self.tokens: list[int] = []
        self.text = ""
        #: Tokens of the prompt that were not computed for it.
        self.cached_tokens = 0
        #: For each token what was asked to be told about its probability.
        self.logprobs: list[dict[str, Any]] = []
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
    def context(self) -> list[int]:
        """Return the prompt and what was drawn so far: where the answer goes on."""
        return self.prompt + self.tokens

    @property
    def full(self) -> bool:
        """Whether it may have no more tokens."""
        return len(self.tokens) >= self._max_tokens

    def processors(self) -> list[Processor]:
        """Return what changes its logits, made anew."""
        return self._make_processors(self)

    def start(self) -> None:
        """Note that the work on it begins."""
        self._began = self._clock()

    def add(self, token: int) -> str:
        """Take a *token*, return the text that can be shown."""
        self._note_first()
        self.tokens.append(token)
        self._detokenizer.add_token(token)
        if self.full:
            self._detokenizer.finalize()
        return self._show(self._detokenizer.last_segment, last=self.full)

    def tell(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> None:
        """Note the probabilities of a token that is about to be added."""
        likeliest = [{"token": one, "logprob": round(value, 6)} for one, value in top]
        self.logprobs.append({"token": token, "logprob": round(logprob, 6), "top": likeliest})

    @property
    def continues(self) -> bool:
        """Whether it is part of a conversation: then what was computed for it serves the next turn."""
        return len(self.request.messages or ()) > 1 or self.request.lane is Lane.INTERACTIVE

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
            # Of the prompt: what earlier prompts had in common with it and need not be computed again.
            "cached_tokens": self.cached_tokens,
            # The first token comes with the prompt; the others took the time after it.
            "tokens_per_second": _rate(len(self.tokens) - 1, now - first),
            "prompt_tokens_per_second": _rate(len(self.prompt), first - self._began),
            "notes": self.notes,
            **({"logprobs": self.logprobs} if self.request.logprobs is not None else {}),
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
