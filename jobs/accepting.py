"""Taking jobs in, inside one transaction: is it new, is there room, its row, and the watched file it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, func, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.errors import InputChanged, QueueFull
from jobs.model import TERMINAL, Job, NewJob, State
from jobs.rows import NOTHING_YET, new_row, printable, select_jobs, to_job
from jobs.schema import jobs, seen
from jobs.statements import find_job

#: A watched folder, the key by which a file in it is known again, and another one of the same file.
SeenFile = tuple[Path, str] | tuple[Path, str, str]

_UNFINISHED: Final = or_(*(jobs.c.state == state.value for state in State if state not in TERMINAL))
_COUNT: Final = select(func.count()).select_from(jobs).where(_UNFINISHED)
_BY_KEY: Final = select_jobs().where(jobs.c.idempotency_key == bindparam("key"))
#: Asked in the statement itself: between two of them the job might step aside. One that was cleaned away counts.
_ASIDE: Final = select(jobs.c.id).where(
    jobs.c.id == seen.c.job_id,
    jobs.c.state == State.CANCELLED.value,
    func.json_extract(jobs.c.error, "$.type") == InputChanged.slug,
)
_SEEN: Final = select(seen.c.job_id).where(
    seen.c.folder == bindparam("folder"), seen.c.key == bindparam("key"), ~_ASIDE.exists()
)
# The twin of an id gets no row.
_INSERT_ALL: Final = upsert(jobs).on_conflict_do_nothing(index_elements=["id"]).returning(jobs.c.id, jobs.c.seq)
_INSERT: Final = upsert(jobs).on_conflict_do_nothing(index_elements=["id"]).returning(jobs.c.seq)


def insert_jobs(
    connection: Connection, news: Sequence[NewJob], *, new_id: Callable[[], str], now: datetime
) -> list[Job]:
    """Write all of *news* down with one statement, in their order."""
    rows = [new_row(new, job_id=new_id(), now=now) for new in news]
    given = {row.id: row.seq for row in connection.execute(_INSERT_ALL, rows)} if rows else {}
    # A twin has none: it is written down by itself, under another id.
    seqs = [given.pop(row["id"], None) for row in rows]
    return [
        insert_job(connection, new, new_id=new_id, now=now)
        if seq is None
        else to_job({**NOTHING_YET, **row, "seq": seq})
        for new, row, seq in zip(news, rows, seqs, strict=True)
    ]


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
        raise no_room(count, limit)


def no_room(count: int, limit: int | None) -> QueueFull:
    """Return the refusal of a job beyond the *limit*."""
    return QueueFull(
        f"{count} jobs are unfinished and {limit} are allowed; try again later.", unfinished=count, limit=limit
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
    """Return the id of the job that the watched *file* became; one that stepped aside unread stands for none."""
    folder, key, *_ = file
    job_id: str | None = connection.execute(_SEEN, {"folder": folder, "key": key}).scalar_one_or_none()
    return job_id


def remember(connection: Connection, file: SeenFile | None, job_id: str) -> None:
    """Note that the watched *file* has become the job *job_id*."""
    if file is None:
        return
    folder, *keys = file
    for key in keys:
        statement = upsert(seen).values(folder=folder, key=key, job_id=job_id)
        connection.execute(statement.on_conflict_do_update(index_elements=["folder", "key"], set_={"job_id": job_id}))
