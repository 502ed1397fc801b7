"""How the next tokens of a batch are drawn: all rows that sample together, whatever their parameters.

One sort serves every row's top-p and top-k, and greedy rows need no probabilities at all; a sampler for each row costs
half of the speed at 16 rows. A seeded row draws from its own random stream, whoever else is in the batch; the logits it
draws from are the same on a CPU whatever the batch, on a GPU they may differ in the last bits with the batch's size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

#: Temperatures below this one leave nothing to chance, and their inverses no numbers (the bound is vLLM's).
_COLD: Final = 1e-5


class Draw(NamedTuple):
    """The parameters of a draw; a temperature of 0 takes the likeliest token."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature < _COLD


class Stream:
    """A row's own random numbers: the draw of each token depends on the seed and the token's number, and nothing else.

    So an answer that goes on in another batch, after a failure, draws what it would have drawn without it.
    """

    def __init__(self, seed: int, *, at: int = 0) -> None:
        """*at* is the number of the first token that is drawn."""
        self._seed = seed
        self._at = at

    def next(self) -> Any:
        """Return a key that is used once."""
        key = self.ahead(0)
        self.skip(1)
        return key

    def ahead(self, tokens: int) -> Any:
        """Return the key of the draw so many *tokens* after the next one."""
        import mlx.core as mx

        digest = hashlib.blake2b(b"%d %d" % (self._seed, self._at + tokens), digest_size=8).digest()
        return mx.random.key(int.from_bytes(digest))

    def skip(self, tokens: int) -> None:
        """Go on so many *tokens* later."""
        self._at += tokens


class Drawing:
    """Draws for a batch whose rows do not change: made anew when one joins or leaves.

    *streams* has a row's own random numbers, or None for a row without a seed.
    """

    def __init__(self, draws: Sequence[Draw], streams: Sequence[Stream | None]) -> None:
        import mlx.core as mx

        self._rows = len(draws)
        self._sampled = [row for row, draw in enumerate(draws) if not draw.greedy]
        self._streams = [streams[row] for row in self._sampled]
        chosen = [draws[row] for row in self._sampled]
        if not chosen:
            return
        self._at = mx.array(self._sampled)
        self._inverse = mx.array([[1 / draw.temperature] for draw in chosen])
        self._filtered = any(draw.top_p < 1 or draw.top_k > 0 for draw in chosen)
        self._top_p = mx.array([[draw.top_p if draw.top_p < 1 else 2.0] for draw in chosen])
        self._top_k = mx.array([[draw.top_k or 2**30] for draw in chosen])
        self._least = [math.log(draw.min_p) if draw.min_p > 0 else -math.inf for draw in chosen]
        self._min_p = mx.array([[one] for one in self._least]) if max(self._least) > -math.inf else None

    def __call__(self, logits: Any) -> Any:
        """Return the tokens drawn from *logits*, of the shape (rows, vocabulary)."""
        import mlx.core as mx

        if not self._sampled:
            return mx.argmax(logits, axis=-1)
        if len(self._sampled) == self._rows:
            return self._draw(logits)
        return mx.put_along_axis(mx.argmax(logits, axis=-1), self._at, self._draw(logits[self._at]), axis=0)

    def _draw(self, logits: Any) -> Any:
        import mlx.core as mx

        kept = self._keep(logits.astype(mx.float32)) * self._inverse
        if not any(self._streams):
            return mx.random.categorical(kept)
        drawn = []
        for row, stream in enumerate(self._streams):
            key = stream.next() if stream is not None else None
            drawn.append(mx.random.categorical(kept[row : row + 1], key=key))
        return mx.concatenate(drawn)

    def _keep(self, logits: Any) -> Any:
        """Return *logits* with minus infinity for what top-p, top-k and min-p rule out.

        Each rule drops the unlikeliest, so that together they keep what is above the highest of their thresholds; ties
        at a threshold stay.
        """
        import mlx.core as mx

        if self._filtered:
            ordered = mx.sort(logits, axis=-1)
            size = ordered.shape[-1]
            masses = mx.softmax(ordered, axis=-1)
            above = mx.cumsum(masses, axis=-1, reverse=True, inclusive=False)
            by_mass = (above >= self._top_p).sum(axis=-1, keepdims=True)
            by_count = mx.maximum(size - self._top_k, 0)
            dropped = mx.minimum(mx.maximum(by_mass, by_count), size - 1)
            logits = mx.where(logits < mx.take_along_axis(ordered, dropped, axis=-1), -math.inf, logits)
        if self._min_p is not None:
            logits = mx.where(logits < mx.max(logits, axis=-1, keepdims=True) + self._min_p, -math.inf, logits)
        return logits
