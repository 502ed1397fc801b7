"""Asking commands, and asking them seldom."""

from __future__ import annotations

import sys
from pathlib import Path

from fakes_daemon import FakeClock

from daemon.conditions.commands import ask
from daemon.conditions.policy import Fact, Facts
from daemon.conditions.readers import Readings, platform_reader

POWER = frozenset({Fact.POWER})


def test_a_command_s_output() -> None:
    """What a command prints comes back; one that fails, is not there or hangs gives nothing."""
    assert ask((sys.executable, "-c", "print('yes')")) == "yes\n"
    assert ask((sys.executable, "-c", "raise SystemExit(3)")) is None
    assert ask(("/no/such/command",)) is None
    assert ask((sys.executable, "-c", "input()"), patience=0.01) is None


def test_commands_speak_english() -> None:
    """Commands run in the C locale: their words are parsed."""
    assert ask((sys.executable, "-c", "import os; print(os.environ['LC_ALL'])")) == "C\n"


def test_readings_are_kept_for_a_moment() -> None:
    """Within a few seconds the same question is asked once; later, or when told to, again."""
    clock = FakeClock()
    asked: list[frozenset[Fact]] = []
    readings = Readings(lambda wanted: asked.append(wanted) or Facts(mains=True), monotonic=clock.monotonic, fresh=5)
    assert readings(POWER) == readings(POWER) == Facts(mains=True)
    assert asked == [POWER]
    readings(frozenset({Fact.IDLE}))
    clock.advance(5)
    readings(POWER)
    readings(POWER, anew=True)
    assert len(asked) == 4
    assert readings(frozenset()) == Facts()
    assert len(asked) == 4


def test_every_platform_has_a_reader() -> None:
    """On Linux /sys is read, on an unknown system nothing is known."""
    assert platform_reader("plan9")(POWER) == Facts()
    if Path("/sys/class/power_supply").is_dir():
        assert platform_reader("linux")(POWER).mains is not None
    if sys.platform != "darwin":
        assert platform_reader("darwin")(POWER) == Facts(), "none of its commands is here"
