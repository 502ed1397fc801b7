"""A loaded language model serving many requests at once.

Each lane has a line of those who wait, prompts on their way into caches, and rows that are being decoded together. A
step belongs to one lane (`plugins.lm_turns`): a piece of a prompt and a token for each of its rows. The other lanes
keep their caches and go on where they were.

What a step that raises leaves behind cannot be trusted: caches may have been fed twice. So whoever was in it goes on
from the tokens he has, with a new cache. Nobody can tell whose fault it was; until they have all got through, they run
one at a time, and the one that fails alone is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from jobs.errors import RequestFailed
from jobs.model import Lane
from plugins import lm_caches
from plugins.estimate import KEPT
from plugins.grammar import Grammars, Processor
from plugins.lm_answer import Answer
from plugins.lm_pace import Pace
from plugins.lm_prefill import Prefill, Prompt
from plugins.lm_prefixes import Prefixes
from plugins.lm_request import Limits, parse, tokenise
from plugins.lm_rows import Drawn, Row, Rows
from plugins.lm_turns import Turns
from plugins.mlx_process import on_cpu
from plugins.runtime import Event

#: Places beyond the batch that only the interactive lane may take: a person never waits for a batch to end.
RESERVE: Final = 8
#: Tokens of a prompt in the largest piece that is computed at once.
PIECE: Final = 2048
#: Share of the caches' memory that is kept for the interactive lane.
_KEPT_BACK: Final = 0.25
#: In the batch lane new answers begin when this part of the places is free.
_WAVES: Final = 8
#: Share of a batch that may have left it before its caches are copied, on a GPU.
_SLACK: Final = 0.25
#: Prompts of more tokens tell how far they are.
_TELLING: Final = 512


class LmSession:
    """See `plugins.runtime.Session`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        limits: Limits,
        batch: int = 32,
        cache_tokens: int = 1 << 40,
        prefix_bytes: int = KEPT,
        about: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limits = limits
        self._cache_tokens = cache_tokens
        self._clock = clock
        self._stops = set(tokenizer.eos_token_ids)
        self._grammars = Grammars(tokenizer._tokenizer, vocabulary=limits.vocabulary, stops=self._stops)  # noqa: SLF001 - llguidance wants the tokenizer under mlx_lm's wrapper
        self._unbatched = lm_caches.batchable(model)
        self._batch = 1 if self._unbatched else max(1, batch)
        self._prefixes = Prefixes(prefix_bytes)
        self._pace = Pace(PIECE)
        self._turns = Turns()
        self._line: dict[Lane, list[Answer]] = {lane: [] for lane in Lane}
        self._prompts = {lane: self._new_prefill() for lane in Lane}
        self._rows: dict[Lane, Rows] = {lane: self._new_rows() for lane in Lane}
        self._suspects: list[Answer] = []
        self.info: Mapping[str, Any] = {
            **(about or {}),
            "context": limits.context,
            "vocabulary": limits.vocabulary,
            "chat_template": bool(tokenizer.has_chat_template),
            "device": "cpu" if on_cpu() else "gpu",
            "dtype": _dtype(model),
        }

    @property
    def busy(self) -> bool:
        """Whether there are answers to work on."""
        return bool(self._suspects or any(self._line.values()) or self._active())

    def submit(self, request_id: str, request: Mapping[str, Any]) -> None:
        """Take a request (`plugins.lm_request.LmRequest`); a ``ValueError`` refuses it."""
        asked = parse(request)
        prompt = tokenise(asked, self._tokenizer, self._limits)
        room = self._limits.context - len(prompt.tokens)
        # Compiled here and not at the first step, so that a bad schema refuses this request alone.
        if asked.json_schema is not None:
            self._grammars.matcher(asked.json_schema)
        answer = Answer(
            request_id,
            asked,
            prompt,
            detokenizer=self._tokenizer.detokenizer,
            max_tokens=min(asked.max_tokens, room),
            processors=self._processors,
        )
        if asked.max_tokens > room and "max_tokens" in asked.model_fields_set:
            answer.notes.append(f"max_tokens was lowered to {room}: prompt and answer may have {self._limits.context}.")
        if self._unbatched:
            answer.notes.append(f"Answered alone: mlx-lm cannot batch this kind of model ({self._unbatched}).")
        self._prefixes.see(answer.prompt)
        self._line[asked.lane].append(answer)

    def cancel(self, request_id: str) -> None:
        """Forget a request, wherever it is."""
        self._suspects = [one for one in self._suspects if one.id != request_id]
        for lane in Lane:
            self._line[lane] = [one for one in self._line[lane] if one.id != request_id]
            self._drop(lane, [one for one in self._of(lane) if one.id == request_id])

    def step(self) -> Iterable[Event]:
        """Compute a piece of a prompt and draw a token for each row of the lane whose turn it is."""
        self._admit()
        lane = self._turns.next([lane for lane in Lane if self._prompts[lane] or self._rows[lane]])
        if lane is None:
            return []
        try:
            events = self._prefill(lane)
            drawn = self._decode(lane)
        except Exception as error:  # noqa: BLE001 - a processor, a shape, a full GPU: the session must live on
            return self._recover(lane, error)
        for one in drawn:
            events += self._drawn(lane, one)
        if not self.busy:
            self._rest()
        return events

    def close(self) -> None:
        """Give the caches back; the rest of the memory goes with the process."""
        for lane in Lane:
            self._line[lane].clear()
            self._drop(lane, self._of(lane))
        self._suspects.clear()
        self._prefixes.clear()

    # -- into the batch ---------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Let those begin who have room: suspects one at a time, otherwise each lane's line from its front."""
        if self._suspects:
            if not self._active():
                self._begin(self._suspects.pop(0))
            return
        for lane in Lane:
            while self._line[lane] and self._worth_beginning(lane) and self._has_room_for(self._line[lane][0], lane):
                self._begin(self._line[lane].pop(0))

    def _worth_beginning(self, lane: Lane) -> bool:
        """Whether to let the next one begin now; in the batch lane several begin together, which costs a step less."""
        if lane is not Lane.BATCH or len(self._prompts[lane]):
            return True
        free = self._batch - len(self._rows[lane])
        return free >= min(max(1, self._batch // _WAVES), len(self._line[lane]))

    def _has_room_for(self, answer: Answer, lane: Lane) -> bool:
        """Whether there is a place, and memory: rows of a batch are padded to the longest."""
        here, everywhere = self._of(lane), self._active()
        if not everywhere:
            return True
        urgent = lane is Lane.INTERACTIVE
        places = self._batch + (RESERVE if urgent and not self._unbatched else 0)
        if len(here) >= places:
            return False
        tokens = sum(_padded(self._of(other)) for other in Lane if other is not lane) + _padded([*here, answer])
        return tokens <= self._cache_tokens * (1 if urgent else 1 - _KEPT_BACK)

    def _begin(self, answer: Answer) -> None:
        answer.start()
        self._prompts[answer.request.lane].add(Prompt(answer, answer.context))

    def _prefill(self, lane: Lane) -> list[Event]:
        """Compute a piece of the lane's prompts; those that are ready begin to answer. Return how far they are."""
        # Nobody waits for the next word of a batch answer: there only the throughput counts.
        others = any(len(rows) for other, rows in self._rows.items() if other is not Lane.BATCH)
        prefill = self._prompts[lane]
        worked = prefill.advance(others=others)
        # In the batch lane all join at once: each joining copies the caches of all who are there.
        if not (lane is Lane.BATCH and prefill.unready) and (ready := prefill.ready()):
            self._join(lane, ready)
        return [
            (prompt.owner.id, "prefill", {"done": prompt.done + (prompt.left == 0), "total": len(prompt.tokens)})
            for prompt in worked
            if len(prompt.tokens) > _TELLING
        ]

    def _join(self, lane: Lane, ready: Sequence[Prompt]) -> None:
        for prompt in ready:
            prompt.owner.cached_tokens = max(prompt.owner.cached_tokens, prompt.found)
        rows = [
            Row(
                owner=prompt.owner,
                cached=prompt.tokens[:-1],
                draw=prompt.owner.request.draw,
                stream=prompt.owner.stream,
                processors=prompt.owner.processors(),
                logprobs=prompt.owner.request.logprobs,
            )
            for prompt in ready
        ]
        self._rows[lane].join(rows, [prompt.cache or [] for prompt in ready], [prompt.tokens[-1] for prompt in ready])

    def _processors(self, answer: Answer) -> list[Processor]:
        """Return fresh logits processors for *answer*, which may have begun in another batch."""
        from mlx_lm.sample_utils import make_logits_processors

        made: list[Processor] = make_logits_processors(
            logit_bias=answer.request.logit_bias or None, repetition_penalty=answer.request.repetition_penalty
        )
        if answer.request.json_schema is not None:
            matcher = self._grammars.matcher(answer.request.json_schema)
            matcher.consume_tokens(answer.tokens)
            made.append(self._grammars.processor(matcher, seen=len(answer.context)))
        return made

    # -- out of the batch -------------------------------------------------------------------------------------------

    def _decode(self, lane: Lane) -> list[Drawn]:
        rows = self._rows[lane]
        # In the batch lane all prompts first: a step for all costs little more than one for some.
        if not rows or (lane is Lane.BATCH and len(self._prompts[lane])):
            return []
        began = self._clock()
        drawn = rows.step()
        self._pace.stepped(self._clock() - began)
        return drawn

    def _drawn(self, lane: Lane, drawn: Drawn) -> list[Event]:
        """Tell what came of one row's step."""
        row, answer = drawn.row, drawn.row.owner
        stopped = drawn.token in self._stops
        first = not answer.tokens
        if drawn.logprob is not None and not stopped:
            answer.tell(drawn.token, drawn.logprob, drawn.top)
        piece = answer.end() if stopped else answer.add(drawn.token)
        ended = stopped or answer.full or answer.stopped
        if (first or ended) and self._rows[lane].broken(row):
            self._rows[lane].leave([row])
            return [_failed(answer, "The model computed NaN: damaged weights, or an overflow in this number format.")]
        events: list[Event] = []
        if piece and answer.request.stream:
            events.append((answer.id, "token", {"text": piece, "n": len(answer.tokens)}))
        if ended:
            if answer.continues:
                self._prefixes.keep(list(row.cached), self._rows[lane].cache_of(row))
            self._rows[lane].leave([row])
            events.append((answer.id, "done", answer.result("stop" if stopped or answer.stopped else "length")))
        return events

    def _drop(self, lane: Lane, answers: Sequence[Answer]) -> None:
        """Take answers out of a lane's prompts and rows."""
        if answers:
            self._prompts[lane].drop(answers)
            self._rows[lane].leave([row for row in self._rows[lane].rows if row.owner in answers])

    def _recover(self, lane: Lane, error: Exception) -> list[Event]:
        """Begin anew after a step that raised: with what was in it, and no other lane's."""
        import mlx.core as mx

        caught = self._of(lane)
        self._prompts[lane], self._rows[lane] = self._new_prefill(), self._new_rows()
        mx.clear_cache()
        if len(caught) == 1:
            return [_failed(caught[0], f"The model could not go on with this request: {error}")]
        for answer in caught:
            answer.notes.append("A failure in the batch: this answer was continued alone.")
        self._suspects += caught
        return []

    def _of(self, lane: Lane) -> list[Answer]:
        """Return the answers that *lane* works on."""
        prompts: list[Answer] = [prompt.owner for prompt in self._prompts[lane].prompts]
        return prompts + [row.owner for row in self._rows[lane].rows]

    def _active(self) -> list[Answer]:
        return [answer for lane in Lane for answer in self._of(lane)]

    def _new_prefill(self) -> Prefill:
        return Prefill(
            self._model,
            prefixes=self._prefixes,
            pace=self._pace,
            alone=bool(self._unbatched),
            even=not on_cpu(),
            clock=self._clock,
        )

    def _new_rows(self) -> Rows:
        # On a GPU copying the caches costs more than some rows that are computed in vain.
        return Rows(self._model, slack=0.0 if on_cpu() else _SLACK)

    def _rest(self) -> None:
        """Give the caches of finished answers back to the system."""
        import mlx.core as mx

        mx.clear_cache()


def _padded(answers: Sequence[Answer]) -> int:
    """Return the tokens that the caches of *answers* have together at their longest."""
    return len(answers) * max((answer.length for answer in answers), default=0)


def _failed(answer: Answer, message: str) -> Event:
    return answer.id, "error", {"type": RequestFailed.slug, "message": message}


def _dtype(model: Any) -> str:
    """Return the number format of most of the weights."""
    from mlx.utils import tree_flatten

    sizes: dict[str, int] = {}
    weights: Any = tree_flatten(model.parameters())
    for _, weight in weights:
        name = str(weight.dtype).removeprefix("mlx.core.")
        sizes[name] = sizes.get(name, 0) + weight.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ""
