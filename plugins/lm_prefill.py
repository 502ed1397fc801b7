"""Prompts on their way into caches, a piece at a time, so that whoever is being answered meanwhile is not held up.

A long prompt is computed alone, in pieces; alone it needs no mask. Short ones are computed together in one piece. What
several prompts begin with is computed by the first of them, up to where they part, and kept for the others. A prompt
that nobody shared anything with is kept, too: the next job may begin as it did. What is on the disk is read in pieces,
as the rest is computed in pieces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from plugins import lm_caches
from plugins.lm_caches import Cache
from plugins.lm_pace import LEAST, Pace
from plugins.lm_plan import Quantised
from plugins.lm_prefix_disk import UNREADABLE, Loading
from plugins.lm_prefixes import Prefixes, array, common
from plugins.lm_quantised import PIECE, quantise, quantised, turning

#: The most prompts computed together.
TOGETHER: Final = 16
_TOGETHER_SHARED: Final = 64
#: Tokens that short prompts are padded to, at least.
_LEAST_TOGETHER: Final = 16
#: Bytes that are read at once, while somebody is being answered and while nobody is.
_READ: Final = 16 << 20
_READ_ALONE: Final = 256 << 20


class Prompt:
    """One prompt. The last of its *tokens* is never computed here: it begins the answer."""

    def __init__(self, owner: Any, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ValueError("a prompt has at least one token")
        self.owner = owner
        self.tokens = list(tokens)
        self.array = array(tokens)
        #: Holds the first `done` tokens; None until something was computed or found.
        self.cache: Cache | None = None
        self.done = 0
        #: How many of the tokens were found and not computed.
        self.found = 0
        #: The state of the store of prefixes when it was last asked.
        self.looked_up = -1
        #: Where a beginning ends that other prompts have too.
        self.boundary = 0
        #: After how many tokens its cache is quantised, if that is to happen before its answer begins.
        self.turn: int | None = None
        #: Its beginning, on its way from the disk.
        self.loading: Loading | None = None

    @property
    def left(self) -> int:
        """Return how many tokens are still to be computed here."""
        return len(self.tokens) - 1 - self.done

    @property
    def ready(self) -> bool:
        """Whether the answer can begin."""
        return self.left == 0 and self.cache is not None

    @property
    def begun(self) -> bool:
        """Whether something was done for it: what others keep comes too late for it."""
        return self.done > self.found or self.loading is not None

    @property
    def ahead(self) -> int:
        """Return up to where it is just making a beginning that others may have; 0 if it is not."""
        if self.loading is not None:
            return self.loading.length
        return self.boundary if self.done > self.found and self.boundary > self.done else 0

    def expects(self, other: Prompt) -> bool:
        """Whether *other* is just making more of this one's beginning than there is."""
        return min(other.ahead, common(self.array, other.array)) > self.done

    @property
    def beginning(self) -> list[int]:
        """Return its tokens, as far as their caches are like everybody's; the last one is not in them."""
        return self.tokens if self.turn is None else self.tokens[: self.turn + 1]

    @property
    def crossing(self) -> bool:
        """Whether its cache is quantised before its last token is computed: then it is computed alone."""
        return self.turn is not None and self.turn < len(self.tokens) - 1

    def take(self, tokens: int) -> list[int]:
        """Take the next tokens for computing."""
        piece = self.tokens[self.done : self.done + min(tokens, self.left)]
        self.done += len(piece)
        return piece


class Prefill:
    """The prompts of one lane.

    *alone* says that the model's caches cannot be batched, *even* that a piece of an unusual length is dear: on a GPU
    with CUDA the kernels for it are built first, which took half a second for the last piece of a prompt (mlx 0.32.4).
    Beginnings are looked for and kept in *space* (`plugins.lm_prefixes`). With *kv* caches are quantised, as if prompts
    were computed *step* tokens at a time.
    """

    def __init__(
        self,
        model: Any,
        *,
        prefixes: Prefixes,
        pace: Pace,
        alone: bool = False,
        even: bool = False,
        space: str = "",
        kv: Quantised | None = None,
        step: int = PIECE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._prefixes = prefixes
        self._pace = pace
        self._alone = alone
        self._even = even
        self._space = space
        self._kv = kv
        self._step = step
        self._clock = clock
        self.prompts: list[Prompt] = []

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def unready(self) -> bool:
        """Whether there is anything to compute."""
        return any(not prompt.ready for prompt in self.prompts)

    def add(self, prompt: Prompt) -> None:
        """Put *prompt* behind the others."""
        if self._kv is not None:
            prompt.turn = turning(len(prompt.tokens) - 1, self._kv.start, self._step)
        self.prompts.append(prompt)

    def drop(self, owners: Collection[Any]) -> None:
        """Forget the prompts of *owners*."""
        self.prompts = [prompt for prompt in self.prompts if prompt.owner not in owners]

    def advance(self, *, others: bool) -> list[Prompt]:
        """Compute one piece and return the prompts it belonged to; *others* says whether somebody waits meanwhile."""
        if not self.unready:
            return []
        began = self._clock()
        chosen, size = self._chosen(others=others)
        if chosen[0].loading is not None:
            self._read(chosen[0], chosen[0].loading, _READ if others else _READ_ALONE)
            return chosen
        behind, before = chosen[0].done, sum(prompt.left for prompt in chosen)
        if len(chosen) == 1:
            self._piece(chosen[0], size)
            # Behind the others, so that a short prompt never waits for a long one to end.
            self.prompts.append(self.prompts.pop(self.prompts.index(chosen[0])))
        else:
            compute_together(self._model, chosen, even=self._even)
        self._pace.computed(before - sum(prompt.left for prompt in chosen), self._clock() - began, behind=behind)
        return chosen

    def ready(self) -> list[Prompt]:
        """Give away the prompts that are done."""
        done = [self._turned(prompt) for prompt in self.prompts if prompt.ready]
        self.prompts = [prompt for prompt in self.prompts if not prompt.ready]
        return done

    def _chosen(self, *, others: bool) -> tuple[list[Prompt], int]:
        """Return what is computed now, and how many tokens of it.

        That is the first prompt alone, or short ones whose lengths fit each other.
        """
        first, *rest = self._unexpecting()
        self._looked_up(first)
        size = self._pace.piece(others=others, behind=first.done)
        if first.loading or self._alone or first.crossing or first.boundary > first.done or first.left > size:
            return [first], size
        together, longest = [first], first.left
        # Where a beginning is shared nothing of it is copied.
        most = TOGETHER if first.cache and lm_caches.source(first.cache) is None else _TOGETHER_SHARED
        for prompt in map(self._looked_up, rest[: 4 * TOGETHER]):
            padded = max(longest, prompt.left) * (len(together) + 1)
            free = prompt.loading is None and prompt.boundary <= prompt.done and not prompt.crossing
            alike = lm_caches.source(prompt.cache) is lm_caches.source(first.cache)
            if free and alike and padded <= size and len(together) < most:
                together.append(prompt)
                longest = max(longest, prompt.left)
        return together, size

    def _unexpecting(self) -> list[Prompt]:
        """Return the prompts, but for those whose beginning another one is just making: they wait for it."""
        waiting = [prompt for prompt in self.prompts if not prompt.ready]
        ahead = [prompt for prompt in waiting if prompt.ahead]
        return [prompt for prompt in waiting if prompt.begun or not any(prompt.expects(one) for one in ahead)]

    def _looked_up(self, prompt: Prompt) -> Prompt:
        """Give *prompt* what is known of its beginning, if nothing of it was computed yet."""
        if prompt.begun or prompt.looked_up == self._prefixes.changes:
            return prompt
        prompt.looked_up = self._prefixes.changes
        cache, found = self._prefixes.find(prompt.beginning, self._space, share=self._kv is None)
        if found > prompt.done:
            prompt.cache, prompt.done, prompt.found = cache, found, found
        prompt.boundary = self._prefixes.shared(prompt.beginning, self._space)
        loading = self._prefixes.stored(prompt.beginning, self._space, more_than=prompt.done)
        # Two that read the same would read it twice: the other one is looked up again when it is there.
        if loading is not None and not any(prompt.expects(one) for one in self.prompts if one.loading):
            prompt.loading = loading
        return prompt

    def _read(self, prompt: Prompt, loading: Loading, most: int) -> None:
        """Read the next part of a prompt's beginning; what cannot be read is computed."""
        try:
            cache = loading.advance(most)
        except UNREADABLE:
            loading.forget()
            prompt.loading, prompt.looked_up = None, -1
            return
        if cache is not None:
            prompt.loading, prompt.cache, prompt.looked_up = None, cache, -1
            prompt.done = prompt.found = loading.length
            self._keep(prompt, used=prompt.done)

    def _turned(self, prompt: Prompt) -> Prompt:
        """Quantise the cache of *prompt* if it has come so far."""
        if self._kv is not None and prompt.cache and prompt.turn is not None and prompt.done >= prompt.turn:
            prompt.cache = quantise(prompt.cache, self._kv)
        return prompt

    def _piece(self, prompt: Prompt, size: int) -> None:
        """Compute the next piece of *prompt*, no farther than to its boundary."""
        turn = self._turned(prompt).turn
        if turn is not None and prompt.done < turn:
            size = min(size, turn - prompt.done)
        ahead = prompt.boundary - prompt.done
        compute_piece(self._model, prompt, min(size, ahead) if ahead > 0 else size, even=self._even)
        if prompt.done == prompt.boundary and ahead > 0:
            self._keep(prompt)
            return
        # Whoever comes next may begin as it did, and would find nobody among those who wait.
        alone = prompt.done in (turn, len(prompt.tokens) - 1) and not (prompt.boundary or prompt.found)
        if alone and prompt.cache and lm_caches.trimmable(prompt.cache):
            self._keep(prompt, share=False)

    def _keep(self, prompt: Prompt, *, used: int = 0, share: bool = True) -> None:
        """Keep what there is of *prompt* for others; with *share* it refers to that itself, as they will.

        Where nobody else is in sight a plain cache is cheaper: whether the model can share is found out by trying it.
        """
        if prompt.cache and not quantised(prompt.cache):
            tokens = prompt.tokens[: prompt.done]
            self._prefixes.keep(tokens, lm_caches.copied(prompt.cache), self._space, used=used)
            if share and self._kv is None:
                prompt.cache = self._prefixes.own(tokens, prompt.cache, self._space)


def compute_piece(model: Any, prompt: Prompt, tokens: int, *, even: bool = False) -> None:
    """Compute at most *tokens* of *prompt*; with *even* as if they were a power of two, where that can be undone."""
    import mlx.core as mx

    prompt.cache = prompt.cache if prompt.cache is not None else lm_caches.fresh(model)
    if piece := prompt.take(tokens):
        padding = _up(len(piece)) - len(piece) if even and lm_caches.plain(prompt.cache) else 0
        model(mx.array([[*piece, *[0] * padding]]), cache=prompt.cache)
        if padding:
            lm_caches.trim(prompt.cache, padding)
        lm_caches.evaluate(prompt.cache)


def compute_together(model: Any, prompts: Sequence[Prompt], *, even: bool = False) -> None:
    """Compute all of each of the *prompts*, padded on the right to the longest, and give each its own cache."""
    import mlx.core as mx

    pieces = [prompt.take(prompt.left) for prompt in prompts]
    lengths = [len(piece) for piece in pieces]
    longest = _up(max(lengths), _LEAST_TOGETHER) if even and max(lengths) else max(lengths)
    batch = lm_caches.merged([prompt.cache or lm_caches.fresh(model) for prompt in prompts])
    padding = [longest - length for length in lengths]
    if any(padding):
        for layer in batch:
            layer.prepare(lengths=lengths, right_padding=padding)
    if longest:
        model(mx.array([[*piece, *[0] * pad] for piece, pad in zip(pieces, padding, strict=True)]), cache=batch)
    if any(padding):
        for layer in batch:
            layer.finalize()
    for at, prompt in enumerate(prompts):
        prompt.cache = lm_caches.extracted(batch, at)
    mx.eval([[lm_caches.held(layer) for layer in prompt.cache or ()] for prompt in prompts])


def _up(length: int, least: int = LEAST) -> int:
    """Return the next power of two, at least *least*."""
    return max(least, 1 << (length - 1).bit_length())
