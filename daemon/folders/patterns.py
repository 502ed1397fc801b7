"""Patterns of file names, with ``*`` and ``?`` as people write them; case and composition make no difference."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath


def matches(patterns: Sequence[str], relative: str) -> bool:
    """Tell whether one of *patterns* is for *relative*."""
    return bool(pattern(tuple(patterns)).fullmatch(comparable(relative)))


def inside(glob: str, folder: str) -> str:
    """Return *glob*, written in the sub-folder *folder*, as the same pattern written in the watched folder."""
    if not folder or "/" not in glob:
        return glob
    literal = "".join(f"[{char}]" if char in "*?[" else char for char in folder)
    return f"{literal}/{glob.lstrip('/')}"


@lru_cache(maxsize=1024)
def pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for all *globs*, to be matched with what `comparable` returns.

    Kept, because ten thousand names are matched at every rescan.
    """
    return re.compile("|".join(_translate(comparable(glob)) for glob in globs), re.DOTALL)


def _translate(glob: str) -> str:
    """Return *glob* as a regular expression for relative paths; without a slash it is for the name at any depth."""
    if "/" not in glob:
        return f"(?:.*/)?{_segment(glob)}"
    parts = PurePosixPath(glob.lstrip("/")).parts
    text = "".join("(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/" for part in parts[:-1])
    return text + (".*" if parts[-1] == "**" else _segment(parts[-1]))


def _segment(glob: str) -> str:
    """Translate what stands between two slashes; ``fnmatch`` knows ``[...]``, but lets ``*`` and ``?`` pass slashes."""
    pieces = re.split(r"([*?]|\[[^\]]+\])", glob)
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(piece) or _literal(piece) for piece in pieces)


def _literal(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        # (?s:X)\Z in every supported version: only X is wanted.
        return fnmatch.translate(piece)[4:-3]
    return re.escape(piece)


def comparable(name: str) -> str:
    """Return *name* as it is compared: composed, without regard to case, as on a Mac's disk."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
