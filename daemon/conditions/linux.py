"""Reads the state of a Linux machine from /sys, and from upower, powerprofilesctl and loginctl where they are."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon.conditions.commands import Ask
from daemon.conditions.policy import Fact, Facts

SYS: Final = Path("/sys")
UPOWER: Final = ("/usr/bin/upower", "--dump")
PROFILE: Final = ("/usr/bin/powerprofilesctl", "get")

_ON_BATTERY: Final = re.compile(r"on-battery:\s+(yes|no)")
_PERCENTAGE: Final = re.compile(r"percentage:\s+(\d{1,3})")
_IDLE_HINT: Final = re.compile(r"^IdleHint=(yes|no)$", re.MULTILINE)
_IDLE_SINCE: Final = re.compile(r"^IdleSinceHint=(\d+)$", re.MULTILINE)
_MICRO: Final = 1e-6
#: Thousandths of a degree at which a zone that names no limit of its own counts as hot.
_HOT: Final = 90_000


def sessions(uid: int) -> tuple[str, ...]:
    """Return the command that tells whether user *uid* is at the machine."""
    return "/usr/bin/loginctl", "show-user", str(uid), "--property=IdleHint", "--property=IdleSinceHint"


def read(
    wanted: frozenset[Fact],
    ask: Ask,
    *,
    sys: Path = SYS,
    uid: Callable[[], int] = os.getuid,
    now: Callable[[], float] = time.time,
) -> Facts:
    """Return those of the *wanted* facts that can be read."""
    mains, battery = _power(sys, ask) if Fact.POWER in wanted else (None, None)
    return Facts(
        mains=mains,
        battery=battery,
        low_power=_low_power(sys, ask) if Fact.LOW_POWER in wanted else None,
        hot=_hot(sys / "class/thermal") if Fact.HEAT in wanted else None,
        idle_s=_idle(ask(sessions(uid())) or "", now()) if Fact.IDLE in wanted else None,
    )


def _power(sys: Path, ask: Ask) -> tuple[bool | None, int | None]:
    folder = sys / "class/power_supply"
    if not folder.is_dir():
        return _upower(ask(UPOWER) or "")
    # Those with the scope "Device" are batteries of mice and headsets.
    supplies = [each for each in sorted(folder.iterdir()) if _word(each / "scope") != "Device"]
    batteries = [each for each in supplies if _word(each / "type") == "Battery"]
    charges = [charge for each in batteries if (charge := _number(each / "capacity")) is not None]
    battery = min(charges) if charges else None
    if any(_number(each / "online") for each in supplies if each not in batteries):
        return True, battery
    return not any(_word(each / "status") == "Discharging" for each in batteries), battery


def _upower(text: str) -> tuple[bool | None, int | None]:
    found, charge = _ON_BATTERY.search(text), _PERCENTAGE.search(text)
    return (found[1] == "no" if found else None), (int(charge[1]) if charge else None)


def _low_power(sys: Path, ask: Ask) -> bool | None:
    profile = (ask(PROFILE) or "").strip()
    if profile:
        return profile == "power-saver"
    platform = _word(sys / "firmware/acpi/platform_profile")
    return platform == "low-power" if platform else None


def _hot(folder: Path) -> bool | None:
    """Tell whether a zone has reached the temperature at which the system begins to slow down."""
    zones = [
        temperature >= _limit(zone)
        for zone in sorted(folder.glob("thermal_zone*"))
        if (temperature := _number(zone / "temp")) is not None
    ]
    return any(zones) if zones else None


def _limit(zone: Path) -> int:
    limits = [
        limit
        for trip in zone.glob("trip_point_*_type")
        if _word(trip) in {"passive", "hot", "critical"}
        and (limit := _number(trip.with_name(trip.name.replace("_type", "_temp")))) is not None
        and limit > 0
    ]
    return min(limits, default=_HOT)


def _idle(text: str, now: float) -> float | None:
    hint, since = _IDLE_HINT.search(text), _IDLE_SINCE.search(text)
    if hint is None:
        return None
    if hint[1] == "no":
        return 0.0
    return max(0.0, now - int(since[1]) * _MICRO) if since and int(since[1]) else None


def _word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_word(path))
    except ValueError:
        return None
