"""What prompts have in common is computed once: caches of prefixes in memory, least recently used out first.

Found are a system prompt that many prompts begin with, the template of a folder of prompts, and the conversation
that an answer continues. What was computed in another way (with another adapter, with quantised caches) is in another
*space*: nothing is found across spaces. mlx-lm's own LRUPromptCache is not used: it forgets by age and not by use, and
cannot say beforehand that two prompts which wait will share a prefix. What was of use goes to the disk, too
(`plugins.lm_prefix_disk`), from where the next runner takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from plugins import lm_caches
from plugins.lm_caches import Cache

#: Tokens; computing fewer costs less than looking after them.
WORTH: Final = 32
#: How many prompts back a common prefix is looked for.
_RECENT: Final = 64


class Keeper(Protocol):
    """Where prefixes that were of use are kept for longer (`plugins.lm_prefix_disk`)."""

    def find(self, tokens: Any, space: str, *, more_than: int) -> Any:
        """Return the way to *more_than* so many of the first *tokens*, or None."""

    def offer(self, tokens: Any, cache: Cache, space: str) -> None:
        """Take a prefix that was used again; *cache* does not change any more."""


@dataclass(eq=False)
class _Entry:
    tokens: Any
    cache: Cache
    size: int
    space: str = ""
    #: How many of its first tokens were of use again; 0: it never was.
    used: int = 0
    #: Whether it ends with an answer: then it is a turn of a conversation.
    answer: bool = False
    #: What those who begin with it hold in common (`plugins.lm_shared`), once somebody does.
    sources: list[Any] | None = None


class Prefixes:
    """At most *limit* bytes of caches; *keeper* gets those that were used again.

    *shares* says whether the model can look at a beginning that several rows hold in common.
    """

    def __init__(self, limit: int, *, keeper: Keeper | None = None, shares: Callable[[], bool] = lambda: False) -> None:
        self.limit = limit
        self._shares = shares
        self._keeper = keeper
        #: The least recently used first.
        self._entries: list[_Entry] = []
        self._recent: deque[tuple[str, Any]] = deque(maxlen=_RECENT)
        #: Bytes kept now.
        self.size = 0
        #: How often something new was kept: asking again before that finds nothing new.
        self.changes = 0

    def see(self, tokens: Sequence[int], space: str = "") -> None:
        """Note a prompt that will be computed, so that what it shares with others is found."""
        self._recent.append((space, array(tokens)))

    def shared(self, tokens: Sequence[int], space: str = "") -> int:
        """Return how many of the first *tokens* another recent prompt has too; 0 if that is not worth keeping."""
        own = array(tokens)
        found = sorted((common(own, other) for where, other in self._recent if where == space), reverse=True)
        # The prompt itself is among the recent ones: its twin counts, it alone does not.
        best = next((length for length in found[1 if found and found[0] == len(own) else 0 :]), 0)
        best = min(best, len(own) - 1)
        return best if best >= WORTH else 0

    def find(self, tokens: Sequence[int], space: str = "", *, share: bool = False) -> tuple[Cache, int]:
        """Return a cache of one's own with the first tokens of *tokens* and their number; ``([], 0)`` if none is kept.

        At least the last token is never in it. With *share* it may refer to what is kept instead of copying it.
        """
        own = array(tokens)
        best, length = None, 0
        for entry in self._in(space):
            same = min(common(own, entry.tokens), len(own) - 1)
            whole = same == len(entry.tokens)
            if same > length and (whole or lm_caches.trimmable(entry.cache)):
                best, length = entry, same
        if best is None or length < WORTH:
            return [], 0
        self._entries.remove(best)
        self._entries.append(best)
        best.used = max(best.used, length)
        self._offer(best)
        return self._begun(best, length) if share else _cut(best, length), length

    def own(self, tokens: Sequence[int], cache: Cache, space: str = "") -> Cache:
        """Return *cache*, which holds *tokens*, so that it shares with those who find them; that is no use of them.

        As it is if they are not kept.
        """
        own = array(tokens)
        for entry in self._in(space):
            if len(entry.tokens) == len(own) == common(own, entry.tokens):
                return self._begun(entry, len(own))
        return cache

    def stored(self, tokens: Sequence[int], space: str, *, more_than: int) -> Any:
        """Return the way to a longer beginning of *tokens* on the disk (`plugins.lm_prefix_disk.Loading`), or None."""
        return None if self._keeper is None else self._keeper.find(array(tokens), space, more_than=more_than)

    def keep(
        self, tokens: Sequence[int], cache: Cache, space: str = "", *, used: int = 0, answer: bool = False
    ) -> None:
        """Keep *cache*, which holds *tokens* and is nobody else's.

        *used* tokens of it were of use before; *answer* says that it is a prompt with what was answered.
        """
        own = array(tokens)
        if len(own) < WORTH or self.limit <= 0:
            return
        cache = lm_caches.whole(cache)
        size = lm_caches.size(cache)
        if size > self.limit:
            return
        trimmable = lm_caches.trimmable(cache)
        made = _Entry(own, cache, size, space, used, answer)
        for entry in self._in(space):
            # A longer one serves for its own beginnings too, where tokens can be taken off its end.
            if common(own, entry.tokens) == len(entry.tokens) and (trimmable or len(entry.tokens) == len(own)):
                # A conversation that was continued before will be continued again: all of it is of use.
                continued = answer and entry.answer and entry.used == len(entry.tokens)
                made.used = len(own) if continued else max(made.used, entry.used)
                self._drop(entry)
        self._entries.append(made)
        self.size += size
        self.changes += 1
        self.shrink(self.limit)
        if made.used and made in self._entries:
            self._offer(made)

    def shrink(self, size: int) -> None:
        """Give back what is more than *size* bytes: first what was never of use, then the least recently used."""
        while self.size > size:
            self._drop(next((entry for entry in self._entries[:-1] if not entry.used), self._entries[0]))

    def allow(self, limit: int) -> None:
        """Keep at most *limit* bytes from now on."""
        self.limit = limit
        self.shrink(limit)

    def clear(self) -> None:
        """Give everything back."""
        self._entries.clear()
        self.size = 0

    def _in(self, space: str) -> list[_Entry]:
        return [entry for entry in self._entries if entry.space == space]

    def _begun(self, entry: _Entry, length: int) -> Cache:
        if not (lm_caches.plain(entry.cache) and self._shares()):
            return _cut(entry, length)
        from plugins import lm_shared

        if entry.sources is None:
            entry.sources = lm_shared.sources(entry.cache)
        return lm_shared.beginning(entry.sources, length)

    def _offer(self, entry: _Entry) -> None:
        if self._keeper is not None:
            self._keeper.offer(entry.tokens[: entry.used], _cut(entry, entry.used), entry.space)

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self.size -= entry.size


def _cut(entry: _Entry, length: int) -> Cache:
    """Return a copy of the cache of *entry* with its first *length* tokens."""
    cache = lm_caches.copied(entry.cache)
    if length < len(entry.tokens):
        lm_caches.trim(cache, len(entry.tokens) - length)
    return cache


def array(tokens: Sequence[int]) -> Any:
    """Return *tokens* as they are compared."""
    import numpy as np

    return np.asarray(tokens, dtype=np.uint32)


def common(one: Any, other: Any) -> int:
    """Return the length of the longest common prefix of two arrays of tokens."""
    import numpy as np

    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
