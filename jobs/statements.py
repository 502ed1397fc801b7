"""The ledger's steps inside one transaction: find a job, check its fence, change it, note something about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.errors import JobConflict, JobNotFound, QueueFull, StaleFence
from jobs.model import TERMINAL, Job, NewJob, OutputFile, State, allowed
from jobs.moves import Changes
from jobs.rows import path_key, printable, select_jobs, to_job
from jobs.schema import intents, jobs, notes, recipes, seen

#: A watched folder and a file's key in it.
SeenFile = tuple[Path, str]

#: Shorter beginnings of an id are not looked up: they would soon mean another job.
_SHORTEST_PREFIX: Final = 4
#: A file may have an older content only if as many attempts died between the intent and the file's name.
_CONTENTS_KEPT: Final = 8
_UNFINISHED: Final = tuple(state.value for state in State if state not in TERMINAL)


def find_job(connection: Connection, job_id: str) -> Job:
    """Return the job with this id, or with the only id that begins so; raise `JobNotFound` otherwise."""
    row = connection.execute(select_jobs().where(jobs.c.id == printable(job_id))).mappings().one_or_none()
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
    query = select(jobs.c.seq, jobs.c.state, jobs.c.fence).where(jobs.c.id == printable(job_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}.", job=job_id)
    if row.state != State.RUNNING.value or row.fence != fence:
        raise StaleFence(
            f"Attempt {fence} no longer owns job {job_id}: it is {row.state}, at attempt {row.fence}.",
            job=job_id,
            state=row.state,
            fence=fence,
            current=row.fence,
        )
    return int(row.seq)


def change(connection: Connection, job: Job, changes: Changes) -> Job:
    """Write *changes* to *job*, which this transaction has read, and return it as it is now."""
    after = State(changes.get("state", job.state))
    if after is not job.state and not allowed(job.state, after):
        raise JobConflict(
            f"Job {job.id} is {job.state.value} and cannot become {after.value}.", job=job.id, state=job.state.value
        )
    same = jobs.c.seq == job.seq, jobs.c.state == job.state.value, jobs.c.fence == job.fence
    connection.execute(update(jobs).where(*same).values(**changes))
    return find_job(connection, job.id)


def take_note(connection: Connection, seq: int, **values: Any) -> None:
    """Keep *values* (``progress`` or ``checkpoint``) beside the job."""
    statement = upsert(notes).values(seq=seq, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["seq"], set_=values))


def note_intent(connection: Connection, seq: int, output: OutputFile) -> None:
    """Note that *output* is about to get its name; contents that the file may still have stay noted, newest first."""
    same = intents.c.seq == seq, intents.c.path == output.path
    earlier: list[str] = connection.execute(select(intents.c.contents).where(*same)).scalar_one_or_none() or []
    contents = [output.sha256, *(sha256 for sha256 in earlier if sha256 != output.sha256)][:_CONTENTS_KEPT]
    values = {"key": path_key(output.path), "contents": contents}
    statement = upsert(intents).values(seq=seq, path=output.path, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["seq", "path"], set_=values))


def note_recipe(connection: Connection, seq: int, key: str, details: dict[str, Any]) -> None:
    """Note what the job did, under *key*; the last attempt's word counts."""
    values = {"key": key, "details": details}
    statement = upsert(recipes).values(seq=seq, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["seq"], set_=values))


def admit(connection: Connection, limit: int | None) -> None:
    """Raise `QueueFull` if *limit* jobs are unfinished."""
    if limit is None:
        return
    unfinished = connection.execute(
        select(func.count()).select_from(jobs).where(jobs.c.state.in_(_UNFINISHED))
    ).scalar_one()
    if unfinished >= limit:
        raise QueueFull(
            f"{unfinished} jobs are unfinished and {limit} are allowed; try again later.",
            unfinished=unfinished,
            limit=limit,
        )


def repeated_job(connection: Connection, new: NewJob, file: SeenFile | None) -> Job | None:
    """Return the job that *new* repeats: of the same watched *file*, or with the same idempotency key."""
    if file is not None and (job_id := seen_job(connection, file)) is not None:
        return find_job(connection, job_id)
    if new.idempotency_key is None:
        return None
    query = select_jobs().where(jobs.c.idempotency_key == printable(new.idempotency_key))
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    remember(connection, file, row["id"])
    return to_job(row)


def seen_job(connection: Connection, file: SeenFile) -> str | None:
    """Return the id of the job that the watched *file* became."""
    folder, key = file
    query = select(seen.c.job_id).where(seen.c.folder == folder, seen.c.key == key)
    job_id: str | None = connection.execute(query).scalar_one_or_none()
    return job_id


def remember(connection: Connection, file: SeenFile | None, job_id: str) -> None:
    """Note that the watched *file* has become the job *job_id*."""
    if file is None:
        return
    folder, key = file
    statement = upsert(seen).values(folder=folder, key=key, job_id=job_id)
    connection.execute(statement.on_conflict_do_update(index_elements=["folder", "key"], set_={"job_id": job_id}))
