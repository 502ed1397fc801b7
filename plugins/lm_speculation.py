"""Speculative decoding: a small draft model guesses some tokens ahead, and one step of the model checks them all.

What is said is what the model alone would say: a guess counts only if the model draws the same token at that place.
Draft and model draw a token with the same random numbers, so that likely guesses are right more often and a seed gives
the text that it gives without a draft. Every answer accepts another number of guesses in a step, which caches of
several rows have no room for (nor has mlx-lm): one answer at a time is served like this, a round a step.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from plugins import lm_caches
from plugins.lm_caches import Cache
from plugins.lm_plan import Plan
from plugins.lm_quantised import DRAFTED_PIECE
from plugins.lm_rows import Drawn, Row
from plugins.sampling import Drawing, Stream


class Draft(NamedTuple):
    """A draft model."""

    model: Any
    #: Tokens that it has embeddings for.
    vocabulary: int
    #: Bytes of its caches by those of the model's.
    share: float = 0.0


class _Ahead:
    """The random numbers of the token that comes *by* tokens later."""

    def __init__(self, stream: Stream, by: int) -> None:
        self._stream = stream
        self._by = by

    def next(self) -> Any:
        return self._stream.ahead(self._by)


@dataclass(eq=False, kw_only=True)
class _Sequence:
    """One answer under way."""

    row: Row
    cache: Cache
    #: The token that is fed next.
    last: int
    stream: Stream
    draft_cache: Cache
    #: Tokens that the draft has not been fed yet, before *last*.
    unread: list[int]
    #: Log-probabilities of the last round are no numbers.
    broken: bool = False
    drawings: dict[tuple[int, int], Drawing] = field(default_factory=dict)

    def drawing(self, begin: int, count: int) -> Drawing:
        """Return what draws the tokens from the one *begin* places on."""
        if (begin, count) not in self.drawings:
            streams: list[Any] = [_Ahead(self.stream, begin + by) for by in range(count)]
            self.drawings[begin, count] = Drawing([self.row.draw] * count, streams)
        return self.drawings[begin, count]


class Speculation:
    """Serves its rows one after another; its methods are those of `plugins.lm_rows.Rows`."""

    def __init__(self, model: Any, draft: Draft, plan: Plan, *, vocabulary: int) -> None:
        self._model = model
        self._draft = draft
        self._plan = plan
        self._vocabulary = vocabulary
        self._sequences: list[_Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def rows(self) -> list[Row]:
        """Return the rows that are being decoded."""
        return [one.row for one in self._sequences]

    @property
    def held(self) -> int:
        """Return the tokens that the caches hold."""
        return sum(len(one.row.cached) for one in self._sequences)

    def join(self, rows: Sequence[Row], caches: Sequence[Cache], inputs: Sequence[int]) -> None:
        """Take *rows* in with their single *caches*; *inputs* are the tokens that they are fed next."""
        for row, cache, last in zip(rows, caches, inputs, strict=True):
            row.begun = True
            self._sequences.append(
                _Sequence(
                    row=row,
                    cache=cache,
                    last=last,
                    stream=row.stream or Stream(secrets.randbits(63)),
                    draft_cache=lm_caches.fresh(self._draft.model),
                    unread=list(row.cached),
                )
            )

    def leave(self, gone: Collection[Row]) -> None:
        """Take rows out; those that are not here are ignored."""
        self._sequences = [one for one in self._sequences if one.row not in gone]

    def cache_of(self, row: Row) -> Cache:
        """Return a single cache with the tokens of `Row.cached`."""
        return lm_caches.copied(self._of(row).cache)

    def broken(self, row: Row) -> bool:
        """Whether what the last step returned for *row* was drawn from what is no number."""
        return self._of(row).broken

    def step(self) -> list[Drawn]:
        """Let the draft read a piece of the prompt, or guess and check: return the tokens that are certain."""
        one = self._sequences[0]
        if len(one.unread) > 1:
            self._read(one)
            return []
        guesses = self._guess(one)
        return self._check(one, guesses)

    def _of(self, row: Row) -> _Sequence:
        return next(one for one in self._sequences if one.row is row)

    def _read(self, one: _Sequence) -> None:
        piece, one.unread = one.unread[:DRAFTED_PIECE], one.unread[DRAFTED_PIECE:]
        self._draft.model(self._readable(piece), cache=one.draft_cache)
        self._quantise(one.draft_cache)
        lm_caches.evaluate(one.draft_cache)

    def _readable(self, tokens: Any) -> Any:
        """Return *tokens* as the draft can be fed them: embeddings that it does not have would end the process."""
        import mlx.core as mx

        return mx.minimum(mx.array([tokens]), self._draft.vocabulary - 1)

    def _guess(self, one: _Sequence) -> list[Any]:
        """Draw the next tokens by the draft; they may still be on their way."""
        import mlx.core as mx

        guesses: list[Any] = []
        fed = self._readable([*one.unread, one.last])
        one.unread = []
        for by in range(self._plan.draft_tokens):
            logits = self._draft.model(fed, cache=one.draft_cache)[:, -1, : self._vocabulary]
            self._quantise(one.draft_cache)
            # A bias on a token that the draft does not have would be written into strange memory.
            if one.row.processors and logits.shape[-1] == self._vocabulary:
                logits = _processed(one.row, logits, [one.last, *guesses])
            guesses.append(one.drawing(by, 1)(logits))
            start: Any = mx.async_eval
            start(guesses[-1])
            fed = guesses[-1][None]
        return guesses

    def _check(self, one: _Sequence, guesses: list[Any]) -> list[Drawn]:
        """Draw by the model at every place that was guessed, and one more; keep what agrees."""
        import mlx.core as mx

        count = len(guesses) + 1
        fed = mx.concatenate([mx.array([one.last], dtype=mx.uint32), *guesses])
        logits = self._model(fed[None], cache=one.cache)[0, -count:, :]
        self._quantise(one.cache)
        if one.row.processors:
            lines = [_processed(one.row, logits[at : at + 1], [one.last, *guesses[:at]]) for at in range(count)]
            logits = mx.concatenate(lines)
        tokens = one.drawing(0, count)(logits)
        mx.eval(tokens, logits, fed)
        drawn: Any = tokens.tolist()
        guessed: Any = fed.tolist()
        guessed = guessed[1:]
        right = next((at for at, guess in enumerate(guessed) if guess != drawn[at]), len(guessed))
        one.broken = bool(mx.isnan(logits[: right + 1, 0]).any().item())
        self._settle(one, drawn, right, len(guessed))
        return [_told(one.row, logits[at], drawn[at], guessed=at < right) for at in range(right + 1)]

    def _settle(self, one: _Sequence, drawn: list[int], right: int, guessed: int) -> None:
        """Take wrong guesses out of the caches again, and note where the sequence is."""
        lm_caches.trim(one.cache, guessed - right)
        lm_caches.trim(one.draft_cache, max(guessed - right - 1, 0))
        one.row.cached += [one.last, *drawn[:right]]
        one.row.guessed += guessed
        one.last = drawn[right]
        # The draft has not been fed its own last guess; if that was right, it still has to be.
        one.unread = [drawn[right - 1]] if right == guessed else []
        one.stream.skip(right + 1)

    def _quantise(self, cache: Cache) -> None:
        """Quantise *cache* when it has come so far, as mlx-lm does after each call of a model."""
        from mlx_lm.generate import maybe_quantize_kv_cache

        if (kv := self._plan.kv) is not None:
            turn: Any = maybe_quantize_kv_cache
            turn(cache, kv.start, kv.group_size, kv.bits)


def _processed(row: Row, logits: Any, more: Sequence[Any]) -> Any:
    """Let the row's processors change one line of *logits*, before which *more* was fed."""
    import mlx.core as mx

    tail = [mx.array([token], dtype=mx.uint32) if isinstance(token, int) else token for token in more]
    context = mx.concatenate([mx.array(row.cached, dtype=mx.uint32), *tail])
    for process in row.processors:
        logits = process(context, logits)
    return logits


def _told(row: Row, logits: Any, token: int, *, guessed: bool) -> Drawn:
    import mlx.core as mx

    if row.logprobs is None:
        return Drawn(row=row, token=token, guessed=guessed)
    line: Any = logits.astype(mx.float32)
    line = line - mx.logsumexp(line)
    likeliest: Any = mx.argsort(-line)[: row.logprobs]
    top = list(zip(likeliest.tolist(), line[likeliest].tolist(), strict=True))
    return Drawn(row=row, token=token, logprob=line[token].item(), top=top, guessed=guessed)
