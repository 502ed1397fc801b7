"""Forgetting old finished jobs, so that the ledger does not grow for ever.

Forgotten is only what nothing depends on any more:

1. It has ended, long ago, and is none of the latest jobs.
2. Nobody asked that its provenance be kept, and it wrote nothing outside its own folder: of an output in a folder of
   yours the ledger is what knows who wrote it.
3. No watched file became it: it is why that file is not taken again.
4. None of the latest times of a schedule became it, and no unfinished job belongs to it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, or_, select

from jobs.ledger import Ledger
from jobs.model import TERMINAL
from jobs.schema import fires, jobs, seen

#: Jobs that one transaction forgets: others wait for its end.
AT_ONCE: Final = 100
#: The latest jobs are kept however old they are: what a start catches up with looks back as far.
LEAST: Final = 1000
#: Latest times of each schedule whose jobs are kept: as many as are shown.
_FIRES: Final = 20
#: Pages given back to the system in one transaction.
_PAGES: Final = 256
#: SQLite's number for a file that shrinks when it is told to.
_INCREMENTAL: Final = 2

_ENDED: Final = or_(*(jobs.c.state == state.value for state in TERMINAL))
_child = jobs.alias("child")
_ranked = select(
    fires.c.job_id,
    func.row_number().over(partition_by=fires.c.schedule, order_by=fires.c.fire_at.desc()).label("place"),
).subquery()
_OLD: Final = (
    select(jobs.c.seq)
    .where(_ENDED, jobs.c.finished_at < bindparam("before"), jobs.c.seq <= bindparam("newest"))
    .where(func.coalesce(jobs.c.provenance, 0) == 0)
    .where(func.json_extract(jobs.c.placement, "$.directory").is_(None))
    .where(func.json_extract(jobs.c.placement, "$.input").is_(None))
    .where(~select(seen.c.key).where(seen.c.job_id == jobs.c.id).exists())
    .where(jobs.c.id.not_in(select(_ranked.c.job_id).where(_ranked.c.place <= _FIRES, _ranked.c.job_id.is_not(None))))
    .where(
        ~select(_child.c.seq)
        .where(_child.c.parent == jobs.c.id, ~or_(*(_child.c.state == state.value for state in TERMINAL)))
        .exists()
    )
    .order_by(jobs.c.seq)
    .limit(bindparam("most"))
)
_FORGET: Final = delete(jobs).where(jobs.c.seq.in_(_OLD))


class Pruning:
    """Forgets in the ledger's file. Any thread may call any method; all raise `LedgerUnavailable`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def forget(self, *, before: datetime, keep: int = LEAST, most: int = AT_ONCE) -> int:
        """Forget, in one transaction, up to *most* jobs that ended *before* then; return how many these were.

        Not the latest *keep* jobs (at least `LEAST`). Space is given back to the system as far as the file allows.
        """
        with self._ledger.transaction("prune") as connection:
            newest = connection.execute(select(func.max(jobs.c.seq))).scalar_one()
            if newest is None:
                return 0
            facts = {"before": before, "newest": newest - max(keep, LEAST), "most": most}
            forgotten = connection.execute(_FORGET, facts).rowcount
            if forgotten:
                _give_back(connection)
            return int(forgotten)


def _give_back(connection: Connection) -> None:
    """Give unused pages back to the system; a file that an earlier version made uses them itself, later."""
    if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != _INCREMENTAL:
        return
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    for _ in range(min(free, _PAGES)):  # one page each: Python's sqlite3 takes only the first step of what has no rows
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
