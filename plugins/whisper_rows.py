"""Windows whose text is decoded together: one step draws one token for each.

The next step is started before the tokens of the last one are looked at, so that the device never waits for Python.
Rows of different lengths are padded on the left; who has left may stay for a while, computed in vain, because copying
the keys and values of the others costs more (they are 30 MB a window in large-v3-turbo).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, cast

from plugins import whisper_net as net
from plugins.whisper_net import Layer
from plugins.whisper_rules import Rules, Said


@dataclass(eq=False, kw_only=True)
class Row:
    """One window being decoded once, at one temperature."""

    #: Whose it is; not looked at here.
    owner: Any
    #: What is fed before the first token is drawn: the text before it, and the tokens that steer the model.
    prompt: Sequence[int]
    #: Where in *prompt* the text of the window is said to start: there the model tells whether anybody speaks at all.
    start: int
    #: The encoded sound, (1500, state).
    features: Any
    temperature: float = 0.0
    #: What is drawn at a temperature depends on this number and on nothing else.
    seed: int = 0
    tokens: list[int] = field(default_factory=list)
    #: Sum of the natural logarithms of the tokens' probabilities, the end included.
    logprob: float = 0.0
    no_speech_prob: float = 0.0
    ended: bool = False


class _Coming(NamedTuple):
    """What was started and not yet looked at, for *rows* in their order: arrays (rows,)."""

    rows: tuple[Row, ...]
    token: Any
    logprob: Any
    #: What the rules remember of the tokens before.
    said: Said


class Rows:
    """A batch of windows, all on one thread."""

    def __init__(self, model: Any, rules: Rules, *, no_speech: int | None, slack: float = 0.0) -> None:
        """*slack* is the share of the batch that may have left before the others are copied to be without it."""
        self._model = model
        self._rules = rules
        self._no_speech = no_speech
        self._slack = slack
        self._context = int(model.dims.n_text_ctx)
        self._longest = self._context // 2
        self._places: list[Row] = []
        self._gone: set[Row] = set()
        self._layers: list[Layer] = []
        self._padding: list[int] = []
        self._coming: _Coming | None = None

    def __len__(self) -> int:
        return len(self._places) - len(self._gone)

    @property
    def rows(self) -> list[Row]:
        """Return the windows that are being decoded."""
        return [row for row in self._places if row not in self._gone]

    def join(self, rows: Sequence[Row]) -> None:
        """Take *rows* in: their prompts are fed and their first tokens started."""
        self._forget_gone()
        for _, alike in groupby(sorted(rows, key=lambda row: len(row.prompt)), key=lambda row: len(row.prompt)):
            self._begin(list(alike))
        self._start_coming()

    def step(self) -> list[Row]:
        """Add a token to each row; return the rows that have ended, which are out of the batch then."""
        coming = self._coming
        if coming is None:
            return []
        # Before the tokens are looked at; rows that turn out to have ended are computed once in vain.
        self._go_on(coming)
        tokens, logprobs = coming.token.tolist(), coming.logprob.tolist()
        ended = []
        for row, token, logprob in zip(coming.rows, tokens, logprobs, strict=True):
            if row in self._gone:
                continue
            self._take(row, token, logprob)
            if row.ended:
                ended.append(row)
        self.leave(ended)
        return ended

    def leave(self, rows: Collection[Row]) -> None:
        """Take *rows* out, whether they have ended or not."""
        self._gone.update(row for row in rows if row in self._places)
        if len(self._gone) == len(self._places) or len(self._gone) > self._slack * len(self._places):
            self._forget_gone()

    def _take(self, row: Row, token: int, logprob: float) -> None:
        row.logprob += logprob
        if token == self._rules.end:
            row.ended = True
            return
        row.tokens.append(token)
        row.ended = len(row.tokens) >= self._longest or len(row.prompt) + len(row.tokens) > self._context

    # -- what is under way ------------------------------------------------------------------------------------------

    def _begin(self, rows: list[Row]) -> None:
        """Feed the prompts of *rows*, equally long, and put them beside those that are there."""
        import mlx.core as mx

        features = mx.stack([row.features for row in rows])
        hidden, layers = net.begin(self._model, mx.array([list(row.prompt) for row in rows]), features)
        told = net.logits(self._model, mx.stack([hidden[at, row.start] for at, row in enumerate(rows)]))
        if self._no_speech is not None:
            silences = cast("list[float]", mx.softmax(told, axis=-1)[:, self._no_speech].tolist())
            for row, silence in zip(rows, silences, strict=True):
                row.no_speech_prob = silence
        if any(row.start != len(row.prompt) - 1 for row in rows):
            told = net.logits(self._model, hidden[:, -1])
        said = self._rules.start(len(rows))
        chosen = self._rules.choose(told, said, self._hot(rows))
        self._add(rows, layers, _Coming(tuple(rows), chosen.token, chosen.logprob, said))

    def _add(self, rows: list[Row], layers: list[Layer], coming: _Coming) -> None:
        import mlx.core as mx

        length, here = len(rows[0].prompt), self._length
        if self._coming is None:
            self._places, self._padding = list(rows), [0] * len(rows)
            self._layers, self._coming = layers, coming
            return
        whole = max(length, here)
        self._padding = [one + whole - here for one in self._padding] + [whole - length] * len(rows)
        self._layers = [_beside(old, new, whole) for old, new in zip(self._layers, layers, strict=True)]
        before = self._coming
        token, logprob = mx.concatenate([before.token, coming.token]), mx.concatenate([before.logprob, coming.logprob])
        said = Said(*(mx.concatenate([old, new]) for old, new in zip(before.said, coming.said, strict=True)))
        self._coming = _Coming((*before.rows, *rows), token, logprob, said)
        self._places += rows

    def _start_coming(self) -> None:
        import mlx.core as mx

        if self._coming is not None:
            start: Any = mx.async_eval
            start(self._coming.token, self._coming.logprob, self._coming.said, self._layers)

    def _go_on(self, coming: _Coming) -> None:
        """Feed the tokens that are coming, and start the next ones."""
        import mlx.core as mx

        length = self._length
        padding = mx.array(self._padding)
        mask = None
        if any(self._padding):
            there = mx.arange(length + 1)[None] >= padding[:, None]
            mask = mx.where(there, 0.0, -mx.inf)[:, None, None].astype(self._layers[0].keys.dtype)
        positions = mx.minimum(length - padding, self._context - 1)
        hidden, self._layers = net.go_on(self._model, coming.token, self._layers, positions, mask)
        said = self._rules.after(coming.said, coming.token)
        chosen = self._rules.choose(net.logits(self._model, hidden[:, 0]), said, self._hot(self._places))
        self._coming = _Coming(tuple(self._places), chosen.token, chosen.logprob, said)
        self._start_coming()

    def _hot(self, rows: Sequence[Row]) -> list[tuple[int, float, Any]]:
        """Return the places that are drawn by chance, with a random key for each that no other row has a part in."""
        import mlx.core as mx

        return [
            (at, row.temperature, mx.random.key(row.seed * self._context + self._drawn(row)))
            for at, row in enumerate(rows)
            if row.temperature > 0 and row not in self._gone
        ]

    def _drawn(self, row: Row) -> int:
        """Return how many tokens of *row* were started."""
        return len(row.tokens) + (self._coming is not None and row in self._coming.rows)

    @property
    def _length(self) -> int:
        return int(self._layers[0].keys.shape[2]) if self._layers else 0

    def _forget_gone(self) -> None:
        """Copy the caches so that only those are in them who are still here, without padding that all have."""
        import mlx.core as mx

        if not self._gone:
            return
        kept = [at for at, row in enumerate(self._places) if row not in self._gone]
        self._gone.clear()
        if not kept or self._coming is None:
            self._places, self._padding, self._layers, self._coming = [], [], [], None
            return
        spare = min(self._padding[at] for at in kept)
        index = mx.array(kept)
        self._places = [self._places[at] for at in kept]
        self._padding = [self._padding[at] - spare for at in kept]
        self._layers = [
            Layer(
                one.keys[index, :, spare:],
                one.values[index, :, spare:],
                one.sound_keys[index],
                one.sound_values[index],
            )
            for one in self._layers
        ]
        coming = self._coming
        said = Said(*(part[index] for part in coming.said))
        self._coming = _Coming(tuple(self._places), coming.token[index], coming.logprob[index], said)


def _beside(old: Layer, new: Layer, length: int) -> Layer:
    """Return the rows of both, padded on the left to *length*."""
    import mlx.core as mx

    return Layer(
        mx.concatenate([_padded(old.keys, length), _padded(new.keys, length)]),
        mx.concatenate([_padded(old.values, length), _padded(new.values, length)]),
        mx.concatenate([old.sound_keys, new.sound_keys]),
        mx.concatenate([old.sound_values, new.sound_values]),
    )


def _padded(cache: Any, length: int) -> Any:
    import mlx.core as mx

    return mx.pad(cache, [(0, 0), (0, 0), (length - cache.shape[2], 0), (0, 0)])
