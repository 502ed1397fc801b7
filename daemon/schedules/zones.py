"""Time zones by name, and the one this machine is in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LOCALTIME: Final = Path("/etc/localtime")
_MARK: Final = "zoneinfo/"


def zone(name: str | None) -> tzinfo:
    """Return the zone *name* (IANA: ``Europe/Berlin``), or the machine's own for None.

    Raises:
        ValueError: there is no such zone.

    """
    if name is None:
        return local_zone()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder
        raise ValueError('a time zone such as "Europe/Berlin" or "UTC"') from None


def local_zone(environ: Mapping[str, str] = os.environ, localtime: Path = _LOCALTIME) -> tzinfo:
    """Return the machine's zone: TZ if it names one, otherwise what /etc/localtime points to; UTC if neither tells."""
    names = [environ.get("TZ", "").removeprefix(":")]
    try:
        names.append(os.path.realpath(localtime, strict=True).rpartition(_MARK)[2])
    except OSError:
        names.append("")
    for name in filter(None, names):
        try:
            return zone(name)
        except ValueError:
            continue
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC


def zone_name(found: tzinfo) -> str:
    """Return what to call a zone."""
    return getattr(found, "key", None) or str(found)
