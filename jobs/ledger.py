"""The truth about jobs: each write is one transaction, each write of a running job carries its fence.

1. What `Ledger.add` returned is on disk; what raised was not written at all.
2. A claim is one compare-and-swap: of any number of claimants one gets the job.
3. A write of a running job names the fence of its claim; an outdated one is refused with `StaleFence`.
4. States change only as `jobs.model.TRANSITIONS` says, so terminal states never do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, insert, select, update

from jobs import database, moves
from jobs.model import TRANSITIONS, ErrorInfo, Job, Lane, NewJob, OutputFile, Progress, State, new_job_id
from jobs.rows import jsonable, new_row, path_key, printable, select_jobs, to_job
from jobs.schema import intents, jobs, notes, recipes
from jobs.statements import (
    admit,
    change,
    find_job,
    held_seq,
    note_intent,
    note_recipe,
    remember,
    repeated_job,
    seen_job,
    take_note,
)

_CLAIMABLE: Final = tuple(state.value for state, following in TRANSITIONS.items() if State.RUNNING in following)
_LANE_ORDER: Final = {lane.value: rank for rank, lane in enumerate(Lane)}
_LANES: Final = {lane.value: lane for lane in Lane}
#: Most urgent first.
_URGENCY: Final = (case(_LANE_ORDER, value=jobs.c.lane), jobs.c.priority.desc(), jobs.c.seq)

#: No retry is put off for longer. One that lies further ahead was written down before the clock was set back, and is
#: due: a person's own ``not_before`` is a time on the wall, which has to come; a retry is an amount of waiting.
RETRY_WITHIN: Final = timedelta(minutes=10)


class Ready(NamedTuple):
    """What it takes to leave a hint for a job."""

    id: str
    lane: Lane
    priority: int
    #: Whether it has been claimed before: it was interrupted, or is tried again.
    begun: bool


def utcnow() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Ledger:
    """Every job there is, in the SQLite file at *path*. Any thread may call any method.

    Every method raises `LedgerUnavailable` when the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = utcnow,
        connect: database.Connect = database.connect,
        new_id: Callable[[], str] = new_job_id,
    ) -> None:
        self._db = database.Database(path, connect=connect)
        self._clock = clock
        self._new_id = new_id

    def close(self) -> None:
        """Close the file; later calls raise `LedgerUnavailable`."""
        self._db.close()

    @property
    def problem(self) -> str | None:
        """Return why the last write failed, None if it did not."""
        return self._db.problem

    def probe(self) -> bool:
        """Find out whether `problem` has passed, by a write that changes nothing; return whether all is well."""
        return self._db.probe()

    def on_problem(self, tell: Callable[[], None]) -> None:
        """Call *tell* when `problem` comes up, on the thread whose write failed; it must return at once."""
        self._db.on_problem = tell

    # Taking jobs in.

    def add(self, new: NewJob, *, limit: int | None = None, seen: tuple[Path, str] | None = None) -> tuple[Job, bool]:
        """Write *new* down and return it with True, or return with False the job that it repeats.

        It repeats a job with the same idempotency key, or one that was made of the same watched file: *seen* is the
        folder and the file's key, remembered in the same transaction.

        Raises:
            QueueFull: *limit* jobs or more are unfinished.
            LedgerUnavailable: it was not accepted.

        """
        with self._db.write("add") as connection:
            if (old := repeated_job(connection, new, seen)) is not None:
                return old, False
            admit(connection, limit)
            job = self.insert(connection, new)
            remember(connection, seen, job.id)
            return job, True

    def insert(self, connection: Connection, new: NewJob) -> Job:
        """Write *new* down within a transaction of `transaction`."""
        row = new_row(new, job_id=self._fresh_id(connection), now=self._clock())
        connection.execute(insert(jobs), row)
        return find_job(connection, row["id"])

    def now(self) -> datetime:
        """Return the time by the ledger's clock."""
        return self._clock()

    def transaction(self, verb: str) -> AbstractContextManager[Connection]:
        """Return one durable transaction, for what else lives in this file and must happen together with jobs.

        *verb* is one of `jobs.failpoints.VERBS`.
        """
        return self._db.write(verb)

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection for one SELECT."""
        return self._db.read()

    def seen(self, folder: Path, key: str) -> str | None:
        """Return the id of the job that the watched file *key* of *folder* became, if it has."""
        with self._db.read() as connection:
            return seen_job(connection, (folder, key))

    def remember(self, folder: Path, key: str, job_id: str) -> None:
        """Note that the watched file *key* of *folder* has become *job_id*; the last word counts."""
        with self._db.write("remember") as connection:
            remember(connection, (folder, key), find_job(connection, job_id).id)

    # Looking.

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

    def ready(self, limit: int = 1000, *, lanes: Collection[Lane] = tuple(Lane)) -> list[Job]:
        """Return the queued jobs that may start now, most urgent first: by lane, priority, order of acceptance."""
        query = select_jobs().where(*self._startable(lanes)).order_by(*_URGENCY).limit(limit)
        with self._db.read() as connection:
            return [to_job(row) for row in connection.execute(query).mappings()]

    def ready_ids(self, *, lanes: Collection[Lane] = tuple(Lane)) -> list[Ready]:
        """Return all the jobs that `ready` means, but only what a hint takes: twenty thousand cost a moment."""
        wanted = jobs.c.id, jobs.c.lane, jobs.c.priority, jobs.c.fence
        query = select(*wanted).where(*self._startable(lanes)).order_by(*_URGENCY)
        with self._db.read() as connection:
            return [
                Ready(job_id, _LANES[lane], priority, fence > 0)
                for job_id, lane, priority, fence in connection.execute(query)
            ]

    def next_due(self) -> datetime | None:
        """Return when the next delayed job may start, or None if none is waiting for its time."""
        later = jobs.c.state == State.QUEUED.value, ~_due(self._clock())
        with self._db.read() as connection:
            due: datetime | None = connection.execute(select(func.min(jobs.c.not_before)).where(*later)).scalar_one()
        return due

    # Running.

    def claim(self, job_id: str, owner: str, *, lane: Lane | None = None) -> Job | None:
        """Take the job for one attempt of *owner*, or return None if it is not there to be taken (now, in *lane*)."""
        now = self._clock()
        taken = (
            update(jobs)
            .where(jobs.c.id == printable(job_id), jobs.c.state.in_(_CLAIMABLE))
            .where(_due(now))
            .values(state=State.RUNNING.value, attempts=jobs.c.attempts + 1, fence=jobs.c.fence + 1, owner=owner)
            .values(started_at=now, not_before=None, error=None)
            .returning(jobs.c.seq)
        )
        if lane is not None:
            taken = taken.where(jobs.c.lane == lane.value)
        with self._db.write("claim") as connection:
            seq = connection.execute(taken).scalar_one_or_none()
            if seq is None:
                return None
            connection.execute(update(notes).where(notes.c.seq == seq).values(progress=None))
            return find_job(connection, job_id)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Note how far the running job is. Not synced to disk by itself: a power cut may lose the last of it."""
        with self._db.write("progress", durable=False) as connection:
            take_note(connection, held_seq(connection, job_id, fence), progress=progress.model_dump(mode="json"))

    def checkpoint(self, job_id: str, fence: int, data: Mapping[str, Any]) -> None:
        """Durably keep *data* for the next attempt of the running job."""
        with self._db.write("checkpoint") as connection:
            take_note(connection, held_seq(connection, job_id, fence), checkpoint=jsonable(data))

    def checkpointed(self, job_id: str) -> dict[str, Any] | None:
        """Return what the last `checkpoint` kept."""
        query = select(notes.c.checkpoint).join(jobs, jobs.c.seq == notes.c.seq).where(jobs.c.id == job_id)
        with self._db.read() as connection:
            data: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        return data

    def intend(self, job_id: str, fence: int, output: OutputFile) -> None:
        """Note that the running job is about to give *output* its final name."""
        with self._db.write("intend") as connection:
            note_intent(connection, held_seq(connection, job_id, fence), output)

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

    def record_recipe(self, job_id: str, fence: int, key: str, details: Mapping[str, Any]) -> None:
        """Note what the running job did, under *key*: once it has succeeded, `recorded` finds it."""
        with self._db.write("recipe") as connection:
            note_recipe(connection, held_seq(connection, job_id, fence), key, jsonable(details))

    def recorded(self, key: str, *, limit: int = 3) -> list[tuple[Job, dict[str, Any]]]:
        """Return the jobs that succeeded in doing *key*, newest first, with what was noted about each."""
        query = select_jobs().add_columns(recipes.c.details).join(recipes, recipes.c.seq == jobs.c.seq)
        query = query.where(recipes.c.key == key, jobs.c.state == State.SUCCEEDED.value)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.seq.desc()).limit(limit)).mappings().all()
        return [(to_job(row), dict(row["details"])) for row in rows]

    # Ending an attempt.

    def finish(self, job_id: str, fence: int, result: Mapping[str, Any], outputs: Sequence[OutputFile]) -> Job:
        """Record the success of the running job."""
        changes = moves.finished(result, outputs, now=self._clock())
        return self._end("finish", job_id, fence, lambda _job: changes)

    def fail(
        self,
        job_id: str,
        fence: int,
        error: ErrorInfo,
        outputs: Sequence[OutputFile] = (),
        *,
        retry_at: datetime | None,
    ) -> Job:
        """Record a failure: queued again for *retry_at* while the error budget lasts, otherwise failed.

        *outputs* are the files that are there all the same. A later time than `RETRY_WITHIN` from now is cut to that.
        """
        now = self._clock()
        retry_at = None if retry_at is None else min(retry_at, now + RETRY_WITHIN)
        return self._end(
            "fail", job_id, fence, lambda job: moves.failed(job, error, outputs, retry_at=retry_at, now=now)
        )

    def crash(self, job_id: str, fence: int, error: ErrorInfo, *, limit: int = 3, shared: bool = False) -> Job:
        """Record that the runner died under the job: queued again, or quarantined at the *limit*-th time.

        A death that was *shared* with other jobs is counted, but never the last straw.
        """
        now = self._clock()
        return self._end(
            "crash", job_id, fence, lambda job: moves.crashed(job, error, limit=limit, shared=shared, now=now)
        )

    def release(self, job_id: str, fence: int) -> Job:
        """Put the running job back, the attempt given back: the daemon is draining."""
        now = self._clock()
        return self._end("release", job_id, fence, lambda job: moves.released(job, now=now))

    def block(self, job_id: str, fence: int, error: ErrorInfo) -> Job:
        """Set the running job aside until what it lacks is here; the attempt is given back."""
        now = self._clock()
        return self._end("block", job_id, fence, lambda job: moves.blocked(job, error, now=now))

    def cancelled(self, job_id: str, fence: int, outputs: Sequence[OutputFile] = ()) -> Job:
        """Record that the running job stopped because it was cancelled, and what it had written by then."""
        changes = moves.stopped(outputs, now=self._clock())
        return self._end("stop", job_id, fence, lambda _job: changes)

    # What people and the daemon ask for.

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running one is asked to stop (``cancel_requested``).

        Raises:
            JobConflict: it has ended already.

        """
        with self._db.write("cancel") as connection:
            job = find_job(connection, job_id)
            return change(connection, job, moves.cancelled(job, now=self._clock()))

    def requeue(self, job_id: str) -> Job:
        """Put a quarantined or blocked job back with a fresh crash budget; others raise `JobConflict`."""
        with self._db.write("requeue") as connection:
            job = find_job(connection, job_id)
            return change(connection, job, moves.requeued(job))

    def unblock(self, job_ids: Collection[str] | None = None) -> list[Job]:
        """Put blocked jobs (all, or those of *job_ids* that are blocked) back into the queue and return them."""
        query = select_jobs().where(jobs.c.state == State.BLOCKED.value).order_by(jobs.c.seq)
        with self._db.write("unblock") as connection:
            found = [to_job(row) for row in connection.execute(query).mappings().all()]
            chosen = [job for job in found if job_ids is None or job.id in job_ids]
            return [change(connection, job, moves.unblocked()) for job in chosen]

    def recover(self, owner: str) -> list[Job]:
        """Put back every running job that *owner* does not hold, its attempt given back; call it at the start.

        A job that was asked to stop is cancelled instead. Returns the jobs as they are now.
        """
        lost = jobs.c.state == State.RUNNING.value, jobs.c.owner.is_distinct_from(owner)
        with self._db.write("recover") as connection:
            rows = connection.execute(select_jobs().where(*lost).order_by(jobs.c.seq)).mappings().all()
            orphans = [to_job(row) for row in rows]
            return [change(connection, job, moves.released(job, now=self._clock())) for job in orphans]

    def _end(self, verb: str, job_id: str, fence: int, decide: Callable[[Job], moves.Changes]) -> Job:
        with self._db.write(verb) as connection:
            held_seq(connection, job_id, fence)
            job = find_job(connection, job_id)
            return change(connection, job, decide(job))

    def _fresh_id(self, connection: Connection) -> str:
        while True:
            job_id = self._new_id()
            if connection.execute(select(jobs.c.seq).where(jobs.c.id == job_id)).first() is None:
                return job_id

    def _startable(self, lanes: Collection[Lane]) -> tuple[ColumnElement[bool], ...]:
        queued = jobs.c.state == State.QUEUED.value
        return queued, jobs.c.lane.in_([lane.value for lane in lanes]), _due(self._clock())


def _due(now: datetime) -> ColumnElement[bool]:
    """Return what holds for a job whose time has come."""
    put_off = (jobs.c.failures > 0) & (jobs.c.not_before > now + RETRY_WITHIN)
    return jobs.c.not_before.is_(None) | (jobs.c.not_before <= now) | put_off
