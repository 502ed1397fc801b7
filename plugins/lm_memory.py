"""A language model's memory: how many tokens its caches may hold together, by the runner's share of the machine.

What a runner takes is reckoned as ``fixed + tokens * token_bytes * factor``: *fixed* is the process, the weights and a
twentieth of them for activations (`plugins.estimate`); *factor* is learned from MLX's own peaks. A request is counted
with all tokens that it may come to, and rows of a batch with those of the longest.

What happens to the next request, when nothing else is under way (`verdict`):

1. It fits into the share: it **begins**.
2. The daemon has not answered yet, or is making room: it **waits**, and `wanted` says for how much.
3. It would fit if every other model were unloaded, but those are in use: it **begins** all the same, with nothing
   beside it. Waiting could be for ever: those may be waiting for us.
4. It can never fit: it is **refused**, with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Final

from jobs.model import Lane
from plugins import mlx_process
from plugins.estimate import KEPT, PROCESS
from plugins.runtime import Share

#: Bounds of what is learned of a token's bytes: a window or a state that does not grow takes less, copying more.
LEAST_FACTOR: Final = 0.25
MOST_FACTOR: Final = 4.0
#: Share of what was under way that is tried next when memory has run out.
BACK: Final = 0.75
#: A peak teaches something only when the caches were reckoned with this many bytes, and a tenth of the weights.
_TELLING: Final = 64 * 1024**2
#: What was learned before weighs so much, where less was found; more is believed at once.
_INERTIA: Final = 0.9
#: Between two samples of the tokens held pass so many steps.
_EVERY: Final = 16


class Verdict(Enum):
    """What happens to the next request when nothing else is under way."""

    BEGIN = "begin"
    WAIT = "wait"
    REFUSE = "refuse"


class LmMemory:
    """See `plugins.runtime.Memory`.

    *weights* in bytes as loaded, *token_bytes* of the caches of one token as reckoned, *tokens* those that the caches
    may hold before a share is known. *kept* tells the bytes of prompts' beginnings, *keep* sets how many may be kept,
    at most *most_kept*.
    """

    def __init__(
        self,
        *,
        weights: int = 0,
        token_bytes: int = 0,
        tokens: int = 1 << 40,
        kept: Callable[[], int] = lambda: 0,
        keep: Callable[[int], None] = lambda _bytes: None,
        most_kept: int = KEPT,
        peak: Callable[[], int] | None = None,
    ) -> None:
        self._fixed = PROCESS + weights + weights // 20
        self._weights = weights
        self._token_bytes = max(1, token_bytes)
        self._kept = kept
        self._keep = keep
        self._most_kept = most_kept
        self._peak = peak or _peak_since
        self._share: Share | None = None
        self._held = 0
        self._steps = 0
        #: Tokens that the caches may hold together.
        self.tokens = tokens
        #: Lanes of which nothing begins beside other work.
        self.paused: frozenset[Lane] = frozenset()
        self.wanted = 0
        self.factor = 1.0
        self.ceiling: int | None = None

    @property
    def spare(self) -> int:
        """Return the bytes that are kept for speed alone."""
        return self._kept() + mlx_process.cached_bytes()

    # -- what the daemon says ---------------------------------------------------------------------------------------

    def limit(self, share: Share) -> None:
        """Take a new share."""
        if self._share is None:
            self.factor = min(MOST_FACTOR, max(LEAST_FACTOR, share.factor))
        if self.ceiling is not None and share.memory > self.ceiling:  # sent before the daemon heard of it
            share = share._replace(memory=self.ceiling)
        else:
            self.ceiling = None
        self._share = share
        self.wanted = 0
        free = max(0, share.memory - self._fixed)
        kept = min(self._most_kept, free // 3)
        self._keep(kept)
        self.tokens = int((free - kept) / (self._token_bytes * self.factor))
        mlx_process.share_out(share.memory, cache=free - kept)

    def trim(self) -> None:
        """Give back freed buffers and the beginnings of prompts."""
        import mlx.core as mx

        self._keep(0)
        mx.clear_cache()
        if self._share is not None:
            self._keep(min(self._most_kept, max(0, self._share.memory - self._fixed) // 3))

    def pause(self, lanes: Collection[Lane]) -> None:
        """Begin nothing of *lanes* beside other work."""
        self.paused = frozenset(lanes)

    # -- what the session asks --------------------------------------------------------------------------------------

    def reckoned(self, tokens: int) -> int:
        """Return the bytes that the runner takes with *tokens* in its caches."""
        return self._fixed + int(tokens * self._token_bytes * self.factor)

    def verdict(self, tokens: int) -> Verdict:
        """Decide about a request of *tokens* when nothing else is under way; the cases are numbered above."""
        share = self._share
        need = self.reckoned(tokens)
        if share is None or need <= share.memory:  # 1
            return Verdict.BEGIN
        if need > share.most:  # 4
            return Verdict.REFUSE
        if share.coming or share.answers != need:  # 2
            self.wanted = need
            return Verdict.WAIT
        return Verdict.BEGIN  # 3

    def refusal(self, tokens: int) -> str:
        """Return the sentence for a request of *tokens* that can never fit."""
        most = self._share.most if self._share is not None else 0
        return (
            f"With {tokens:,} tokens of prompt and answer this needs about {self.reckoned(tokens) / 1e9:.1f} GB "
            f"together with the model, and models may have {most / 1e9:.1f} GB. {ADVICE}"
        )

    # -- what is learned --------------------------------------------------------------------------------------------

    def step(self, held: Callable[[], int]) -> None:
        """Note every so many steps how many tokens the caches hold."""
        self._steps += 1
        if self._steps % _EVERY == 0:
            self._held = max(self._held, held())

    def rest(self) -> None:
        """Learn from the peak of the work that has ended."""
        reckoned, self._held = self._held * self._token_bytes, 0
        peak = self._peak()
        if reckoned < max(_TELLING, self._weights // 10):
            return
        found = (peak - self._weights - self._kept()) / reckoned
        found = min(MOST_FACTOR, max(LEAST_FACTOR, found))
        self.factor = max(found, _INERTIA * self.factor + (1 - _INERTIA) * found)

    def ran_out(self, tokens: int) -> None:
        """Remember that memory ran out with *tokens* in the caches: less is tried from now on."""
        self.tokens = max(1, int(min(tokens, self.tokens) * BACK))
        self.ceiling = self.reckoned(self.tokens)
        self.trim()


#: What can be done when a request does not fit.
ADVICE: Final = (
    "Shorten the prompt, lower max_tokens, take a smaller model or quantised caches (kv_bits), or raise memory.budget."
)


def _peak_since() -> int:
    """Return MLX's highest use since the last call, bytes."""
    import mlx.core as mx

    peak = int(mx.get_peak_memory())
    mx.reset_peak_memory()
    return peak


def weights_of(model: Any) -> int:
    """Return the bytes of *model*'s parameters."""
    from mlx.utils import tree_flatten

    found: Any = tree_flatten(model.parameters())
    return sum(int(one.nbytes) for _, one in found)
