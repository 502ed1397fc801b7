"""Somebody who may put files into a watched folder, and swaps them for links to what is not theirs, all the time."""

from __future__ import annotations

import ctypes
import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

#: What is swapped: the file itself, its folder, or a folder above, or the folders that mlxd makes beside it.
PLACES: Final = ("file", "folder", "above", "done", "results")
SECRET: Final = b"the secret of somebody else " * 8
HARMLESS: Final = b"what the attacker has put here " * 8


class Field(NamedTuple):
    """The watched folder, the file that is attacked, and what is outside."""

    root: Path
    #: in/above/folder/file.txt
    file: Path
    #: Has a tree of the same shape: a link to any of its folders leads to a file of the same name.
    outside: Path

    def secret(self) -> Path:
        """Return the file that must stay where it is, as it is, unread."""
        return self.outside / self.file.relative_to(self.root)

    def clean(self) -> None:
        """Put everything back as it was before the first round."""
        for top, content in ((self.root, HARMLESS), (self.outside, SECRET)):
            path = top / self.file.relative_to(self.root)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            for name in ("done", "results"):
                (path.parent / name).mkdir(exist_ok=True)


def field(folder: Path) -> Field:
    """Return a fresh one in *folder*."""
    root = folder / "in"
    made = Field(root, root / "above" / "folder" / "file.txt", folder / "outside")
    made.clean()
    return made


def pair(place: str, at: Field) -> tuple[Path, Path]:
    """Return the path that is swapped, and where the link leads that takes its place."""
    inside = {
        "file": at.file,
        "folder": at.file.parent,
        "above": at.file.parents[1],
        "done": at.file.parent / "done",
        "results": at.file.parent / "results",
    }[place]
    return inside, at.outside / inside.relative_to(at.root)


@contextmanager
def swapping(place: str, at: Field, seed: str) -> Iterator[None]:
    """Swap in a process of its own, as quickly as it can; in the end everything is as it was."""
    inside, leads_to = pair(place, at)
    command = [sys.executable, __file__, str(inside), str(leads_to), seed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.communicate()
    if inside.is_symlink():
        raise RuntimeError("the attacker has not cleaned up")


class Ambush:
    """Lets the real thing and a link change places inside mlxd's own steps: just before chosen system calls.

    Python tells its audit hooks of each open, link, rename, removal and listing before it is made; a process that swaps
    as quickly as it can meets the few instructions between a look and an opening only by chance. Hooks cannot be
    removed: there is one of these for each process.
    """

    _CALLS = frozenset(
        {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.listdir", "os.chmod"}
    )

    def __init__(self) -> None:
        self._exchange = _exchange()
        self._names: tuple[bytes, bytes] | None = None
        self._moments: set[int] = set()
        self._calls = 0
        #: How many calls the last round made, and how often things were swapped in all.
        self.calls = self.swaps = 0
        sys.addaudithook(self._hook)

    @contextmanager
    def swapping(self, place: str, at: Field, moments: set[int]) -> Iterator[None]:
        """Swap before the calls with these numbers, and put the real thing back in the end."""
        inside, leads_to = pair(place, at)
        link = inside.with_name(f".{inside.name}.link")
        link.symlink_to(leads_to)
        self._names, self._moments, self._calls = (os.fsencode(inside), os.fsencode(link)), moments, 0
        try:
            yield
        finally:
            names, self._names, self.calls = self._names, None, self._calls
            if inside.is_symlink():
                self._exchange(*names)
            link.unlink(missing_ok=True)

    def _hook(self, event: str, _args: tuple[Any, ...]) -> None:
        if self._names is not None and event in self._CALLS:
            self._calls += 1
            if self._calls in self._moments:
                self.swaps += 1
                self._exchange(*self._names)


def swap_until_eof(inside: Path, leads_to: Path, chance: random.Random) -> None:
    """Let the real thing and a link change places, again and again, with pauses of random length, until told to end."""
    link = inside.with_name(f".{inside.name}.link")
    link.symlink_to(leads_to)
    exchange = _exchange()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([0], [], [], 0)[0]:
        for _ in range(2):
            exchange(os.fsencode(inside), os.fsencode(link))
            for _ in range(chance.randrange(0, 400)):
                pass
    link.unlink(missing_ok=True)


def _exchange() -> Callable[[bytes, bytes], object]:
    """Return what lets two names change places in one step: with two renames one of them would be gone for a moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return lambda one, other: libc.renamex_np(one, other, 2)
    return lambda one, other: libc.renameat2(-100, one, -100, other, 2)


if __name__ == "__main__":
    swap_until_eof(Path(sys.argv[1]), Path(sys.argv[2]), random.Random(sys.argv[3]))
