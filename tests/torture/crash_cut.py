"""The cut itself: one of the contents that a disk may have when its power goes now."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torture.crash_disk import ROOT, Event, Image, Op, Replay, Store, apply, put, resize, sectors


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How much of what was not synced is there all the same, each as a probability."""

    #: Of a sector of data.
    data: float
    #: Of a file's new size, when its data is not there.
    size: float
    #: Of a changed name.
    names: float
    #: Of a kept sector to be there in part only, or as garbage.
    torn: float = 0.0
    garbled: float = 0.0
    #: Things reached the disk in the order in which they were done, up to a random one.
    ordered: bool = False


#: The extremes, where most mistakes show, and the middle; drawn with these weights.
MANNERS = (
    (1, Manner(data=0, size=0, names=0)),
    (1, Manner(data=1, size=1, names=1)),
    # What journalling file systems do when nobody syncs: files that have their name and size, full of zeros.
    (2, Manner(data=0, size=1, names=1)),
    (1, Manner(data=1, size=1, names=0)),
    (2, Manner(data=1, size=1, names=1, torn=0.02, ordered=True)),
    (2, Manner(data=0.5, size=0.5, names=0.5, torn=0.05, garbled=0.02)),
    (1, Manner(data=0.9, size=0.9, names=0.9, torn=0.05)),
    (1, Manner(data=0.1, size=0.5, names=0.5, garbled=0.05)),
)


def cut(replay: Replay, random_: random.Random) -> Image:
    """Return what is on the disk if the power goes now."""
    weights = [weight for weight, _ in MANNERS]
    manner = random_.choices([manner for _, manner in MANNERS], weights)[0]
    return _Cut(replay, random_, manner).image()


class _Cut:
    def __init__(self, replay: Replay, random_: random.Random, manner: Manner) -> None:
        self._stores = replay.stores
        self._random = random_
        self._manner = manner
        self._until = random_.randint(0, replay.at) if manner.ordered else replay.at
        if manner.ordered and (late := [number for store in self._stores.values() for number, _ in store.pending]):
            self._until = random_.randint(min(late), replay.at)
        # What a hole in a file shows: zeros, or whatever lay there before.
        self._hole = random_.choice([b"\0", b"\0", b"\0", random_.randbytes(509)])
        self._seen: dict[int, bytes] = {}

    def image(self) -> Image:
        image: Image = {}
        self._fill(image, "", ROOT)
        return image

    def _fill(self, image: Image, prefix: str, folder: int) -> None:
        for name, inode in self._names(self._stores[folder]).items():
            path = f"{prefix}{name}"
            if self._store(inode).folder:
                image[path] = None
                self._fill(image, f"{path}/", inode)
            else:
                # Two names of one file have one content.
                image[path] = self._seen[inode] if inode in self._seen else self._content(inode)
                self._seen[inode] = image[path] or b""

    def _store(self, inode: int) -> Store:
        return self._stores.get(inode) or Store()

    def _names(self, store: Store) -> dict[str, int]:
        kept = Store(names=dict(store.names))
        for number, event in store.pending:
            if self._happens(number, self._manner.names):
                apply(kept, event)
        return kept.names

    def _content(self, inode: int) -> bytes:
        store = self._store(inode)
        data = bytearray(store.data)
        for number, event in store.pending:
            if number > self._until:
                break
            if event.op is Op.TRUNCATE:
                if self._chance(self._manner.size):
                    resize(data, event.offset, self._hole)
            else:
                self._write(data, event)
        return bytes(data)

    def _write(self, data: bytearray, event: Event) -> None:
        for offset, piece in sectors(event.offset, event.data):
            if self._chance(self._manner.data):
                put(data, offset, self._damaged(piece), self._hole)
        end = event.offset + len(event.data)
        if end > len(data) and self._chance(self._manner.size):
            resize(data, end, self._hole)

    def _damaged(self, piece: bytes) -> bytes:
        if self._chance(self._manner.torn):
            return piece[: self._random.randrange(len(piece))]
        if self._chance(self._manner.garbled):
            return self._random.randbytes(len(piece))
        return piece

    def _happens(self, number: int, chance: float) -> bool:
        return number <= self._until and self._chance(chance)

    def _chance(self, probability: float) -> bool:
        return probability > 0 and (probability >= 1 or self._random.random() < probability)
