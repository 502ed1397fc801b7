"""Which schedules there are: those of the configuration and those added at run time, in one table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from pydantic import ValidationError

from daemon.config.schedules import ScheduleConfig
from daemon.schedules.timing import times
from jobs.errors import InvalidParams, ScheduleConflict, ScheduleNotFound
from jobs.firing import Standing
from jobs.schedules import ScheduleBook

log: Final = logging.getLogger(__name__)

#: Where a schedule was defined.
CONFIG: Final = "config"
ADDED: Final = "added"
_LOOK_AHEAD: Final = 1000


class Roster:
    """Puts definitions into the book, and sees to it that what is written there fits the clocks."""

    def __init__(self, book: ScheduleBook, clock: Callable[[], datetime]) -> None:
        self._book = book
        self._clock = clock

    def sync(self, configured: Iterable[ScheduleConfig]) -> None:
        """Make the book hold what the configuration says; what it says no longer is forgotten."""
        known = {standing.name: standing for standing in self._book.all()}
        wanted = {schedule.name: schedule for schedule in configured}
        for name, schedule in wanted.items():
            if name not in known:
                self._book.add(self._standing(schedule, CONFIG, None))
                continue
            if known[name].origin == ADDED:
                log.warning(
                    "The schedule %s of the configuration takes the place of one that was added.",
                    name,
                    extra={"action": "schedule_replaced"},
                )
            self._book.change(name, partial(self._standing, schedule, CONFIG))
        for name, standing in known.items():
            if standing.origin == CONFIG and name not in wanted:
                self._book.remove(name)

    def add(self, schedule: ScheduleConfig) -> Standing:
        """Write a new schedule down.

        Raises:
            ScheduleConflict: there is one of this name.
            InvalidParams: it would never fire.

        """
        standing = self._standing(schedule, ADDED, None)
        if standing.next_at is None:
            raise InvalidParams(f"The schedule would never fire: its time, {schedule.when}, is over.")
        self._book.add(standing)
        return standing

    def pause(self, name: str) -> Standing:
        """Let a schedule rest; times that pass meanwhile are neither met nor missed."""
        return self._book.change(name, lambda standing: standing.model_copy(update={"paused": True}))

    def resume(self, name: str) -> Standing:
        """Let a schedule go on with its next time from now."""

        def go_on(standing: Standing) -> Standing:
            if not standing.paused:
                return standing
            following = definition(standing).timing(standing.anchor).after(self._clock())
            return standing.model_copy(update={"paused": False, "next_at": following})

        return self._book.change(name, go_on)

    def remove(self, name: str) -> None:
        """Forget a schedule that was added; `ScheduleConflict` for one of the configuration."""
        if self._book.get(name).origin == CONFIG:
            raise ScheduleConflict(
                f"The schedule {name!r} is written in the configuration; remove it there and run `mlxd reload`, "
                f"or rest it with `mlxd schedule pause {name}`.",
                schedule=name,
            )
        self._book.remove(name)

    def realign(self) -> None:
        """Look at every next time afresh: the clock may have been set, the machine may be in another time zone."""
        for standing in self._book.all():
            with suppress(ScheduleNotFound):
                self._book.change(standing.name, self._aligned)

    def _aligned(self, standing: Standing) -> Standing:
        try:
            schedule = definition(standing)
        except InvalidParams:  # an older or newer program wrote it; the listing says so
            return standing
        after = self._standing(schedule, standing.origin, standing)
        earlier = self._earlier(schedule, after)
        return after if earlier is None else after.model_copy(update={"next_at": earlier})

    def _standing(self, schedule: ScheduleConfig, origin: str, before: Standing | None) -> Standing:
        """Return what the book should hold; the next time stays unless the timing is another one, or it rested.

        An anchor in the future was set when the clock was wrong.
        """
        said, now = schedule.model_dump(mode="json"), self._clock()
        if before is not None and before.fingerprint == schedule.fingerprint and before.anchor <= now:
            rested = schedule.enabled and before.definition.get("enabled") is False
            following = schedule.timing(before.anchor).after(now) if rested else before.next_at
            return before.model_copy(update={"origin": origin, "definition": said, "next_at": following})
        anchor = now.replace(microsecond=0)
        return Standing(
            name=schedule.name,
            origin=origin,
            definition=said,
            fingerprint=schedule.fingerprint,
            anchor=anchor,
            next_at=schedule.timing(anchor).after(now),
            paused=before.paused if before else False,
        )

    def _earlier(self, schedule: ScheduleConfig, standing: Standing) -> datetime | None:
        """Return a time that comes before the next one as written, and has not become a job: the clock went back."""
        for time in islice(times(schedule.timing(standing.anchor), self._clock()), _LOOK_AHEAD):
            if standing.next_at is not None and time >= standing.next_at:
                return None
            if not self._book.known(standing.name, [time]):
                return time
        return None


def definition(standing: Standing) -> ScheduleConfig:
    """Return what *standing* means.

    Raises:
        InvalidParams: this program does not understand it.

    """
    try:
        return ScheduleConfig.model_validate(standing.definition)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidParams(
            f"The schedule {standing.name!r} cannot be understood ({where}: {first['msg']}). Define it again.",
            schedule=standing.name,
        ) from None
