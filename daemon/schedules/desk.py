"""What people can ask about schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.keeper import Keeper
from daemon.schedules.office import ScheduleOffice
from daemon.schedules.planning import due
from daemon.schedules.roster import Roster, definition
from daemon.schedules.timing import times
from daemon.schedules.views import Backfilled, Condition, ScheduleDetails, ScheduleStatus, Upcoming
from daemon.schedules.zones import zone_name
from jobs.errors import InvalidParams
from jobs.firing import Standing
from jobs.model import Job
from jobs.schedules import ScheduleBook

#: Most times that one backfill covers.
MOST_BACKFILLED: Final = 1000
#: Upcoming times that `show` tells.
_UPCOMING: Final = 5
_TICK: Final = timedelta(microseconds=1)


class ScheduleDesk:
    """Answers for the schedules; any thread may call any method."""

    def __init__(
        self,
        book: ScheduleBook,
        roster: Roster,
        office: ScheduleOffice,
        keeper: Keeper,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._book = book
        self._roster = roster
        self._office = office
        self._keeper = keeper
        self._clock = clock

    def all(self) -> list[ScheduleStatus]:
        """Return the schedules by name."""
        waiting = self._book.waiting()
        return [self._status(standing, waiting.get(standing.name, 0)) for standing in self._book.all()]

    def problems(self) -> list[str]:
        """Return what is wrong with schedules, one sentence each."""
        return [f"schedule {one.name}: {one.problem}" for one in self.all() if one.problem]

    def show(self, name: str) -> ScheduleDetails:
        """Return one schedule with its past and future."""
        standing = self._book.get(name)
        status = self._status(standing, self._book.waiting().get(name, 0))
        try:
            said: ScheduleConfig | None = definition(standing)
        except InvalidParams:
            said = None
        return ScheduleDetails(
            **dict(status),
            definition=said,
            upcoming=self._upcoming(standing, _UPCOMING) if said and status.state is Condition.ACTIVE else (),
            fires=tuple(self._book.fires(name)),
            missed=tuple(self._book.misses(name)),
        )

    def add(self, schedule: ScheduleConfig) -> ScheduleStatus:
        """Take a new schedule; its job template is checked first.

        Raises:
            UnknownTask, InvalidParams: no job could be made of it, or it would never fire.
            ScheduleConflict: there is one of this name.

        """
        self._office.check(schedule)
        return self._changed(self._roster.add(schedule))

    def pause(self, name: str) -> ScheduleStatus:
        """Let a schedule rest."""
        return self._changed(self._roster.pause(name))

    def resume(self, name: str) -> ScheduleStatus:
        """Let a schedule go on with its next time from now."""
        return self._changed(self._roster.resume(name))

    def remove(self, name: str) -> None:
        """Forget a schedule that was added; `ScheduleConflict` for one of the configuration."""
        self._roster.remove(name)
        self._keeper.wake()

    def run(self, name: str) -> Job:
        """Make its job now, whatever else goes on; its times are not touched."""
        schedule = definition(self._book.get(name))
        self._office.check(schedule)
        job = self._book.manual(name, lambda fire: self._office.job(schedule, fire), limit=self._office.limit())
        self._office.announce(job)
        return job

    def next(self, name: str, count: int) -> Upcoming:
        """Return its next *count* times, as if it were neither paused nor disabled."""
        standing = self._book.get(name)
        return Upcoming(times=self._upcoming(standing, count), timezone=zone_name(definition(standing).zone))

    def backfill(self, name: str, start: datetime, end: datetime) -> Backfilled:
        """Make the jobs of the times from *start* to *end* that did not become any.

        Raises:
            InvalidParams: the end is not past, or there are too many times in between.

        """
        if end > self._clock():
            raise InvalidParams("A backfill is about the past; its end must not lie in the future.")
        standing = self._book.get(name)
        schedule = definition(standing)
        self._office.check(schedule)
        anchor = min(standing.anchor, _aligned(schedule, standing.anchor, start))
        wanted = list(islice(times(schedule.timing(anchor), start - _TICK, end), MOST_BACKFILLED + 1))
        if len(wanted) > MOST_BACKFILLED:
            raise InvalidParams(f"More than {MOST_BACKFILLED} times lie in this span; choose a shorter one.")
        inserted = self._book.take(name, wanted, "backfill")
        self._keeper.wake()
        return Backfilled(inserted=inserted, known=len(wanted) - inserted)

    def _changed(self, standing: Standing) -> ScheduleStatus:
        self._keeper.wake()
        return self._status(standing, self._book.waiting().get(standing.name, 0))

    def _upcoming(self, standing: Standing, count: int) -> tuple[datetime, ...]:
        """Return the next times as they really happen."""
        schedule = definition(standing)
        start = self._clock()
        if standing.next_at is not None and _condition(schedule, standing) is Condition.ACTIVE:
            start = min(start, standing.next_at - _TICK)  # put off by its jitter, and still to come
        found = islice(times(schedule.timing(standing.anchor), start), count)
        return tuple(due(schedule, standing, time).astimezone(schedule.zone) for time in found)

    def _status(self, standing: Standing, waiting: int) -> ScheduleStatus:
        last = next((fire for fire in self._book.fires(standing.name) if fire.job), None)
        common = {"name": standing.name, "origin": standing.origin, "last": last, "waiting": waiting}
        try:
            schedule = definition(standing)
        except InvalidParams as error:
            return ScheduleStatus(state=Condition.OVER, problem=error.message, **common)
        state = _condition(schedule, standing)
        active = standing.next_at if state is Condition.ACTIVE else None
        return ScheduleStatus(
            state=state,
            when=schedule.when,
            timezone=zone_name(schedule.zone),
            task=schedule.task,
            next_at=active,
            due_at=due(schedule, standing, active) if active else None,
            problem=self._office.problem(schedule) or self._keeper.troubles.get(standing.name),
            **common,
        )


def _aligned(schedule: ScheduleConfig, anchor: datetime, start: datetime) -> datetime:
    """Return an anchor before *start* from which an interval has the same times as from *anchor*."""
    if schedule.every is None or start >= anchor:
        return anchor
    period = timedelta(seconds=schedule.every)
    return anchor - ((anchor - start) // period + 2) * period


def _condition(schedule: ScheduleConfig, standing: Standing) -> Condition:
    if not schedule.enabled:
        return Condition.DISABLED
    if standing.paused:
        return Condition.PAUSED
    return Condition.OVER if standing.next_at is None else Condition.ACTIVE
