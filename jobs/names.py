"""File names that are safe to write, whoever thought them up."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Final

#: Bytes in UTF-8 that one name may have on every file system we know.
LONGEST: Final = 255

#: Bytes; what looks like a longer suffix is part of the name.
_LONGEST_SUFFIX: Final = 32

#: What a name that has nothing left is called.
_NAMELESS: Final = "output"

#: "/" and NUL end a path, "\\" and ":" do elsewhere (":" in the Finder).
_SEPARATORS: Final = frozenset("/\\:")

#: Unicode categories that do not belong into a name: controls, surrogates, unassigned, line and paragraph separators.
_UNFIT: Final = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})

#: Characters that make a name read as another one (``exe.txt`` for ``txt.exe``).
_DIRECTIONS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe_name(name: str) -> str:
    """Return *name* as one visible file name: composed Unicode, no separators or controls, at most 255 bytes.

    Dots and spaces at the ends go, because they hide a file or are lost on other systems; the suffix stays when a long
    name is cut. Safe names come back as they are.
    """
    clean = "".join(_fit(char) for char in unicodedata.normalize("NFC", name))
    # Replacing may bring a letter and an accent together that were apart.
    clean = unicodedata.normalize("NFC", clean).lstrip(". ").rstrip(". ")
    return numbered(clean or _NAMELESS, 1)


def numbered(name: str, number: int, *, longest: int = LONGEST) -> str:
    """Return the *number*-th choice for *name*: ``memo.txt``, ``memo (2).txt``, ... in at most *longest* bytes."""
    suffix = PurePosixPath(name).suffix
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    ending = suffix if number == 1 else f" ({number}){suffix}"
    stem = shortened(name.removesuffix(suffix), longest - len(ending.encode()))
    return f"{stem}{ending}"


def shortened(text: str, longest: int) -> str:
    """Return the beginning of *text* that fits into *longest* bytes of UTF-8, without dots or spaces at its end."""
    raw = text.encode()
    if len(raw) <= longest:
        return text
    return raw[: max(longest, 0)].decode(errors="ignore").rstrip(". ")


def _fit(char: str) -> str:
    if char in _DIRECTIONS:
        return ""
    return "_" if char in _SEPARATORS or unicodedata.category(char) in _UNFIT else char
