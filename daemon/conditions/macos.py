"""Reads the state of a Mac from what pmset, notifyutil and ioreg print; none of them needs root.

The formats are those of macOS 13 to 15; a line that is not there means "not known", never "no".
"""

from __future__ import annotations

import re
from typing import Final

from daemon.conditions.commands import Ask
from daemon.conditions.policy import Fact, Facts

BATTERY: Final = ("/usr/bin/pmset", "-g", "batt")
SETTINGS: Final = ("/usr/bin/pmset", "-g")
THERMAL: Final = ("/usr/bin/pmset", "-g", "therm")
#: What `powermetrics -s thermal` shows, for everybody: 0 nominal, 1 moderate, 2 heavy, 3 trapping, 4 sleeping.
PRESSURE: Final = ("/usr/bin/notifyutil", "-g", "com.apple.system.thermalpressurelevel")
IDLE: Final = ("/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4", "-S")

_SOURCE: Final = re.compile(r"drawing from '([^']+)'")
_CHARGE: Final = re.compile(r"(\d{1,3})%")
# Older names it "lowpowermode"; Macs that also have High Power Mode "powermode", with 2 for that.
_LOW_POWER: Final = re.compile(r"^\s*(?:lowpowermode|powermode)\s+(\d)", re.MULTILINE)
_ANY_SETTING: Final = re.compile(r"^\s*(?:sleep|displaysleep)\s+\d", re.MULTILINE)
_PRESSURE: Final = re.compile(r"thermalpressurelevel\s+(\d+)")
_HEAVY: Final = 2
_SPEED: Final = re.compile(r"CPU_Speed_Limit\s*=\s*(\d+)")
_WARNING: Final = re.compile(r"[Tt]hermal [Ww]arning [Ll]evel\s*=\s*(\d+)")
_NO_WARNING: Final = "No thermal warning level has been recorded"
_FULL_SPEED: Final = 100
_HID_IDLE: Final = re.compile(r'"HIDIdleTime"\s*=\s*(\d+)')
_NANO: Final = 1e-9


def read(wanted: frozenset[Fact], ask: Ask) -> Facts:
    """Return those of the *wanted* facts that can be read; one or two commands for each, none for the others."""
    mains, battery = _power(ask(BATTERY) or "") if Fact.POWER in wanted else (None, None)
    return Facts(
        mains=mains,
        battery=battery,
        low_power=_low_power(ask(SETTINGS) or "") if Fact.LOW_POWER in wanted else None,
        hot=_hot(ask(PRESSURE) or "", ask(THERMAL) or "") if Fact.HEAT in wanted else None,
        idle_s=_idle(ask(IDLE) or "") if Fact.IDLE in wanted else None,
    )


def _power(text: str) -> tuple[bool | None, int | None]:
    source, charge = _SOURCE.search(text), _CHARGE.search(text)
    # "UPS Power" is a battery too.
    return (source[1] == "AC Power" if source else None), (int(charge[1]) if charge else None)


def _low_power(text: str) -> bool | None:
    found = _LOW_POWER.search(text)
    if found is None:
        # A Mac that has no such mode lists its other settings.
        return False if _ANY_SETTING.search(text) else None
    return found[1] == "1"


def _hot(pressure: str, thermal: str) -> bool | None:
    """Either says so, or both that are known say no: Apple silicon tells the pressure, Intel the speed limit."""
    signs = [
        int(found[1]) >= _HEAVY if (found := _PRESSURE.search(pressure)) else None,
        int(found[1]) < _FULL_SPEED if (found := _SPEED.search(thermal)) else None,
        int(found[1]) > 0 if (found := _WARNING.search(thermal)) else False if _NO_WARNING in thermal else None,
    ]
    known = [sign for sign in signs if sign is not None]
    return any(known) if known else None


def _idle(text: str) -> float | None:
    found = _HID_IDLE.search(text)
    return int(found[1]) * _NANO if found else None
