"""Durations and sizes as people write them: ``"1h30m"``, ``"12GB"``, ``"60%"``."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

#: A keep-alive of this many seconds never ends.
FOR_EVER: Final = -1.0

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?i?b?)", re.IGNORECASE)
# As disks, Finder and model cards count: 12GB is 12 thousand million bytes; 12GiB is what `ls -h` calls 12G.
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")


def seconds(value: Any) -> float:
    """Return the seconds that *value* means: a number of seconds, or text such as ``"90s"``, ``"5m"``, ``"1h30m"``.

    Raises:
        ValueError: it is no duration, or negative.

    """
    found = _signed_seconds(value)
    if found is None or found < 0:
        raise ValueError('a duration: "30s", "5m", "1h30m", or a number of seconds')
    return found


def keep_alive(value: Any) -> float:
    """Return how many seconds an unused model stays: as `seconds`, and `FOR_EVER` for any negative number.

    Raises:
        ValueError: it is no duration.

    """
    found = _signed_seconds(value)
    if found is None:
        raise ValueError('a duration: "30s", "5m", "1h30m", a number of seconds, 0 (unload at once) or -1 (for ever)')
    return FOR_EVER if found < 0 else found


def _signed_seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 1e10 else None  # noqa: PLR2004 - 300 years; also refuses inf and nan
    text = value.strip().lower().replace(" ", "")
    if _NUMBER.fullmatch(text):
        return float(text)
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(value: Any) -> int:
    """Return the bytes that *value* means: a whole number, or text such as ``"500MB"`` (thousands) or ``"4GiB"``.

    Raises:
        ValueError: it is no size.

    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, unit = match[1], match[2].lower()
        base = 1024 if "i" in unit else 1000
        return int(float(number) * base ** _POWERS[unit.rstrip("b").rstrip("i")])
    raise ValueError('a size: "500MB", "12GB", "4GiB", or a number of bytes')


def budget(value: Any) -> str | int:
    """Return *value* if it is a size in bytes or a share of the memory, a share as text (``"60%"``).

    Raises:
        ValueError: it is neither, or the share is not above 0 and at most 100.

    """
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        if 0 < float(match[1]) <= 100:  # noqa: PLR2004 - per cent
            return f"{match[1]}%"
    else:
        try:
            return size(value)
        except ValueError:
            pass
    raise ValueError('a share of the memory such as "60%", a size such as "12GB", or a number of bytes')


def budget_bytes(value: str | int, *, total: int) -> int:
    """Return the bytes that the checked budget *value* allows on a machine with *total* bytes of memory."""
    return value if isinstance(value, int) else int(total * float(value.removesuffix("%")) / 100)


def percentage(value: Any) -> str:
    """Return *value* if it is a share, as text such as ``"115%"``.

    Raises:
        ValueError: it is none, or not above 0 and at most 1000.

    """
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not 0 < float(match[1]) <= 1000:  # noqa: PLR2004 - per cent
        raise ValueError('a share such as "115%"')
    return f"{match[1]}%"


def physical_memory() -> int:
    """Return the machine's memory in bytes (macOS and Linux both know these names; psutil would cost an import)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


Seconds = Annotated[float, BeforeValidator(seconds)]
KeepAlive = Annotated[float, BeforeValidator(keep_alive)]
Size = Annotated[int, BeforeValidator(size)]
Budget = Annotated[str | int, BeforeValidator(budget)]
Percentage = Annotated[str, BeforeValidator(percentage)]
