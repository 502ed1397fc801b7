"""Sequences that are being decoded together: one step draws one token for each.

The next step is started before the tokens of the last one are looked at, so that the device never waits for Python. A
sequence alone has a plain cache and pays nothing for the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from plugins import lm_caches
from plugins.lm_caches import Cache
from plugins.sampling import Draw, Drawing, Stream

#: Steps between two times that freed buffers are given back.
_TIDY: Final = 512


@dataclass(eq=False, kw_only=True)
class Row:
    """One sequence: what is in its cache, and how its tokens are drawn."""

    #: Whose it is; not looked at here.
    owner: Any
    #: Tokens in the cache, without the one that is fed next.
    cached: list[int]
    draw: Draw = field(default_factory=Draw)
    stream: Stream | None = None
    #: Called with all tokens and the row's logits before a token is drawn.
    processors: Sequence[Any] = ()
    #: How many of the likeliest tokens are told beside each drawn one; None for no probabilities at all.
    logprobs: int | None = None
    #: `cached` and what is fed now, for the processors.
    context: Any = None
    #: Whether the end of its prompt was fed.
    begun: bool = False
    #: Tokens that a draft model has guessed for it.
    guessed: int = 0


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One row's next token."""

    row: Row
    token: int
    #: Natural logarithm of the token's probability, and the likeliest tokens with theirs, if the row asked.
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()
    #: Whether a draft model had guessed it.
    guessed: bool = False


#: Row -> log-probability of its token, the likeliest tokens, their log-probabilities.
Told = Mapping[Row, tuple[Any, Any, Any]]


class Decoder(Protocol):
    """What decodes rows: `Rows`, or what does it another way."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    @property
    def rows(self) -> list[Row]:
        """Return the rows that are being decoded."""

    @property
    def held(self) -> int:
        """Return the tokens that the caches hold, padding and all."""

    def join(self, rows: Sequence[Row], caches: Sequence[Cache], inputs: Sequence[int]) -> None:
        """Take *rows* in with their single *caches*; *inputs* are the tokens that they are fed next."""

    def leave(self, gone: Collection[Row]) -> None:
        """Take rows out; those that are not here are ignored."""

    def cache_of(self, row: Row) -> Cache:
        """Return a single cache with what *row* has in its own: the tokens of `Row.cached`."""

    def step(self) -> list[Drawn]:
        """Compute one step for the rows and return what is certain by now."""

    def broken(self, row: Row) -> bool:
        """Whether what the last step returned for *row* was drawn from what is no number."""


class _Coming(NamedTuple):
    """What was started and not yet looked at: for *rows*, in their order."""

    rows: tuple[Row, ...]
    #: Whether a row's logits are no numbers.
    broken: Any
    told: Told


class Rows:
    """A batch of sequences, all on one thread."""

    def __init__(self, model: Any, *, slack: float = 0.0) -> None:
        """*slack* is the share of the batch that may have left before the caches are copied to be without it."""
        self._model = model
        self._slack = slack
        #: Those in the caches, in their order; who has left is computed in vain until the next copy.
        self._places: list[Row] = []
        self._gone: set[Row] = set()
        #: Of all of them; plain for one alone.
        self.cache: Cache = []
        #: The tokens that are fed next; they may still be on their way.
        self._next: Any = None
        self._coming = self._seen = _Coming((), None, {})
        self._drawing = Drawing((), ())
        self._steps = 0

    def __len__(self) -> int:
        return len(self._places) - len(self._gone)

    @property
    def rows(self) -> list[Row]:
        """Return the rows that are being decoded."""
        return [row for row in self._places if row not in self._gone]

    @property
    def longest(self) -> int:
        """Return the tokens of the longest row."""
        return max((len(row.cached) for row in self._places), default=0)

    @property
    def held(self) -> int:
        """Return the tokens that the caches hold, padding and all."""
        return len(self._places) * self.longest

    def join(self, rows: Sequence[Row], caches: Sequence[Cache], inputs: Sequence[int]) -> None:
        """Take *rows* in with their single *caches*; *inputs* are the tokens that they are fed next."""
        import mlx.core as mx

        self._take(rows, caches, mx.array(list(inputs), dtype=mx.uint32))

    def _take(self, rows: Sequence[Row], caches: Sequence[Cache], fed: Any) -> None:
        import mlx.core as mx

        self._tidy()
        if self._places:
            ours = lm_caches.merged([self.cache]) if len(self._places) == 1 else self.cache
            self.cache = lm_caches.extended(ours, lm_caches.merged(caches))
            self._next = mx.concatenate([self._next, fed])
        else:
            self.cache = lm_caches.merged(caches) if len(rows) > 1 else caches[0]
            self._next = fed
        self._places += rows
        self._changed()

    def move(self, rows: Sequence[Row], to: Rows, change: Callable[[Cache], Cache] | None = None) -> None:
        """Let *rows* go on among those of *to*, their single caches changed by *change*; waits for nothing."""
        import mlx.core as mx

        caches = [self.cache_of(row) for row in rows]
        if change is not None:
            caches = [change(cache) for cache in caches]
        fed = self._next[mx.array([self._places.index(row) for row in rows])]
        told = {row: self._coming.told[row] for row in rows if row in self._coming.told}
        self.leave(rows)
        to._take(rows, caches, fed)
        to._coming = to._coming._replace(told={**to._coming.told, **told})

    def leave(self, gone: Collection[Row]) -> None:
        """Take rows out; those that are not here are ignored."""
        self._gone.update(row for row in gone if row in self._places)
        if not len(self) or len(self._gone) > self._slack * len(self._places):
            self._tidy()

    def _tidy(self) -> None:
        """Copy the caches so that only those are in them that have not left."""
        import mlx.core as mx

        if not self._gone:
            return
        keep = [at for at, row in enumerate(self._places) if row not in self._gone]
        if not keep:
            self.cache, self._next = [], None
        else:
            alone = len(keep) == 1
            self.cache = lm_caches.extracted(self.cache, *keep) if alone else lm_caches.filtered(self.cache, keep)
            self._next = self._next[mx.array(keep)]
        self._places, self._gone = [self._places[at] for at in keep], set()
        self._changed()

    def cache_of(self, row: Row) -> Cache:
        """Return a single cache with what *row* has in its own: the tokens of `Row.cached`."""
        at = self._places.index(row)
        return lm_caches.copied(self.cache) if len(self._places) == 1 else lm_caches.extracted(self.cache, at)

    def step(self) -> list[Drawn]:
        """Feed what was drawn last, start the next draw, and return what was fed, without the ends of prompts."""
        import mlx.core as mx

        fed, self._seen = self._next, self._coming
        logits = self._model(fed[:, None], cache=self.cache)[:, -1, :]
        logits, contexts = self._processed(logits, fed)
        self._next = self._drawing(logits)
        self._coming = _Coming(tuple(self._places), mx.isnan(logits[:, 0]), self._probabilities(logits))
        started: Any = mx.async_eval
        started(self._next, self._coming.broken, *self._coming.told.values(), contexts)
        drawn = []
        for row, token in zip(self._places, fed.tolist(), strict=True):
            if row in self._gone:
                continue
            row.cached.append(token)
            if row.begun:
                drawn.append(self._drawn(row, token))
            row.begun = True
        self._steps += 1
        if self._steps % _TIDY == 0:
            mx.clear_cache()
        return drawn

    def broken(self, row: Row) -> bool:
        """Whether the token that the last step returned for *row* was drawn from what is no number."""
        return row in self._seen.rows and bool(self._seen.broken.tolist()[self._seen.rows.index(row)])

    def _drawn(self, row: Row, token: int) -> Drawn:
        found = self._seen.told.get(row)
        if found is None:
            return Drawn(row=row, token=token)
        own, likeliest, theirs = found
        return Drawn(
            row=row, token=token, logprob=own.item(), top=list(zip(likeliest.tolist(), theirs.tolist(), strict=True))
        )

    def _probabilities(self, logits: Any) -> dict[Row, tuple[Any, Any, Any]]:
        """Return what those rows want to know that asked for probabilities: of the logits after the processors."""
        import mlx.core as mx

        found = {}
        for at, row in enumerate(self._places):
            if row.logprobs is not None and row not in self._gone:
                line = logits[at].astype(mx.float32)
                line = line - mx.logsumexp(line)
                likeliest = mx.argsort(-line)[: row.logprobs]
                found[row] = line[self._next[at]], likeliest, line[likeliest]
        return found

    def _processed(self, logits: Any, fed: Any) -> tuple[Any, list[Any]]:
        """Let the rows' processors change their logits."""
        import mlx.core as mx

        which = [at for at, row in enumerate(self._places) if row.processors and row not in self._gone]
        if not which:
            return logits, []
        lines, contexts = [logits[at : at + 1] for at in range(len(self._places))], []
        for at in which:
            row = self._places[at]
            before = mx.array(row.cached, dtype=fed.dtype) if row.context is None else row.context
            row.context = mx.concatenate([before, fed[at : at + 1]])
            contexts.append(row.context)
            for process in row.processors:
                lines[at] = process(row.context, lines[at])
        return mx.concatenate(lines), contexts

    def _changed(self) -> None:
        self._drawing = Drawing([row.draw for row in self._places], [row.stream for row in self._places])
        lm_caches.set_padded(self.cache, padded=len({len(row.cached) for row in self._places}) > 1)
