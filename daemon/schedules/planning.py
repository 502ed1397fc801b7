"""From a schedule and its situation to the step that is due: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.catchup import ON_TIME, Caught, catch_up
from daemon.schedules.overlap import Turn, overlap
from daemon.schedules.timing import delay, latest
from jobs.firing import Fire, Miss, Situation, Standing, Step
from jobs.model import Job, NewJob

#: Times that are looked at one by one; what lies before them was missed and is counted no further.
MOST_LOOKED_AT: Final = 1000
_TICK: Final = timedelta(microseconds=1)


def due(schedule: ScheduleConfig, standing: Standing, time: datetime) -> datetime:
    """Return when *time* really happens: put off by its share of the jitter, but never beyond the time that follows."""
    if not schedule.jitter:
        return time
    longest = timedelta(seconds=schedule.jitter)
    following = schedule.timing(standing.anchor).after(time)
    return time + delay(schedule.name, time, longest if following is None else min(longest, following - time))


def plan(
    schedule: ScheduleConfig,
    situation: Situation,
    *,
    now: datetime,
    why: str,
    problem: str | None,
    job: Callable[[Fire], NewJob],
) -> Step | None:
    """Return what is to be done for *schedule* at *now*, None if nothing is.

    *why* says why times were not met, if some were not; *problem* why its jobs cannot be made at all.
    """
    standing = situation.standing
    if standing.paused or not schedule.enabled:
        return None
    come = _come(schedule, standing, now)
    maker = job if problem is None else None
    if not come:
        return Step(next_at=standing.next_at, job=maker) if situation.waiting and maker else None
    # What was taken before the clock was set back neither happens again nor counts among those to be caught up with.
    anew = [time for time in come if time not in situation.taken]
    if problem is None:
        caught = _caught(schedule, standing, anew, now=now, why=why)
    else:
        caught = Caught(missed=tuple(anew), reason=problem)
    turn = overlap(schedule.overlap, caught.run, busy=_busy(situation.busy), waiting=situation.waiting)
    return Step(
        next_at=schedule.timing(standing.anchor).after(come[-1]),
        take=tuple((time, _kind(due(schedule, standing, time), now)) for time in turn.take),
        drop=turn.drop,
        cancel=turn.cancel,
        missed=_misses(caught, turn, now, since=_since(standing, anew or come)),
        job=maker,
    )


def _come(schedule: ScheduleConfig, standing: Standing, now: datetime) -> list[datetime]:
    """Return the times that are due, oldest first; if they are very many, only the latest."""
    if standing.next_at is None or due(schedule, standing, standing.next_at) > now:
        return []
    found = latest(schedule.timing(standing.anchor), standing.next_at - _TICK, now, MOST_LOOKED_AT)
    return list(takewhile(lambda time: due(schedule, standing, time) <= now, found))


def _caught(
    schedule: ScheduleConfig, standing: Standing, come: Sequence[datetime], *, now: datetime, why: str
) -> Caught:
    return catch_up(
        schedule.catch_up,
        come,
        now=now,
        window=timedelta(seconds=schedule.catch_up_window),
        limit=schedule.limit,
        why=why,
        due=lambda time: due(schedule, standing, time),
    )


def _busy(jobs: Sequence[Job]) -> str | None:
    return f"job {jobs[-1].id} was {jobs[-1].state.value}" if jobs else None


def _kind(moment: datetime, now: datetime) -> str:
    return "on-time" if now - moment <= ON_TIME else "catch-up"


def _since(standing: Standing, come: Sequence[datetime]) -> datetime:
    """Return the first time that came; *come* does not have it if there were very many."""
    if len(come) >= MOST_LOOKED_AT - 1 and standing.next_at is not None:
        return standing.next_at
    return come[0]


def _misses(caught: Caught, turn: Turn, now: datetime, *, since: datetime) -> tuple[Miss, ...]:
    """Return what is told about missed times; those of *caught* begin with the first that came."""
    found = []
    if caught.missed:
        found.append((since, caught.missed, caught.reason))
    if turn.missed:
        found.append((min(turn.missed), turn.missed, turn.reason))
    return tuple(
        Miss(first=first, last=max(times), count=len(times), reason=reason, noticed_at=now)
        for first, times, reason in found
    )
