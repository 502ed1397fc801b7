"""Reading a Linux machine: files below /sys, and commands where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.conditions import linux
from daemon.conditions.policy import Fact, Facts

NOW = 1_800_000_000.0


class FakeAsk:
    """Answers from a table; other commands are not here."""

    def __init__(self, answers: dict[tuple[str, ...], str] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> str | None:
        self.asked.append(tuple(command))
        return self.answers.get(tuple(command))


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def read(fact: Fact, root: Path, ask: FakeAsk | None = None) -> Facts:
    return linux.read(frozenset({fact}), ask or FakeAsk(), sys=root, uid=lambda: 501, now=lambda: NOW)


SUPPLY = "class/power_supply"
MAINS = {f"{SUPPLY}/AC/type": "Mains"}
BATTERY = {f"{SUPPLY}/BAT0/type": "Battery", f"{SUPPLY}/BAT0/capacity": "34"}
MOUSE = {
    f"{SUPPLY}/hid-1/type": "Battery",
    f"{SUPPLY}/hid-1/scope": "Device",
    f"{SUPPLY}/hid-1/status": "Discharging",
    f"{SUPPLY}/hid-1/capacity": "9",
}


@pytest.mark.parametrize(
    ("files", "mains", "battery"),
    [
        ({**MAINS, f"{SUPPLY}/AC/online": "1", **BATTERY, f"{SUPPLY}/BAT0/status": "Charging"}, True, 34),
        ({**MAINS, f"{SUPPLY}/AC/online": "0", **BATTERY, f"{SUPPLY}/BAT0/status": "Discharging"}, False, 34),
        ({**BATTERY, f"{SUPPLY}/BAT0/status": "Discharging", **MOUSE}, False, 34),
        ({**MOUSE}, True, None),
        ({**MAINS, f"{SUPPLY}/AC/online": "0", **BATTERY, f"{SUPPLY}/BAT0/status": "Not charging"}, True, 34),
    ],
    ids=["plugged in", "unplugged", "no adapter listed", "a desktop with a mouse", "full"],
)
def test_power(tmp_path: Path, files: dict[str, str], mains: bool, battery: int | None) -> None:
    """Adapters and batteries of the machine count, those of a mouse do not."""
    facts = read(Fact.POWER, put(tmp_path, files))
    assert (facts.mains, facts.battery) == (mains, battery)


def test_upower_answers_where_sys_does_not(tmp_path: Path) -> None:
    """Without the folder in /sys upower is asked, if it is there."""
    ask = FakeAsk({("/usr/bin/upower", "--dump"): "Device: x\n    percentage: 55%\nDaemon:\n  on-battery:      yes\n"})
    facts = read(Fact.POWER, tmp_path, ask)
    assert (facts.mains, facts.battery) == (False, 55)
    assert read(Fact.POWER, tmp_path).mains is None


def test_power_saver(tmp_path: Path) -> None:
    """The profiles daemon speaks first, then the firmware; neither means not known."""
    ask = FakeAsk({("/usr/bin/powerprofilesctl", "get"): "power-saver\n"})
    assert read(Fact.LOW_POWER, tmp_path, ask).low_power is True
    assert read(Fact.LOW_POWER, tmp_path).low_power is None
    put(tmp_path, {"firmware/acpi/platform_profile": "balanced"})
    assert read(Fact.LOW_POWER, tmp_path).low_power is False
    put(tmp_path, {"firmware/acpi/platform_profile": "low-power"})
    assert read(Fact.LOW_POWER, tmp_path).low_power is True


def test_heat(tmp_path: Path) -> None:
    """A zone is hot at its own passive limit, or at 90 degrees if it names none; without zones nothing is known."""
    zone = "class/thermal/thermal_zone0"
    assert read(Fact.HEAT, tmp_path).hot is None
    put(tmp_path, {f"{zone}/temp": "84000"})
    assert read(Fact.HEAT, tmp_path).hot is False
    put(tmp_path, {f"{zone}/trip_point_0_type": "passive", f"{zone}/trip_point_0_temp": "80000"})
    assert read(Fact.HEAT, tmp_path).hot is True
    put(tmp_path, {f"{zone}/trip_point_0_type": "active"})
    assert read(Fact.HEAT, tmp_path).hot is False, "a fan that starts is no heat"
    put(tmp_path, {"class/thermal/thermal_zone1/temp": "nonsense"})
    assert read(Fact.HEAT, tmp_path).hot is False


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("IdleHint=no\nIdleSinceHint=0\n", 0.0),
        (f"IdleHint=yes\nIdleSinceHint={int((NOW - 90) * 1e6)}\n", 90.0),
        ("IdleHint=yes\nIdleSinceHint=0\n", None),
        ("", None),
    ],
)
def test_idle(tmp_path: Path, text: str, idle: float | None) -> None:
    """The login manager says since when nobody is there, in microseconds."""
    command = ("/usr/bin/loginctl", "show-user", "501", "--property=IdleHint", "--property=IdleSinceHint")
    assert read(Fact.IDLE, tmp_path, FakeAsk({command: text})).idle_s == pytest.approx(idle)


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    """With nothing wanted no command runs."""
    ask = FakeAsk()
    assert linux.read(frozenset(), ask, sys=tmp_path) == Facts()
    assert ask.asked == []
