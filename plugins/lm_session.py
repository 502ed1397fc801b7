"""A loaded language model serving many requests at once.

Each lane has a line of those who wait, prompts on their way into caches, and rows that are being decoded together: one
group of them for each plan (`plugins.lm_plan`). A step belongs to one lane (`plugins.lm_turns`) and to one of its
groups, which take turns: a piece of a prompt and a token for each row. The others keep their caches and go on where
they were.

What a step that raises leaves behind cannot be trusted: caches may have been fed twice. So whoever was in it goes on
from the tokens he has, with a new cache. Nobody can tell whose fault it was; until they have all got through, they run
one at a time, and the one that fails alone is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final

from jobs.errors import InvalidRequest, OutOfMemory
from jobs.model import Lane
from plugins import lm_caches
from plugins.estimate import KEPT
from plugins.grammar import Grammars, Processor
from plugins.lm_adapters import Adapters
from plugins.lm_answer import Answer
from plugins.lm_cohorts import pass_tokens
from plugins.lm_group import Group, failed
from plugins.lm_groups import Groups
from plugins.lm_lines import Lines, Working, padded
from plugins.lm_memory import ADVICE, LmMemory, Verdict, weights_of
from plugins.lm_new_group import NewGroup
from plugins.lm_pace import Pace
from plugins.lm_parts import Formats, Spelling
from plugins.lm_prefix_disk import Place, PrefixDisk
from plugins.lm_prefixes import Prefixes
from plugins.lm_request import Limits, parse, tokenise
from plugins.lm_speculation import Draft
from plugins.lm_turns import Turns, bounds_of
from plugins.lm_ways import Ways
from plugins.mlx_process import on_cpu, out_of_memory
from plugins.runtime import Event

#: Tokens of a prompt in the largest piece that is computed at once.
PIECE: Final = 2048
#: Bytes of freed buffers that an idle session keeps: the next question takes them at once, where asking a GPU's driver
#: for them again takes some tokens' time.
_KEPT: Final = 256 * 1024**2


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
        prefix_place: Place | None = None,
        token_bytes: int = 0,
        draft: Draft | None = None,
        options: Mapping[str, Any] | None = None,
        adapter_bytes: int = 1 << 40,
        about: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limits = limits
        self._stops = set(tokenizer.eos_token_ids)
        self._grammars = Grammars(tokenizer._tokenizer, vocabulary=limits.vocabulary, stops=self._stops)  # noqa: SLF001 - llguidance wants the tokenizer under mlx_lm's wrapper
        self._formats = Formats(tokenizer)
        self._spelling = Spelling(tokenizer)
        self._unbatched = lm_caches.batchable(model)
        self._adapters = Adapters(model, limit=adapter_bytes)
        self._ways = Ways(model, self._adapters, draft=draft, options=options, element=4 if on_cpu() else 2)
        self._token_bytes = max(1, token_bytes)
        alone, bounds = bool(self._unbatched), bounds_of(options or {})
        self._pace = Pace(PIECE)
        self._disk = None
        if prefix_place is not None:
            self._disk = PrefixDisk(prefix_place, fresh=partial(lm_caches.fresh, model), cost=self._pace.seconds)
        self._prefixes = Prefixes(prefix_bytes, keeper=self._disk, shares=cache(partial(_can_share, model)))
        self.memory = LmMemory(
            weights=weights_of(model) + (weights_of(draft.model) if draft is not None else 0),
            token_bytes=token_bytes,
            tokens=cache_tokens,
            kept=lambda: self._prefixes.size,
            keep=self._prefixes.allow,
            most_kept=prefix_bytes,
        )
        self._lines = Lines(batch=1 if alone else max(1, batch), memory=self.memory, alone=alone, bounds=bounds)
        self._turns = Turns(bounds)
        self._new_group = NewGroup(
            model=model,
            prefixes=self._prefixes,
            pace=self._pace,
            stops=self._stops,
            vocabulary=limits.vocabulary,
            draft=draft,
            alone=alone,
            one_pass=pass_tokens(weights_of(model), token_bytes),
            clock=clock,
        )
        self._groups = Groups(self._new_group)
        #: Whether something was answered since memory was looked after.
        self._tired = False
        self.info: Mapping[str, Any] = {
            **(about or {}),
            "context": limits.context,
            "vocabulary": limits.vocabulary,
            "chat_template": bool(tokenizer.has_chat_template),
            "tools": self._formats.calls_tools,
            "draft_model": draft is not None,
            "device": "cpu" if on_cpu() else "gpu",
            "dtype": _dtype(model),
        }

    @property
    def busy(self) -> bool:
        """Whether there are answers to work on, something is to be written or memory to be given back."""
        return self._answering or self._tired or (self._disk is not None and self._disk.busy)

    @property
    def _answering(self) -> bool:
        return (bool(self._lines) and not self.memory.wanted) or self._groups.busy

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
            parts=self._formats.of(asked, prompt.tokens),
            spell=self._spelling,
            way=self._ways(request, asked, length=len(prompt.tokens) + min(asked.max_tokens, room)),
        )
        if asked.max_tokens > room and "max_tokens" in asked.model_fields_set:
            answer.notes.append(f"max_tokens was lowered to {room}: prompt and answer may have {self._limits.context}.")
        if self._unbatched:
            answer.notes.append(f"Answered alone: mlx-lm cannot batch this kind of model ({self._unbatched}).")
        self.memory.wanted = 0  # whoever stood at the head of the line may not do so any more
        self._prefixes.see(answer.prompt, answer.way.plan.adapter)
        self._lines.add(answer)

    def cancel(self, request_id: str) -> None:
        """Forget a request, wherever it is."""
        self.memory.wanted = 0
        self._lines.drop(request_id)
        for group in self._groups:
            group.drop([one for one in group.answers if one.id == request_id])
        self._groups.tidy()

    def step(self) -> Iterable[Event]:
        """Compute a piece of a prompt and draw a token for each row of the lane whose turn it is."""
        refused = self._admit()
        lane = self._turns.next(self._groups.lanes)
        if self._disk is not None:
            self._disk.pump(wait=lane is None)
        if lane is None:
            self._rest()
            return refused
        self._tired = True
        group = self._groups.next(lane)
        # Nobody waits for the next word of a batch answer: there only the throughput counts.
        others = any(len(one.rows) for one in self._groups if one.lane is not Lane.BATCH)
        try:
            self._adapters.use(group.plan.adapter)
            events, drawn = group.compute(others=others)
        except Exception as error:  # noqa: BLE001 - a processor, a shape, a full GPU: the session must live on
            return [*refused, *self._recover(group, error)]
        events += group.tell(drawn)
        self._groups.tidy()
        self.memory.step(self._held)
        return [*refused, *events]

    def close(self) -> None:
        """Give the caches back; the rest of the memory goes with the process."""
        self._lines.clear()
        for group in self._groups:
            group.drop(group.answers)
        self._prefixes.clear()
        if self._disk is not None:
            self._disk.close()

    def _rest(self) -> None:
        """Look after memory once there is nothing to answer; in a step of its own, so that no end waits for it."""
        if self._tired and not self._answering:
            self._tired = False
            self.memory.rest()
            _give_back(_KEPT)

    def _admit(self) -> list[Event]:
        """Let those begin who have room; return what is told to those who never will have."""
        refused: list[Event] = []
        while self._lines:
            working = self._groups.answers
            reading = {lane: sum(len(one.prompts) for one in self._groups if one.lane is lane) for lane in Lane}
            used = {one.way.plan.adapter for answers in working.values() for one in answers}
            fits = partial(self._fits, working=working, used=used)
            answer = self._lines.next(working, reading, fits, taken=self._adapters.size // self._token_bytes)
            if answer is None:
                return refused
            if not working and (verdict := self.memory.verdict(answer.cost)) is not Verdict.BEGIN:
                if verdict is Verdict.WAIT:
                    self._lines.put_back(answer)
                    return refused
                refused.append(failed(answer, self.memory.refusal(answer.cost), OutOfMemory.slug))
                continue
            try:
                if answer.way.adapter is not None:
                    self._adapters.load(answer.way.adapter, used=used)
            except (ValueError, OSError, RuntimeError) as error:  # not for this model; gone since; damaged inside
                refused.append(failed(answer, str(error), InvalidRequest.slug))
                continue
            self._groups.of(answer.request.lane, answer.way.plan).begin(answer)
        return refused

    def _fits(self, answer: Answer, *, working: Working, used: Collection[str]) -> bool:
        """Whether the adapter of *answer* can be loaded, and the draft model is free in its lane."""
        if answer.way.adapter is not None and not self._adapters.fits(answer.way.adapter, used=used):
            return False
        if not answer.way.plan.draft_tokens:
            return True
        return not any(lane is answer.request.lane and plan.draft_tokens for lane, plan in working)

    def _recover(self, group: Group, error: Exception) -> list[Event]:
        """Begin anew after a step that raised: with what was in it, and no other lane's."""
        caught, held = group.answers, sum(padded(one.answers) for one in self._groups)
        self._groups.renew(group)
        _give_back(0)
        if out_of_memory(error) and self._groups.busy + len(caught) > 1:
            self._with_fewer(caught, held)
            return []
        if len(caught) == 1:
            return [_hopeless(caught[0], error)]
        for answer in caught:
            answer.notes.append("A failure in the batch: this answer was continued alone.")
        self._lines.suspects += caught
        return []

    def _with_fewer(self, caught: list[Answer], held: int) -> None:
        """Let those whom memory did not suffice for begin again, fewer at once."""
        self.memory.ran_out(held)
        for answer in reversed(caught):
            answer.notes.append("Memory ran out: this answer was continued with fewer others beside it.")
            self._lines.put_back(answer)

    def _held(self) -> int:
        """Return the tokens that the caches of the rows hold now."""
        return sum(group.rows.held for group in self._groups)

    def _processors(self, answer: Answer) -> list[Processor]:
        """Return fresh logits processors for *answer*, which may have begun in another batch."""
        from mlx_lm.sample_utils import make_logits_processors

        made: list[Processor] = make_logits_processors(
            logit_bias=answer.request.logit_bias or None,
            repetition_penalty=answer.request.repetition_penalty,
            presence_penalty=answer.request.presence_penalty,
            frequency_penalty=answer.request.frequency_penalty,
        )
        if answer.request.json_schema is not None:
            matcher = self._grammars.matcher(answer.request.json_schema)
            matcher.consume_tokens(answer.tokens)
            made.append(self._grammars.processor(matcher, seen=len(answer.context)))
        return made


def _hopeless(answer: Answer, error: Exception) -> Event:
    if out_of_memory(error):
        return failed(answer, f"Memory ran out with nothing else under way: {error}. {ADVICE}", OutOfMemory.slug)
    return failed(answer, f"The model could not go on with this request: {error}")


def _can_share(model: Any) -> bool:
    """Whether rows of *model* can hold a common beginning together; the engine is imported here, not in the daemon."""
    from plugins import lm_shared

    return lm_shared.usable(model)


def _give_back(kept: int) -> None:
    """Give the caches of finished answers back to the system, if they are more than *kept* bytes."""
    import mlx.core as mx

    if mx.get_cache_memory() > kept:
        mx.clear_cache()


def _dtype(model: Any) -> str:
    """Return the number format of most of the weights."""
    from mlx.utils import tree_flatten

    sizes: dict[str, int] = {}
    weights: Any = tree_flatten(model.parameters())
    for _, weight in weights:
        name = str(weight.dtype).removeprefix("mlx.core.")
        sizes[name] = sizes.get(name, 0) + weight.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ""
