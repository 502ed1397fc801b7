"""Taking jobs in, inside one transaction: is it new, is there room, its row, and the watched file it was made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, func, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.errors import QueueFull
from jobs.model import TERMINAL, Job, NewJob, State
from jobs.rows import NOTHING_YET, new_row, printable, select_jobs, to_job
from jobs.schema import jobs, seen
from jobs.statements import find_job

#: A watched folder, the key by which a file in it is known again, and another one of the same file.
SeenFile = tuple[Path, str] | tuple[Path, str, str]

_UNFINISHED: Final = or_(*(jobs.c.state == state.value for state in State if state not in TERMINAL))
_COUNT: Final = select(func.count()).select_from(jobs).where(_UNFINISHED)
_BY_KEY: Final = select_jobs().where(jobs.c.idempotency_key == bindparam("key"))
# The twin of an id gets no row.
_INSERT: Final = upsert(jobs).on_conflict_do_nothing(index_elements=["id"]).returning(jobs.c.seq)


def insert_job(connection: Connection, new: NewJob, *, new_id: Callable[[], str], now: datetime) -> Job:
    """Write *new* down under the first of the new ids that is free."""
    row = new_row(new, job_id=new_id(), now=now)
    while (seq := connection.execute(_INSERT, row).scalar_one_or_none()) is None:
        row["id"] = new_id()
    return to_job({**NOTHING_YET, **row, "seq": seq})


def unfinished(connection: Connection) -> int:
    """Return how many jobs are not done."""
    return int(connection.execute(_COUNT).scalar_one())


def admit(count: int, limit: int | None) -> None:
    """Raise `QueueFull` if *limit* jobs are allowed and *count* are unfinished."""
    if limit is not None and count >= limit:
        raise QueueFull(
            f"{count} jobs are unfinished and {limit} are allowed; try again later.",
            unfinished=count,
            limit=limit,
        )


def repeated_job(connection: Connection, new: NewJob, file: SeenFile | None) -> Job | None:
    """Return the job that *new* repeats: of the same watched *file*, or with the same idempotency key."""
    if file is not None and (job_id := seen_job(connection, file)) is not None:
        return find_job(connection, job_id)
    if new.idempotency_key is None:
        return None
    row = connection.execute(_BY_KEY, {"key": printable(new.idempotency_key)}).mappings().one_or_none()
    if row is None:
        return None
    remember(connection, file, row["id"])
    return to_job(row)


def seen_job(connection: Connection, file: SeenFile) -> str | None:
    """Return the id of the job that the watched *file* became."""
    folder, key, *_ = file
    query = select(seen.c.job_id).where(seen.c.folder == folder, seen.c.key == key)
    job_id: str | None = connection.execute(query).scalar_one_or_none()
    return job_id


def remember(connection: Connection, file: SeenFile | None, job_id: str) -> None:
    """Note that the watched *file* has become the job *job_id*."""
    if file is None:
        return
    folder, *keys = file
    for key in keys:
        statement = upsert(seen).values(folder=folder, key=key, job_id=job_id)
        connection.execute(statement.on_conflict_do_update(index_elements=["folder", "key"], set_={"job_id": job_id}))
