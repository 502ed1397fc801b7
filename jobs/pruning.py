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

from sqlalchemy import bindparam, delete, func, or_, select

from jobs.ledger import Ledger
from jobs.model import TERMINAL
from jobs.schema import fires, jobs, seen

#: Jobs that one transaction forgets: others wait for its end.
AT_ONCE: Final = 100
#: The latest jobs are kept however old they are: what a start catches up with looks back as far.
LEAST: Final = 1000
#: Latest times of each schedule whose jobs are kept: as many as are shown.
_FIRES: Final = 20

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

        Not the latest *keep* jobs (at least `LEAST`). The file keeps its size; new jobs fill the space.

        A file that shrinks (SQLite's incremental vacuum) writes its first page in another way when it is made, and a
        power cut just then left no database.
        """
        with self._ledger.transaction("prune") as connection:
            newest = connection.execute(select(func.max(jobs.c.seq))).scalar_one()
            if newest is None:
                return 0
            facts = {"before": before, "newest": newest - max(keep, LEAST), "most": most}
            return int(connection.execute(_FORGET, facts).rowcount)
