"""Answers that are computed together: their prompts on the way into caches, and the rows that draw their tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from jobs.errors import RequestFailed
from jobs.model import Lane
from plugins.lm_answer import Answer
from plugins.lm_pace import Pace
from plugins.lm_plan import Plan
from plugins.lm_prefill import Prefill, Prompt
from plugins.lm_prefixes import Prefixes
from plugins.lm_quantised import quantised
from plugins.lm_rows import Decoder, Drawn, Row
from plugins.runtime import Event

#: Prompts of more tokens tell how far they are.
_TELLING: Final = 512


class Group:
    """The answers of one lane and plan; *stops* are the tokens that end one."""

    def __init__(
        self,
        lane: Lane,
        plan: Plan,
        *,
        prompts: Prefill,
        rows: Decoder,
        prefixes: Prefixes,
        pace: Pace,
        stops: Collection[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.lane = lane
        self.plan = plan
        self.prompts = prompts
        self.rows = rows
        self._prefixes = prefixes
        self._pace = pace
        self._stops = stops
        self._clock = clock

    @property
    def answers(self) -> list[Answer]:
        """Return the answers that are worked on."""
        reading: list[Answer] = [prompt.owner for prompt in self.prompts.prompts]
        return reading + [row.owner for row in self.rows.rows]

    def __len__(self) -> int:
        return len(self.prompts) + len(self.rows)

    def begin(self, answer: Answer) -> None:
        """Take *answer* in."""
        answer.start()
        self.prompts.add(Prompt(answer, answer.context))

    def drop(self, answers: Collection[Answer]) -> None:
        """Take *answers* out; those that are not here are ignored."""
        if answers:
            self.prompts.drop(answers)
            self.rows.leave([row for row in self.rows.rows if row.owner in answers])

    def compute(self, *, others: bool) -> tuple[list[Event], list[Drawn]]:
        """Compute a piece of a prompt and a token for each row; *others* says whether somebody waits meanwhile.

        What raises here leaves caches that cannot be trusted.
        """
        return self._prefill(others=others), self._decode()

    def tell(self, drawn: Sequence[Drawn]) -> list[Event]:
        """Take what was drawn into the answers and tell what came of it."""
        events: list[Event] = []
        ended: set[Row] = set()
        for one in drawn:
            # What was drawn behind an end, in the same step, is nobody's.
            if one.row not in ended:
                events += (told := self._tell(one))
                ended.update([one.row] if any(kind in ("done", "error") for _, kind, _ in told) else [])
        # All at once: each leaving copies the caches of those who stay.
        if ended:
            self.rows.leave(ended)
        return events

    def _prefill(self, *, others: bool) -> list[Event]:
        worked = self.prompts.advance(others=others)
        # In the batch lane all join at once: each joining copies the caches of all who are there.
        if not (self.lane is Lane.BATCH and self.prompts.unready) and (ready := self.prompts.ready()):
            self._join(ready)
        return [
            (prompt.owner.id, "prefill", {"done": prompt.done + (prompt.left == 0), "total": len(prompt.tokens)})
            for prompt in worked
            if len(prompt.tokens) > _TELLING
        ]

    def _join(self, ready: Sequence[Prompt]) -> None:
        for prompt in ready:
            prompt.owner.cached_tokens = max(prompt.owner.cached_tokens, prompt.found)
        rows = [_row(prompt) for prompt in ready]
        self.rows.join(rows, [prompt.cache or [] for prompt in ready], [prompt.tokens[-1] for prompt in ready])

    def _decode(self) -> list[Drawn]:
        # In the batch lane all prompts first: a step for all costs little more than one for some.
        if not self.rows or (self.lane is Lane.BATCH and len(self.prompts)):
            return []
        began = self._clock()
        drawn = self.rows.step()
        self._pace.stepped(self._clock() - began)
        return drawn

    def _tell(self, drawn: Drawn) -> list[Event]:
        row, answer = drawn.row, drawn.row.owner
        stopped = drawn.token in self._stops
        first = not answer.tokens
        if drawn.logprob is not None and not stopped:
            answer.tell(drawn.token, drawn.logprob, drawn.top)
        if self.plan.draft_tokens:
            answer.guessed(right=drawn.guessed, of=row.guessed)
        told = answer.end() if stopped else answer.add(drawn.token)
        ended = stopped or answer.full or answer.stopped
        if (first or ended) and self.rows.broken(row):
            return [failed(answer, "The model computed NaN: damaged weights, or an overflow in this number format.")]
        events: list[Event] = [(answer.id, kind, data) for kind, data in told if answer.request.stream]
        if ended:
            if answer.continues:
                self._keep(row)
            events.append((answer.id, "done", answer.result("stop" if stopped or answer.stopped else "length")))
        return events

    def _keep(self, row: Row) -> None:
        """Keep what was computed for *row*: an answer in a conversation is the beginning of the next prompt."""
        cache = self.rows.cache_of(row)
        # Where a cache was quantised depends on its prompt: another prompt, computed anew, would say something else.
        if not quantised(cache):
            self._prefixes.keep(list(row.cached), cache, self.plan.adapter, answer=True)


def failed(answer: Answer, message: str, kind: str = RequestFailed.slug) -> Event:
    """Return the event that ends *answer* with *message*; *kind* is the slug of the error."""
    return answer.id, "error", {"type": kind, "message": message}


def _row(prompt: Prompt) -> Row:
    answer: Any = prompt.owner
    return Row(
        owner=answer,
        cached=prompt.tokens[:-1],
        draw=answer.request.draw,
        stream=answer.stream,
        processors=answer.processors(),
        logprobs=answer.request.logprobs,
    )
