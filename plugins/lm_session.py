"""A loaded language model serving many requests at once on mlx-lm's BatchGenerator.

What a step that raises leaves in a BatchGenerator cannot be trusted: rows may be lost, caches fed twice (mlx-lm 0.32).
So the generator is thrown away and every answer goes on in a new one from the tokens it has. Nobody can tell whose
fault it was; until they have all got through, they run one at a time, and the one that fails alone is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jobs.errors import RequestFailed
from jobs.model import Lane
from plugins.grammar import Grammars, Processor
from plugins.lm_answer import Answer
from plugins.lm_request import Limits, parse, tokenise
from plugins.mlx_process import on_cpu
from plugins.runtime import Event
from plugins.sampling import Samplers

#: Prompt tokens computed between two looks at cancellations.
PREFILL_STEP: Final = 512
#: Places beyond the batch that only the interactive lane may take: a person never waits for a batch to end.
RESERVE: Final = 8

_RANK: Final = {Lane.INTERACTIVE: 0, Lane.NORMAL: 1, Lane.BATCH: 2}


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
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limits = limits
        self._batch = max(1, batch)
        self._cache_tokens = cache_tokens
        self._stops = set(tokenizer.eos_token_ids)
        self._samplers = Samplers()
        self._grammars = Grammars(tokenizer._tokenizer, vocabulary=limits.vocabulary, stops=self._stops)  # noqa: SLF001 - llguidance wants the tokenizer under mlx_lm's wrapper
        self._waiting: list[Answer] = []
        self._suspects: list[Answer] = []
        self._active: dict[int, Answer] = {}
        self._generator = self._new_generator()
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
        return bool(self._active or self._waiting or self._suspects)

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
            sampler=self._samplers.get(asked.draw, asked.seed),
            processors=self._processors,
        )
        if asked.max_tokens > room and "max_tokens" in asked.model_fields_set:
            answer.notes.append(f"max_tokens was lowered to {room}: prompt and answer may have {self._limits.context}.")
        self._waiting.append(answer)
        self._waiting.sort(key=lambda one: _RANK[one.request.lane])  # stable: first come first served within a lane

    def cancel(self, request_id: str) -> None:
        """Forget a request, wherever it is."""
        self._waiting = [one for one in self._waiting if one.id != request_id]
        self._suspects = [one for one in self._suspects if one.id != request_id]
        self._drop([uid for uid, one in self._active.items() if one.id == request_id])

    def step(self) -> Iterable[Event]:
        """Decode one token for the whole batch and compute one piece of the prompts that wait."""
        self._admit()
        try:
            prompts, drawn = self._generator.next()
        except Exception as error:  # noqa: BLE001 - a processor, a shape, a full GPU: the session must live on
            return self._recover(error)
        events: list[Event] = []
        for one in prompts:
            if one.uid in self._active and one.progress[1] > PREFILL_STEP:
                done, total = one.progress
                events.append((self._active[one.uid].id, "prefill", {"done": done, "total": total}))
        for one in drawn:
            events += self._drawn(one)
        self._drop([uid for uid, answer in self._active.items() if answer.stopped])
        if not self.busy:
            self._rest()
        return events

    def close(self) -> None:
        """Give the generator back; the memory goes with the process."""
        self._active.clear()
        self._waiting.clear()
        self._suspects.clear()
        self._generator.close()

    # -- into the batch ---------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Fill free places: suspects one at a time, otherwise by lane."""
        if self._suspects:
            if not self._active:
                self._insert(self._suspects.pop(0))
            return
        while self._waiting and self._has_room_for(self._waiting[0]):
            self._insert(self._waiting.pop(0))

    def _has_room_for(self, answer: Answer) -> bool:
        """Whether there is a place in the batch, and memory: rows of a batch are padded to the longest."""
        if not self._active:
            return True
        rows = len(self._active) + 1
        longest = max(one.length for one in [answer, *self._active.values()])
        places = self._batch + (RESERVE if answer.request.lane is Lane.INTERACTIVE else 0)
        return rows <= places and rows * longest <= self._cache_tokens

    def _insert(self, answer: Answer) -> None:
        answer.start()
        (uid,) = self._generator.insert(**answer.insertion)
        self._active[uid] = answer

    def _processors(self, answer: Answer) -> list[Processor]:
        """Return fresh logits processors for *answer*, which may have begun in another batch."""
        from mlx_lm.sample_utils import make_logits_processors

        made: list[Processor] = make_logits_processors(repetition_penalty=answer.request.repetition_penalty)
        if answer.request.json_schema is not None:
            matcher = self._grammars.matcher(answer.request.json_schema)
            matcher.consume_tokens(answer.tokens)
            made.append(self._grammars.processor(matcher, seen=len(answer.prompt) + len(answer.tokens)))
        return made

    def _new_generator(self) -> Any:
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.models.cache import make_prompt_cache

        for cache in make_prompt_cache(self._model):
            if not hasattr(cache, "merge"):
                raise ValueError(f"mlx-lm cannot batch this kind of model yet ({type(cache).__name__}).")
        return BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in sorted(self._stops)],
            completion_batch_size=self._batch + RESERVE,
            prefill_step_size=PREFILL_STEP,
        )

    # -- out of the batch -------------------------------------------------------------------------------------------

    def _drawn(self, drawn: Any) -> list[Event]:
        """Tell what came of one row's step."""
        answer = self._active.get(drawn.uid)
        if answer is None:
            return []
        ended = drawn.finish_reason is not None
        if ended:
            del self._active[drawn.uid]
        if (ended or not answer.tokens) and _is_nan(drawn):
            self._drop([drawn.uid])
            return [_failed(answer, "The model computed NaN: damaged weights, or an overflow in this number format.")]
        piece = answer.end() if drawn.finish_reason == "stop" else answer.add(drawn.token, last=ended)
        events: list[Event] = []
        if piece and answer.request.stream:
            events.append((answer.id, "token", {"text": piece, "n": len(answer.tokens)}))
        if ended or answer.stopped:
            reason = "stop" if answer.stopped else drawn.finish_reason
            events.append((answer.id, "done", answer.result(reason)))
        return events

    def _drop(self, uids: list[int]) -> None:
        """Take rows out of the batch."""
        for uid in uids:
            self._active.pop(uid, None)
        if uids:
            self._generator.remove(uids)

    def _recover(self, error: Exception) -> list[Event]:
        """Begin anew after a step that raised."""
        import mlx.core as mx

        caught, self._active = list(self._active.values()), {}
        with contextlib.suppress(Exception):  # it is broken; all that matters is that it goes
            self._generator.close()
        self._generator = self._new_generator()
        mx.clear_cache()
        if len(caught) == 1:
            return [_failed(caught[0], f"The model could not go on with this request: {error}")]
        for answer in caught:
            answer.notes.append("A failure in the batch: this answer was continued alone.")
        self._suspects += caught
        return []

    def _rest(self) -> None:
        """Give the caches of finished answers back to the system."""
        import mlx.core as mx

        mx.clear_cache()


def _failed(answer: Answer, message: str) -> Event:
    return answer.id, "error", {"type": RequestFailed.slug, "message": message}


def _is_nan(drawn: Any) -> bool:
    import mlx.core as mx

    return bool(mx.isnan(drawn.logprobs[drawn.token]).item())


def _dtype(model: Any) -> str:
    """Return the number format of most of the weights."""
    from mlx.utils import tree_flatten

    sizes: dict[str, int] = {}
    weights: Any = tree_flatten(model.parameters())
    for _, weight in weights:
        name = str(weight.dtype).removeprefix("mlx.core.")
        sizes[name] = sizes.get(name, 0) + weight.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ""
