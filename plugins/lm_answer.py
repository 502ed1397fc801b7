"""One answer as it grows: tokens in, text out, and what is told about it at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.model import Lane
from plugins.grammar import Processor
from plugins.lm_parts import SAID, Parts, Piece
from plugins.lm_plan import PLAINLY, Way
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
        parts: Parts | None = None,
        spell: Callable[[int], str] = str,
        way: Way = PLAINLY,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take a request to answer.

        *parts* tells thoughts and calls from words (None: all is words), *spell* returns a token's text, *way* says how
        it is computed.
        """
        self.id = request_id
        self.request = request
        self.prompt = prompt.tokens
        self.way = way
        self.notes = [*prompt.notes, *way.notes]
        #: How many that came later were let begin before it: it waited for more than a place, or its prompt is long.
        self.overtaken = 0
        #: Tokens that a draft model has guessed for it, and those of them that it was right with.
        self._guesses = self._right = 0
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
        self._parts = parts
        self._spell = spell
        self._untold = 0
        self._stops = StopWords(request.stop)
        self._clock = clock
        self._began = clock()
        self._first: float | None = None

    @property
    def length(self) -> int:
        """Return the tokens of prompt and answer at their longest."""
        return len(self.prompt) + self._max_tokens

    @property
    def cost(self) -> int:
        """Return the tokens of plain caches that take as much memory as its own at their longest."""
        return math.ceil(self.length * self.way.share)

    @property
    def stopped(self) -> bool:
        """Whether it has said all it should before the model ended it: a stop word was met, or the one call made."""
        return self._stops.met or (self._parts is not None and self._parts.complete)

    @property
    def context(self) -> list[int]:
        """Return the prompt and what was drawn so far: where the answer goes on."""
        return self.prompt + self.tokens

    @property
    def full(self) -> bool:
        """Whether it may have no more tokens."""
        return len(self.tokens) >= self._max_tokens

    @property
    def stream(self) -> Stream | None:
        """Return the random numbers of its seed from where it is, None without a seed."""
        return Stream(self.request.seed, at=len(self.tokens)) if self.request.seed is not None else None

    def processors(self) -> list[Processor]:
        """Return what changes its logits, made anew."""
        return self._make_processors(self)

    def start(self) -> None:
        """Note that the work on it begins."""
        self._began = self._clock()

    def add(self, token: int) -> list[tuple[str, dict[str, Any]]]:
        """Take a *token*, return what can be told of it: kind and data of events."""
        self._note_first()
        self.tokens.append(token)
        self._detokenizer.add_token(token)
        if self.full:
            self._detokenizer.finalize()
        return self._show(self._detokenizer.last_segment, last=self.full)

    def tell(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> None:
        """Note the probabilities of a token that is about to be added."""
        likeliest = [self._line(one, value) for one, value in top]
        self.logprobs.append({**self._line(token, logprob), "top": likeliest})

    def guessed(self, *, right: bool, of: int) -> None:
        """Note whether a token that is about to be added was guessed, and how many guesses there were in all."""
        self._guesses = of
        self._right += right

    @property
    def continues(self) -> bool:
        """Whether it is part of a conversation: then what was computed for it serves the next turn."""
        return len(self.request.messages or ()) > 1 or self.request.lane is Lane.INTERACTIVE

    def end(self) -> list[tuple[str, dict[str, Any]]]:
        """Take the end of the text without a token of its own, return what is left to tell of it."""
        self._note_first()
        self._detokenizer.finalize()
        return self._show(self._detokenizer.last_segment, last=True)

    def result(self, reason: str) -> dict[str, Any]:
        """Return the runtime's result."""
        now = self._clock()
        first = self._first if self._first is not None else now
        if reason == "length" and self.request.json_schema is not None:
            self.notes.append("The JSON is cut off: max_tokens was reached.")
        calls = self._parts.calls if self._parts is not None else []
        return {
            "text": self.text,
            **self._beside(),
            "finish_reason": "tool_calls" if calls and reason == "stop" else reason,
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.tokens),
            # Of the prompt: what earlier prompts had in common with it and need not be computed again.
            "cached_tokens": self.cached_tokens,
            # The first token comes with the prompt; the others took the time after it.
            "tokens_per_second": _rate(len(self.tokens) - 1, now - first),
            "prompt_tokens_per_second": _rate(len(self.prompt), first - self._began),
            **({"draft_tokens": self._guesses, "accepted_tokens": self._right} if self.way.plan.draft_tokens else {}),
            "notes": [*self.notes, *(self._parts.notes if self._parts is not None else ())],
            **({"logprobs": self.logprobs} if self.request.logprobs is not None else {}),
        }

    def _note_first(self) -> None:
        if self._first is None:
            self._first = self._clock()

    def _show(self, piece: str, *, last: bool) -> list[tuple[str, dict[str, Any]]]:
        shown = self._stops.feed(piece)
        cut = last and self.full
        if last and not self._stops.met:
            shown += self._stops.rest()
        if self._parts is None:
            pieces: list[Piece] = [(SAID, shown)] if shown else []
        else:
            pieces = self._parts.feed(shown)
            if last or self.stopped:
                pieces += self._parts.finish(cut=cut and not self._stops.met)
        return [(kind, self._told(kind, what)) for kind, what in pieces]

    def _told(self, kind: str, what: Any) -> dict[str, Any]:
        """Return the data of an event: *what* is a call, or text that goes on."""
        if kind == SAID:
            self.text += what
        data = dict(what) if isinstance(what, Mapping) else {"text": what}
        data["n"] = len(self.tokens)
        if self.request.logprobs is not None:
            data["logprobs"], self._untold = self.logprobs[self._untold :], len(self.logprobs)
        return data

    def _beside(self) -> dict[str, Any]:
        """Return the parts that are not its text."""
        if self._parts is None:
            return {}
        parts = {"reasoning": self._parts.reasoning, "tool_calls": self._parts.calls}
        return {name: part for name, part in parts.items() if part}

    def _line(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": token, "text": self._spell(token), "logprob": round(logprob, 6)}


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 and count > 0 else 0.0
