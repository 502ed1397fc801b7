"""Row 16: an attacker swaps what lies in a watched folder for links while it is opened, written beside, put away."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from jobs.errors import OutputError
from torture.link_swapper import HARMLESS, SECRET, Ambush, Field, field, swapping
from torture.link_victims import Reader, Writer
from torture.row import Control, Outcome, Say, Tier

ROUNDS: Final = {Tier.SHORT: 500, Tier.LONG: 10_000}
READ: Final = ("file", "folder", "above")
WRITTEN: Final = ("folder", "above", "done", "results")
#: The most rounds of a control: it ends with the first time it was caught.
_CONTROL: Final = 20_000


class Links:
    """Row 16."""

    number = 16
    name = "links"
    fault = "a file, its folder and those above are swapped for links to a secret while mlxd opens and writes there"
    promise = "nothing outside the watched folder is read, moved, deleted or written to"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Swap and read, swap and write; then the same with ordinary ways of opening and writing."""
        self._ambush, self._chance = Ambush(), random.Random(f"{seed}-links")
        measured: dict[str, Any] = {}
        rounds = ROUNDS[tier] // (2 * (len(READ) + len(WRITTEN))) + 1
        broken = [*self._reads(rounds, seed, folder, measured)]
        say(f"{measured}")
        broken += self._writes(rounds, seed, folder, measured)
        controls = [*_reading_controls(seed, folder), *_writing_controls(seed, folder)]
        return Outcome(
            tries=2 * rounds * (len(READ) + len(WRITTEN)),
            broken=broken,
            controls=controls,
            measured={**measured, "swaps_just_before_a_call": self._ambush.swaps},
            notes=[
                "Hard links are not links here: a second name for a file is taken as a file, as the rules say.",
                "Recipes and the sidecars of other programs' results are read by path; they hold no file's content.",
            ],
        )

    def _reads(self, rounds: int, seed: int, folder: Path, measured: dict[str, Any]) -> Iterator[str]:
        for place in READ:
            reader = Reader(at := field(folder / f"read-{place}"))
            self._attack(place, at, rounds, seed, reader.round)
            yield from (f"{place}: {leak}" for leak in reader.leaks)
            yield from _intact(at)
            if not reader.harmless:
                yield f"{place}: the harmless file was never read, so nothing is shown"
            measured |= {f"{place}_met_the_secret": reader.met, f"{place}_read_the_harmless": reader.harmless}

    def _writes(self, rounds: int, seed: int, folder: Path, measured: dict[str, Any]) -> Iterator[str]:
        for place in WRITTEN:
            writer = Writer(at := field(folder / f"write-{place}"), folder / f"trash-{place}")
            self._attack(place, at, rounds, seed, writer.round)
            writer.close()
            yield from (f"{place}: {escape}" for escape in writer.escapes)
            yield from _intact(at)
            measured |= {f"{place}_writes_done": writer.done, f"{place}_writes_refused": writer.refused}
            if not writer.done or not writer.refused:
                yield f"{place}: {writer.done} writes done, {writer.refused} refused: the attack was none"

    def _attack(self, place: str, at: Field, rounds: int, seed: int, act: Callable[[], None]) -> None:
        """Let *act* run while a process swaps as quickly as it can, then with swaps just before calls of its own."""
        with swapping(place, at, f"{seed}-{place}"):
            for _ in range(rounds):
                act()
                time.sleep(self._chance.uniform(0, 0.0005))
        for number in range(rounds):
            # One swap before each call in turn, as long as there are calls; then several at random.
            calls = max(self._ambush.calls, 1)
            moments = {number + 1} if number < calls else set(self._chance.sample(range(1, calls + 2), min(3, calls)))
            with self._ambush.swapping(place, at, moments):
                act()


def _intact(at: Field) -> Iterable[str]:
    """Tell whether the secret is as it was."""
    with suppress(OSError):
        if at.secret().read_bytes() == SECRET:
            return []
    return [f"{at.secret()} is gone, or another"]


def _reading_controls(seed: int, folder: Path) -> Iterator[Control]:
    ways: dict[str, tuple[str, int]] = {
        "open(path) without any care": ("file", 0),
        "O_NOFOLLOW on the last component alone": ("folder", os.O_NOFOLLOW),
    }
    for name, (place, flags) in ways.items():
        at = field(folder / f"control-{place}")
        with swapping(place, at, f"{seed}-control-{place}"):
            rounds = _first(lambda at=at, flags=flags: _plainly(at.file, flags) == SECRET)
        yield _control(name, rounds, "the secret was read")


def _plainly(path: Path, flags: int) -> bytes:
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | flags)
        try:
            return os.read(file, len(SECRET) + len(HARMLESS))
        finally:
            os.close(file)
    return b""


def _writing_controls(seed: int, folder: Path) -> Iterator[Control]:
    at = field(folder / "control-write")
    outside = at.secret().parent
    with swapping("folder", at, f"{seed}-control-write"):
        rounds = _first(lambda: _plainly_written(at.file.with_name("out.txt"), outside / "out.txt"))
    yield _control("Path.write_bytes", rounds, "a result was written outside")
    writer = Writer(at := field(folder / "control-writer"), folder / "control-trash", rooted=False)
    with swapping("folder", at, f"{seed}-control-writer"):
        rounds = _first(lambda: _escaped(writer))
    writer.close()
    yield _control("outputs that know no watched folder", rounds, "; ".join(writer.escapes[:1]))


def _plainly_written(path: Path, outside: Path) -> bool:
    with suppress(OSError):
        path.write_bytes(b"x")
    return outside.exists()


def _escaped(writer: Writer) -> bool:
    with suppress(OSError, OutputError):
        writer.round()
    return bool(writer.escapes)


def _first(caught: Callable[[], bool]) -> int | None:
    """Return the number of the first round in which the control was *caught*."""
    return next((number for number in count(1) if number > _CONTROL or caught()), _CONTROL + 1)


def _control(name: str, rounds: int | None, what: str) -> Control:
    caught = rounds is not None and rounds <= _CONTROL
    return Control(name=name, caught=caught, evidence=f"{what}, in round {rounds}" if caught else "never caught")


ROW = Links()
