"""Which jobs may be taken, in which order, and the one compare-and-swap that takes one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, String, Update, bindparam, case, or_, update

from jobs.model import TRANSITIONS, Lane, State
from jobs.schema import jobs

#: No retry is put off for longer. One that lies further ahead was written down before the clock was set back, and is
#: due: a person's own ``not_before`` is a time on the wall, which has to come; a retry is an amount of waiting.
RETRY_WITHIN: Final = timedelta(minutes=10)

_LANE_ORDER: Final = {lane.value: rank for rank, lane in enumerate(Lane)}
#: Most urgent first: by lane, priority, order of acceptance.
URGENCY: Final = (case(_LANE_ORDER, value=jobs.c.lane), jobs.c.priority.desc(), jobs.c.seq)

#: Holds for a job that can be claimed.
CLAIMABLE: Final = or_(*(jobs.c.state == state.value for state, after in TRANSITIONS.items() if State.RUNNING in after))
#: Holds for a job whose time has come; takes the `moments` as parameters.
DUE: Final = (
    jobs.c.not_before.is_(None)
    | (jobs.c.not_before <= bindparam("now"))
    | ((jobs.c.failures > 0) & (jobs.c.not_before > bindparam("latest")))
)


class Ready(NamedTuple):
    """What it takes to leave a hint for a job."""

    id: str
    lane: Lane
    priority: int
    #: Whether it has been claimed before: it was interrupted, or is tried again.
    begun: bool


def moments(now: datetime) -> dict[str, datetime]:
    """Return the parameters of `DUE`."""
    return {"now": now, "latest": now + RETRY_WITHIN}


def startable(lanes: Collection[Lane]) -> tuple[ColumnElement[bool], ...]:
    """Return what holds for queued jobs of *lanes* whose time has come; takes the `moments` as parameters."""
    return jobs.c.state == State.QUEUED.value, jobs.c.lane.in_([lane.value for lane in lanes]), DUE


def claiming(claimable: ColumnElement[bool] = CLAIMABLE, due: ColumnElement[bool] = DUE) -> Update:
    """Return the statement that takes the job ``wanted`` for one attempt of ``claimant`` at ``now``.

    It takes the `moments` and ``within`` (a lane, or None for any) as parameters too, and returns the job's row if it
    was there to be taken.
    """
    within = bindparam("within", type_=String)
    return (
        update(jobs)
        .where(jobs.c.id == bindparam("wanted"), within.is_(None) | (jobs.c.lane == within), claimable, due)
        .values(state=State.RUNNING.value, attempts=jobs.c.attempts + 1, fence=jobs.c.fence + 1)
        .values(owner=bindparam("claimant"), started_at=bindparam("now"), not_before=None, error=None)
        .returning(*jobs.c)
    )


CLAIM: Final = claiming()
