"""TOML that somebody wrote: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import tomllib
from typing import Any


def parse(text: str) -> dict[str, Any]:
    """Return what the TOML document *text* says.

    Raises:
        tomllib.TOMLDecodeError: it is no TOML, or brackets are nested so deeply that Python's parser gives up.

    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("brackets are nested too deeply") from None
