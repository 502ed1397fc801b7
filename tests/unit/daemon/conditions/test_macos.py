"""Reading a Mac: exact commands, and what their output means."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from daemon.conditions import macos
from daemon.conditions.policy import Fact, Facts

ON_BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=21692515)\t34%; discharging; 3:12 remaining present: true
"""
ON_MAINS = """Now drawing from 'AC Power'
 -InternalBattery-0 (id=21692515)\t100%; charged; 0:00 remaining present: true
"""
SETTINGS = """System-wide power settings:
Currently in use:
 standby              1
 lowpowermode         {}
 sleep                1 (sleep prevented by sharingd)
 displaysleep         2
"""
COOL = "Note: No thermal warning level has been recorded\nNote: No performance warning level has been recorded\n"
INTEL = "CPU Power notify\n\tCPU_Scheduler_Limit \t= 100\n\tCPU_Available_CPUs \t= 8\n\tCPU_Speed_Limit \t= {}\n"
HID = """+-o IOHIDSystem  <class IOHIDSystem, id 0x1000004c5>
    {
      "HIDIdleTime" = 1234567890123
    }
"""


class FakeAsk:
    """Answers from a table; other commands are not here."""

    def __init__(self, answers: dict[tuple[str, ...], str]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> str | None:
        self.asked.append(tuple(command))
        return self.answers.get(tuple(command))


def read(fact: Fact, answers: dict[tuple[str, ...], str]) -> Facts:
    return macos.read(frozenset({fact}), FakeAsk(answers))


def test_only_what_is_wanted_is_asked() -> None:
    """Each fact has its own commands, by absolute path, and nothing else is run."""
    commands = {
        Fact.POWER: [("/usr/bin/pmset", "-g", "batt")],
        Fact.LOW_POWER: [("/usr/bin/pmset", "-g")],
        Fact.HEAT: [
            ("/usr/bin/notifyutil", "-g", "com.apple.system.thermalpressurelevel"),
            ("/usr/bin/pmset", "-g", "therm"),
        ],
        Fact.IDLE: [("/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4", "-S")],
    }
    for fact, expected in commands.items():
        ask = FakeAsk({})
        assert macos.read(frozenset({fact}), ask) == Facts(), "nothing answered, so nothing is known"
        assert ask.asked == expected


@pytest.mark.parametrize(
    ("text", "mains", "battery"),
    [
        (ON_BATTERY, False, 34),
        (ON_MAINS, True, 100),
        ("Now drawing from 'AC Power'\n", True, None),
        ("Now drawing from 'UPS Power'\n -UPS (id=1)\t80%; present: true\n", False, 80),
        ("something else", None, None),
    ],
)
def test_power(text: str, mains: bool | None, battery: int | None) -> None:
    """Mains, battery and its charge, a Mac without a battery, one behind a UPS."""
    facts = read(Fact.POWER, {macos.BATTERY: text})
    assert (facts.mains, facts.battery) == (mains, battery)


@pytest.mark.parametrize(
    ("text", "on"),
    [
        (SETTINGS.format(1), True),
        (SETTINGS.format(0), False),
        (SETTINGS.replace("lowpowermode", "powermode").format(2), False),
        (SETTINGS.replace("lowpowermode", "powermode").format(1), True),
        (" sleep                1\n", False),
        ("", None),
    ],
)
def test_low_power_mode(text: str, on: bool | None) -> None:
    """Its line under both names; High Power Mode is none; a Mac without the mode is not in it."""
    assert read(Fact.LOW_POWER, {macos.SETTINGS: text}).low_power is on


@pytest.mark.parametrize(
    ("pressure", "thermal", "hot"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", COOL, False),
        ("com.apple.system.thermalpressurelevel 1\n", COOL, False),
        ("com.apple.system.thermalpressurelevel 2\n", COOL, True),
        ("", INTEL.format(100), False),
        ("", INTEL.format(70), True),
        ("com.apple.system.thermalpressurelevel 0\n", INTEL.format(70), True),
        ("", "Thermal Warning Level = 1\n", True),
        ("", COOL, False),
        ("", "", None),
    ],
)
def test_heat(pressure: str, thermal: str, hot: bool | None) -> None:
    """Heavy thermal pressure, a lowered CPU speed or a warning mean hot; moderate pressure does not."""
    assert read(Fact.HEAT, {macos.PRESSURE: pressure, macos.THERMAL: thermal}).hot is hot


def test_idle_time_is_in_nanoseconds() -> None:
    """The time since the last key or movement, in seconds."""
    assert read(Fact.IDLE, {macos.IDLE: HID}).idle_s == pytest.approx(1234.567890123)
