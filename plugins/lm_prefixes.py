"""What prompts have in common is computed once: caches of prefixes in memory, least recently used out first.

Found are a system prompt that many prompts begin with, the template of a folder of prompts, and the conversation
that an answer continues. What was computed in another way (with another adapter, with quantised caches) is in another
*space*: nothing is found across spaces. mlx-lm's own LRUPromptCache is not used: it forgets by age and not by use, and
cannot say beforehand that two prompts which wait will share a prefix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from plugins import lm_caches
from plugins.lm_caches import Cache

#: Tokens; computing fewer costs less than looking after them.
WORTH: Final = 32
#: How many prompts back a common prefix is looked for.
_RECENT: Final = 64


@dataclass(eq=False)
class _Entry:
    tokens: Any
    cache: Cache
    size: int
    space: str = ""


class Prefixes:
    """At most *limit* bytes of caches."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
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

    def find(self, tokens: Sequence[int], space: str = "") -> tuple[Cache, int]:
        """Return a cache of one's own with the first tokens of *tokens* and their number; ``([], 0)`` if none is kept.

        At least the last token is never in it.
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
        cache = lm_caches.copied(best.cache)
        if length < len(best.tokens):
            lm_caches.trim(cache, len(best.tokens) - length)
        return cache, length

    def keep(self, tokens: Sequence[int], cache: Cache, space: str = "") -> None:
        """Keep *cache*, which holds *tokens* and is nobody else's."""
        own, size = array(tokens), lm_caches.size(cache)
        if len(own) < WORTH or size > self._limit:
            return
        trimmable = lm_caches.trimmable(cache)
        for entry in self._in(space):
            # A longer one serves for its own beginnings too, where tokens can be taken off its end.
            if common(own, entry.tokens) == len(entry.tokens) and (trimmable or len(entry.tokens) == len(own)):
                self._drop(entry)
        self._entries.append(_Entry(own, cache, size, space))
        self.size += size
        self.changes += 1
        while self.size > self._limit:
            self._drop(self._entries[0])

    def allow(self, limit: int) -> None:
        """Keep at most *limit* bytes from now on."""
        self.limit = limit
        while self.size > self.limit:
            self._drop(self._entries[0])

    def clear(self) -> None:
        """Give everything back."""
        self._entries.clear()
        self.size = 0

    def _in(self, space: str) -> list[_Entry]:
        return [entry for entry in self._entries if entry.space == space]

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self.size -= entry.size


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
