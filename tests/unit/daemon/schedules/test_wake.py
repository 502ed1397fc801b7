"""A sleep is told from time that passes, and from a clock that was set back."""

from __future__ import annotations

from datetime import timedelta

from fakes_daemon import FakeClock

from daemon.schedules.wake import Clocks


def test_jumps() -> None:
    """Time that passes is none, drift neither; a sleep is, once; a clock set back is told apart."""
    clock = FakeClock()
    clocks = Clocks(clock, clock.monotonic)
    clock.advance(100_000)
    assert clocks.jump() is None
    clock.now += timedelta(seconds=5)
    assert clocks.jump() is None
    clock.now += timedelta(hours=3)
    slept = clocks.jump()
    assert slept is not None
    assert (slept.seconds, slept.asleep) == (10_800, True)
    assert clocks.jump() is None
    clock.now -= timedelta(hours=1)
    back = clocks.jump()
    assert back is not None
    assert not back.asleep
