"""What becomes of missed times: the whole table of policies."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fakes_schedules import utc
from hypothesis import given
from hypothesis import strategies as st

from daemon.schedules.catchup import ON_TIME, CatchUp, catch_up

NOW = utc("2026-11-20T12:00")
HOUR = timedelta(hours=1)


def come(*hours_ago: float) -> list:
    return [NOW - hours * HOUR for hours in hours_ago]


def decide(policy: CatchUp, times: list, *, window: timedelta = timedelta(days=31), limit: int = 10):
    return catch_up(policy, times, now=NOW, window=window, limit=limit, why="the computer slept")


@pytest.mark.parametrize("policy", CatchUp)
def test_a_time_that_is_met_runs(policy: CatchUp) -> None:
    """One time, at most a minute late, becomes a job under every policy."""
    assert decide(policy, come(0.01)).run == tuple(come(0.01))
    assert decide(policy, []).run == ()


@pytest.mark.parametrize(
    ("policy", "ago", "run", "missed"),
    [
        (CatchUp.SKIP, (3, 2, 1), (), (3, 2, 1)),
        (CatchUp.SKIP, (2, 1, 0), (0,), (2, 1)),
        (CatchUp.ONCE, (3, 2, 1), (1,), (3, 2)),
        (CatchUp.ONCE, (2, 1, 0), (0,), (2, 1)),
        (CatchUp.ONCE, (4,), (4,), ()),
        (CatchUp.ALL, (3, 2, 1), (3, 2, 1), ()),
        (CatchUp.ALL, (5, 4, 3, 2, 1), (4, 3, 2, 1), (5,)),
        # The window: four and a half hours below.
        (CatchUp.ONCE, (7, 6, 5), (), (7, 6, 5)),
        (CatchUp.ALL, (7, 5, 3), (3,), (7, 5)),
        (CatchUp.SKIP, (7,), (), (7,)),
    ],
)
def test_policies(policy: CatchUp, ago: tuple, run: tuple, missed: tuple) -> None:
    """Skip does none, once the latest, all the latest few, and nothing that lies before the window."""
    found = decide(policy, come(*ago), window=4.5 * HOUR, limit=4)
    assert (found.run, found.missed) == (tuple(come(*run)), tuple(come(*missed)))
    assert not found.missed or found.reason.startswith("the computer slept")


@given(
    policy=st.sampled_from(CatchUp),
    ago=st.lists(st.integers(0, 10_000_000), unique=True, max_size=30),
    window=st.integers(0, 10_000_000),
    limit=st.integers(1, 20),
)
def test_every_time_is_run_or_missed(policy: CatchUp, ago: list[int], window: int, limit: int) -> None:
    """Each time that came is in exactly one of the two, in order; a time that was met always runs."""
    times = sorted(NOW - timedelta(seconds=seconds) for seconds in ago)
    found = decide(policy, times, window=timedelta(seconds=window), limit=limit)

    assert sorted((*found.run, *found.missed)) == times
    assert list(found.run) == sorted(found.run)
    assert len(found.run) <= (limit if policy is CatchUp.ALL else 1)
    if times and NOW - times[-1] <= ON_TIME:
        assert times[-1] in found.run
    assert all(NOW - time <= timedelta(seconds=window) or NOW - time <= ON_TIME for time in found.run)
