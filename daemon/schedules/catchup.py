"""What becomes of the times that passed while nobody could act on them: pure.

The computer slept, was off, or mlxd did not run. The newest time counts as met if it is at most `ON_TIME` old;
everything older was missed, and the policy says what of it still happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

#: A time that is met this late still counts as met.
ON_TIME: Final = timedelta(seconds=60)


class CatchUp(StrEnum):
    """What happens to times that were missed."""

    #: Nothing.
    SKIP = "skip"
    #: One job for all of them, for the latest.
    ONCE = "once"
    #: One job for each, the latest *limit* of them.
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What to do about the times that have come."""

    #: Times that become jobs, oldest first.
    run: tuple[datetime, ...] = ()
    #: Times that do not.
    missed: tuple[datetime, ...] = ()
    #: Why not, for people.
    reason: str = ""


def catch_up(
    policy: CatchUp,
    come: Sequence[datetime],
    *,
    now: datetime,
    window: timedelta,
    limit: int,
    why: str,
    due: Callable[[datetime], datetime] = lambda time: time,
) -> Caught:
    """Decide about the times *come* (oldest first, none due in the future).

    *why* says why they were not met; *due* is when a time was to happen, jitter included.
    """
    if not come:
        return Caught()
    *older, newest = come
    met = now - due(newest) <= ON_TIME
    if met and not older:
        return Caught(run=tuple(come))
    if policy is CatchUp.SKIP:
        return Caught(
            run=(newest,) if met else (),
            missed=tuple(older) if met else tuple(come),
            reason=f"{why}; catch_up is skip",
        )
    within = [time for time in come if now - due(time) <= window or (met and time == newest)]
    if not within:
        return Caught(missed=tuple(come), reason=f"{why}, longer ago than catch_up_window")
    if policy is CatchUp.ONCE:
        return Caught(run=(newest,), missed=tuple(older), reason=f"{why}; one job stands for all (catch_up is once)")
    run = within[-limit:]
    beyond = "the limit of catch_up all" if len(within) > limit else "catch_up_window"
    return Caught(run=tuple(run), missed=tuple(come[: len(come) - len(run)]), reason=f"{why}, beyond {beyond}")
