"""Looking into the ledger: every SELECT of jobs that anybody asks for. Nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text

from jobs.accepting import seen_job
from jobs.claims import DUE, URGENCY, Ready, moments, startable
from jobs.database import Database
from jobs.model import Job, Lane, State
from jobs.rows import path_key, printable, select_jobs, to_job
from jobs.schema import intents, jobs, notes, recipes
from jobs.statements import find_job

_CHECKPOINT: Final = (
    select(notes.c.checkpoint).join(jobs, jobs.c.seq == notes.c.seq).where(jobs.c.id == bindparam("id"))
)
_EVER: Final = text("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")
_KEPT: Final = select(func.count()).select_from(jobs)
_LANES: Final = {lane.value: lane for lane in Lane}


class Reading:
    """What can be asked about the jobs in *database*."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection for one SELECT."""
        return self._db.read()

    def get(self, job_id: str) -> Job:
        """Return the job with this id, or with the only id that begins so (at least 4 characters).

        Raises:
            JobNotFound: there is none, or several begin so.

        """
        with self._db.read() as connection:
            return find_job(connection, job_id)

    def find(
        self,
        *,
        states: Collection[State] = (),
        task: str | None = None,
        lane: Lane | None = None,
        source: str | None = None,
        rule: str | None = None,
        parent: str | None = None,
        limit: int = 50,
        before: int | None = None,
        newest_first: bool = True,
    ) -> list[Job]:
        """Return the jobs that fit everything given, at most *limit*, in order of acceptance.

        *source* is a kind. *before* is the `seq` at which the previous page ended: with *newest_first* only older jobs
        follow it, otherwise only newer ones.
        """
        query = select_jobs().order_by(jobs.c.seq.desc() if newest_first else jobs.c.seq).limit(limit)
        if states:
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        if before is not None:
            query = query.where(jobs.c.seq < before if newest_first else jobs.c.seq > before)
        wanted = {"task": task, "lane": lane, "source_kind": source, "source_rule": rule, "parent": parent}
        for column, value in wanted.items():
            if value is not None:
                query = query.where(jobs.c[column] == printable(str(value)))
        with self._db.read() as connection:
            return [to_job(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state, zeros included."""
        with self._db.read() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return dict.fromkeys(State, 0) | {State(state): count for state, count in rows}

    def forgotten(self) -> int:
        """Return how many jobs there were that are not kept any more: numbers are never given twice."""
        with self._db.read() as connection:
            ever = connection.execute(_EVER).scalar_one_or_none() or 0
            return int(ever) - int(connection.execute(_KEPT).scalar_one())

    def ready(self, limit: int = 1000, *, lanes: Collection[Lane] = tuple(Lane)) -> list[Job]:
        """Return the queued jobs that may start now, most urgent first: by lane, priority, order of acceptance."""
        query = select_jobs().where(*startable(lanes)).order_by(*URGENCY).limit(limit)
        with self._db.read() as connection:
            return [to_job(row) for row in connection.execute(query, moments(self._clock())).mappings()]

    def ready_ids(self, *, lanes: Collection[Lane] = tuple(Lane)) -> list[Ready]:
        """Return all the jobs that `ready` means, but only what a hint takes: twenty thousand cost a moment."""
        wanted = jobs.c.id, jobs.c.lane, jobs.c.priority, jobs.c.fence
        query = select(*wanted).where(*startable(lanes)).order_by(*URGENCY)
        with self._db.read() as connection:
            return [
                Ready(job_id, _LANES[lane], priority, fence > 0)
                for job_id, lane, priority, fence in connection.execute(query, moments(self._clock()))
            ]

    def next_due(self) -> datetime | None:
        """Return when the next delayed job may start, or None if none is waiting for its time."""
        query = select(func.min(jobs.c.not_before)).where(jobs.c.state == State.QUEUED.value, ~DUE)
        with self._db.read() as connection:
            due: datetime | None = connection.execute(query, moments(self._clock())).scalar_one()
        return due

    def seen(self, folder: Path, key: str) -> str | None:
        """Return the id of the job that the watched file *key* of *folder* became, if it has."""
        with self._db.read() as connection:
            return seen_job(connection, (folder, key))

    def checkpointed(self, job_id: str) -> dict[str, Any] | None:
        """Return what the last `checkpoint` kept."""
        with self._db.read() as connection:
            data: dict[str, Any] | None = connection.execute(_CHECKPOINT, {"id": job_id}).scalar_one_or_none()
        return data

    def intended(self, job_id: str) -> dict[Path, frozenset[str]]:
        """Return the files that the job wrote or meant to write, each with the SHA-256 of every content it may have."""
        query = select(intents.c.path, intents.c.contents).join(jobs, jobs.c.seq == intents.c.seq)
        with self._db.read() as connection:
            return {row.path: frozenset(row.contents) for row in connection.execute(query.where(jobs.c.id == job_id))}

    def is_output(self, path: Path) -> bool:
        """Return whether any job wrote, or meant to write, the absolute *path*."""
        query = select(intents.c.seq).where(intents.c.key == path_key(path)).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None

    def recorded(self, key: str, *, limit: int = 3) -> list[tuple[Job, dict[str, Any]]]:
        """Return the jobs that succeeded in doing *key*, newest first, with what was noted about each."""
        query = select_jobs().add_columns(recipes.c.details).join(recipes, recipes.c.seq == jobs.c.seq)
        query = query.where(recipes.c.key == key, jobs.c.state == State.SUCCEEDED.value)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.seq.desc()).limit(limit)).mappings().all()
        return [(to_job(row), dict(row["details"])) for row in rows]
