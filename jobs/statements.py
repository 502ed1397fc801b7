"""The ledger's steps inside one transaction: find a job, check its fence, change it, note something about it.

What is said often is put together once: building a statement takes SQLAlchemy longer than executing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.errors import JobConflict, JobNotFound, StaleFence
from jobs.model import Job, OutputFile, State, allowed
from jobs.moves import Changes
from jobs.rows import changed, path_key, printable, select_jobs, to_job
from jobs.schema import intents, jobs, notes, recipes

#: Shorter beginnings of an id are not looked up: they would soon mean another job.
_SHORTEST_PREFIX: Final = 4
#: A file may have an older content only if as many attempts died between the intent and the file's name.
_CONTENTS_KEPT: Final = 8

_BY_ID: Final = select_jobs().where(jobs.c.id == bindparam("id"))
_HELD: Final = select(jobs.c.seq, jobs.c.state, jobs.c.fence).where(jobs.c.id == bindparam("id"))
_SAME: Final = update(jobs).where(
    jobs.c.seq == bindparam("same_seq"),
    jobs.c.state == bindparam("same_state"),
    jobs.c.fence == bindparam("same_fence"),
)


def _kept(table: Table, *same: str, values: Sequence[str]) -> Insert:
    """Return the statement that adds a row, or sets *values* of the one that has the same *same*."""
    row = upsert(table)
    return row.on_conflict_do_update(index_elements=list(same), set_={name: row.excluded[name] for name in values})


# Put together once: for each file that a job writes, building them took more than half of the daemon's work.
_INTENDED: Final = select(intents.c.contents).where(
    intents.c.seq == bindparam("seq"), intents.c.path == bindparam("path")
)
_INTEND: Final = _kept(intents, "seq", "path", values=("key", "contents"))
_NOTE: Final = {name: _kept(notes, "seq", values=(name,)) for name in ("progress", "checkpoint")}


def find_job(connection: Connection, job_id: str) -> Job:
    """Return the job with this id, or with the only id that begins so; raise `JobNotFound` otherwise."""
    row = connection.execute(_BY_ID, {"id": printable(job_id)}).mappings().one_or_none()
    if row is not None:
        return to_job(row)
    rows = connection.execute(_beginning_with(job_id)).mappings().all() if len(job_id) >= _SHORTEST_PREFIX else []
    if len(rows) > 1:
        raise JobNotFound(f"Several jobs begin with {job_id!r}; give more of the id.", job=job_id, ambiguous=True)
    if not rows:
        raise JobNotFound(f"There is no job {job_id!r}.", job=job_id)
    return to_job(rows[0])


def _beginning_with(prefix: str) -> Any:
    typed = printable(prefix).lower()
    return select_jobs().where(jobs.c.id.startswith(typed, autoescape=True)).limit(2)


def held_seq(connection: Connection, job_id: str, fence: int) -> int:
    """Return the `seq` of the running job whose claim is *fence*; raise `StaleFence` if that claim is over."""
    row = connection.execute(_HELD, {"id": printable(job_id)}).one_or_none()
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}.", job=job_id)
    require_held(job_id, State(row.state), row.fence, fence)
    return int(row.seq)


def held_job(connection: Connection, job_id: str, fence: int) -> Job:
    """Return the running job whose claim is *fence*; raise `StaleFence` if that claim is over."""
    row = connection.execute(_BY_ID, {"id": printable(job_id)}).mappings().one_or_none()
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}.", job=job_id)
    job = to_job(row)
    require_held(job_id, job.state, job.fence, fence)
    return job


def require_held(job_id: str, state: State, current: int, fence: int) -> None:
    """Raise `StaleFence` if a job in *state* whose latest claim is *current* is not held by the claim *fence*."""
    if state is not State.RUNNING or current != fence:
        raise StaleFence(
            f"Attempt {fence} no longer owns job {job_id}: it is {state.value}, at attempt {current}.",
            job=job_id,
            state=state.value,
            fence=fence,
            current=current,
        )


def change(connection: Connection, job: Job, changes: Changes) -> Job:
    """Write *changes* to *job*, which this transaction has read, and return it as it is now."""
    after = State(changes.get("state", job.state))
    if after is not job.state and not allowed(job.state, after):
        raise JobConflict(
            f"Job {job.id} is {job.state.value} and cannot become {after.value}.", job=job.id, state=job.state.value
        )
    same = {"same_seq": job.seq, "same_state": job.state.value, "same_fence": job.fence}
    connection.execute(_SAME, same | changes)
    return changed(job, changes)


def take_note(connection: Connection, seq: int, **values: Any) -> None:
    """Keep *values* (``progress`` or ``checkpoint``) beside the job."""
    for name, value in values.items():
        connection.execute(_NOTE[name], {"seq": seq, name: value})


def note_intent(connection: Connection, seq: int, output: OutputFile) -> None:
    """Note that *output* is about to get its name; contents that the file may still have stay noted, newest first."""
    same = {"seq": seq, "path": output.path}
    earlier: list[str] = connection.execute(_INTENDED, same).scalar_one_or_none() or []
    contents = [output.sha256, *(sha256 for sha256 in earlier if sha256 != output.sha256)][:_CONTENTS_KEPT]
    connection.execute(_INTEND, {**same, "key": path_key(output.path), "contents": contents})


def note_recipe(connection: Connection, seq: int, key: str, details: dict[str, Any]) -> None:
    """Note what the job did, under *key*; the last attempt's word counts."""
    values = {"key": key, "details": details}
    statement = upsert(recipes).values(seq=seq, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["seq"], set_=values))
