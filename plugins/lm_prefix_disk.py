"""Beginnings of prompts on the disk: what was of use twice survives the runner, and the daemon.

Nobody waits for it. What is written is handed to a thread in pieces, one for each step of the session; what is read is
read in pieces too, between the steps of those who are being answered (`plugins.lm_prefill`). An entry that cannot be
read, or does not fit the model, is deleted and not spoken of: its prompt is computed as if it had never been there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobs.errors import ModelBroken
from plugins import lm_caches, lm_prefix_disk_state
from plugins.fingerprint import fingerprint
from plugins.lm_caches import Cache
from plugins.lm_prefix_disk_file import Plan, Stored, look
from plugins.lm_prefix_disk_folder import BYTES, FOLDER, PrefixFolder
from plugins.lm_prefix_disk_writer import Writer

#: Tokens; computing fewer is quicker than reading them.
WORTH: Final = 64
#: A longer one is written anew when it has this part more than what is there: so a conversation is not written
#: again as a whole for each of its turns.
_GROWN: Final = 8
#: Files of a model that are known at a time: those that were used last.
_KNOWN: Final = 256
#: Beginnings that may wait for being written; further ones get their chance at their next use.
_WAITING: Final = 4

#: Bytes a second that are reckoned with before anything was read: a checksum takes as long as an SSD.
_RATE: Final = 1e9
#: Fewer bytes tell nothing of that.
_TELLING: Final = 1 << 20
#: Seconds that nobody minds.
_NO_TIME_S: Final = 0.02

#: What may be wrong with a file.
UNREADABLE: Final = (OSError, ValueError, ModelBroken)


class _Offer(NamedTuple):
    tokens: Any
    cache: Cache
    space: str

    def serves(self, tokens: Any, space: str) -> bool:
        """Whether it begins with all of *tokens*."""
        return self.space == space and _common(tokens, self.tokens) == len(tokens)


class Place(NamedTuple):
    """Where the beginnings of one model are."""

    folder: PrefixFolder
    #: Stands for the model: weights, quantisation, tokenizer, template, and what computes.
    key: str


def place(environ: Mapping[str, str], model: Path, more: Mapping[str, Any]) -> Place | None:
    """Return the place that *environ* names for the folder *model*; *more* is what its caches depend on besides.

    None if there is no place, or the model cannot be told from others.
    """
    folder, limit = environ.get(FOLDER), environ.get(BYTES, "")
    if not folder or not limit.isdecimal() or int(limit) == 0:
        return None
    try:
        return Place(PrefixFolder(Path(folder), int(limit)), fingerprint(model, more))
    except UNREADABLE:
        return None


class PrefixDisk:
    """The kept beginnings of one model."""

    def __init__(
        self,
        place: Place,
        *,
        fresh: Callable[[], Cache],
        cost: Callable[[int], float | None] = lambda _: None,
        writer: Writer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """*fresh* makes an empty cache of the model; *cost* says how many seconds computing so many tokens takes."""
        self._folder, self._key = place
        self._fresh = fresh
        self._cost = cost
        self._clock = clock
        self._rate = _RATE
        self._writer = writer or Writer(place.folder)
        self._known: dict[Path, Stored] = {}
        self._seen = -1
        self._offers: list[_Offer] = []
        self._giving: Iterator[None] | None = None
        with contextlib.suppress(OSError):
            place.folder.trim()

    # -- reading ----------------------------------------------------------------------------------------------------

    def find(self, tokens: Any, space: str, *, more_than: int) -> Loading | None:
        """Return the way to the longest beginning of *tokens*, if that is *more_than* so many and worth reading.

        At least the last token is never in it.
        """
        self._refresh()
        best, longest = None, max(more_than, WORTH - 1)
        for stored in self._in(space):
            same = min(_common(tokens, stored.tokens), len(tokens) - 1)
            if same > longest and (same == len(stored.tokens) or stored.trimmable):
                best, longest = stored, same
        if best is None or not self._pays(longest - more_than, best.size):
            return None
        self._folder.used(best.path)
        return Loading(best, longest, fresh=self._fresh, forget=self._forget, clock=self._clock, read=self._read)

    def _pays(self, tokens: int, size: int) -> bool:
        """Whether reading *size* bytes is quicker than computing *tokens*, or takes no time to speak of."""
        computing, reading = self._cost(tokens), size / self._rate
        return computing is None or reading <= max(_NO_TIME_S, computing)

    def _read(self, size: int, seconds: float) -> None:
        if size > _TELLING and seconds > 0:
            self._rate = (self._rate + size / seconds) / 2

    def _forget(self, stored: Stored) -> None:
        """Delete an entry that cannot be used."""
        self._known.pop(stored.path, None)
        self._folder.drop(stored.path)

    def _refresh(self) -> None:
        """Learn which files came and went; files are never changed."""
        now = self._folder.changed(self._key)
        if now == self._seen:
            return
        self._seen = now
        there = self._folder.names(self._key)[:_KNOWN]
        self._known = {path: self._known[path] for path in there if path in self._known}
        for path in there:
            if path not in self._known:
                self._learn(path)

    def _in(self, space: str) -> list[Stored]:
        return [stored for stored in self._known.values() if stored.layout["space"] == space]

    def _learn(self, path: Path) -> None:
        try:
            self._known[path] = look(path)
        except FileNotFoundError:
            return  # made room for another
        except UNREADABLE:
            self._folder.drop(path)

    # -- writing ----------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether `pump` has something to do."""
        return bool(self._giving or self._offers)

    def offer(self, tokens: Any, cache: Cache, space: str) -> None:
        """Take a beginning that was used again: write it, unless it is there. *cache* must not change any more."""
        if len(tokens) < WORTH or not self._writer.works or not self._pays(len(tokens), lm_caches.size(cache)):
            return
        self._refresh()
        covered = 0
        for stored in self._in(space):
            same = _common(tokens, stored.tokens)
            if same > covered and (same == len(stored.tokens) or stored.trimmable):
                covered = same
                if same == len(tokens):
                    self._folder.used(stored.path)
                    return
        if len(tokens) - covered < max(WORTH // 2, len(tokens) // _GROWN):
            return
        # A longer one that waits serves for its beginnings too; a beginning that waits gives way to the longer one.
        made = _Offer(tokens, cache, space)
        if any(one.serves(tokens, space) for one in self._offers):
            return
        self._offers = [one for one in self._offers if not made.serves(one.tokens, one.space)]
        if len(self._offers) < _WAITING:
            self._offers.append(made)

    def pump(self, *, wait: bool = False) -> None:
        """Hand the next piece to the thread that writes; *wait* for it a little if it has enough already."""
        if self._giving is None and self._offers:
            self._giving = self._give(self._offers.pop(0))
        if self._giving is not None and self._writer.ready(wait=wait):
            try:
                next(self._giving)
            except StopIteration:
                self._giving = None

    def _give(self, offer: _Offer) -> Iterator[None]:
        """Give the writer one entry, a piece at each step."""
        import mlx.core as mx
        import numpy as np

        trimmable = lm_caches.trimmable(offer.cache)
        apart = lm_prefix_disk_state.taken_apart(offer.cache)
        if apart is None:
            return
        layers, arrays = apart
        layout = {"space": offer.space, "trimmable": trimmable, "layers": layers}
        plan = Plan(offer.tokens.tobytes(), _json(layout), [lm_prefix_disk_state.spec(array) for array in arrays])
        self._writer.begin(self._key, plan, superseded=self._superseded(offer) if trimmable else [])
        for array in arrays:
            for piece in lm_prefix_disk_state.pieces(array):
                # Computed while the next step is, looked at after it: so nobody waits for it here.
                started: Any = mx.async_eval
                started(piece)
                yield
                self._writer.give(np.asarray(piece))
            self._writer.next()
        self._writer.end()

    def _superseded(self, offer: _Offer) -> list[Path]:
        """Return the entries that a new one serves for as well."""
        return [one.path for one in self._in(offer.space) if offer.serves(one.tokens, offer.space)]

    def close(self) -> None:
        """Let what was handed over be written, for a moment; what was not is not written."""
        self._offers.clear()
        self._giving = None
        self._writer.close()


class Loading:
    """An entry on its way into memory."""

    def __init__(
        self,
        stored: Stored,
        length: int,
        *,
        fresh: Callable[[], Cache],
        forget: Callable[[Stored], None],
        read: Callable[[int, float], None],
        clock: Callable[[], float],
    ) -> None:
        #: How many of its first tokens are wanted.
        self.length = length
        self._stored = stored
        self._fresh = fresh
        self._forget = forget
        self._read = read
        self._clock = clock
        self._arrays: list[Any] = []

    def forget(self) -> None:
        """Delete the entry."""
        self._forget(self._stored)

    def advance(self, most: int) -> Cache | None:
        """Read about *most* bytes; return the cache with the first `length` tokens when all is read.

        Raises:
            OSError, ValueError, ModelBroken: the entry is gone, damaged, or another model's.

        """
        import mlx.core as mx

        stored, taken, began = self._stored, 0, self._clock()
        while len(self._arrays) < stored.arrays and taken < most:
            number = len(self._arrays)
            tensor = stored.tensors[str(number)]
            self._arrays.append(lm_prefix_disk_state.restored(stored.read(number), tensor.dtype, tensor.shape))
            taken += tensor.nbytes
        mx.eval(self._arrays)
        self._read(taken, self._clock() - began)
        if len(self._arrays) < stored.arrays:
            return None
        count = len(stored.tokens)
        layers = stored.layout["layers"]
        cache = lm_prefix_disk_state.put_together(layers, self._arrays, fresh=self._fresh, tokens=count)
        if self.length < count:
            if not lm_caches.trimmable(cache):
                raise ValueError("it cannot be cut")
            lm_caches.trim(cache, count - self.length)
        return cache


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    from plugins.lm_prefixes import common

    return common(one, other)


def _json(layout: Any) -> bytes:
    return json.dumps(layout, separators=(",", ":")).encode()
