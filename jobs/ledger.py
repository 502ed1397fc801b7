"""The truth about jobs: what was acknowledged is on disk, and each write of a running job carries its fence.

1. What `Ledger.add` returned is on disk; what raised was not written at all.
2. A claim is one compare-and-swap: of any number of claimants one gets the job.
3. A write of a running job names the fence of its claim; an outdated one is refused with `StaleFence`.
4. States change only as `jobs.model.TRANSITIONS` says, so terminal states never do.

Each write is a transaction, or a part of one that others share who write at the same moment (`jobs.groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update

from jobs import claims, database, moves
from jobs.accepting import SeenFile, admit, insert_job, insert_jobs, no_room, remember, repeated_job, unfinished
from jobs.errors import LedgerUnavailable, MlxdError
from jobs.model import ErrorInfo, Job, Lane, NewJob, OutputFile, Progress, State, new_job_id
from jobs.reading import Reading
from jobs.rows import jsonable, printable, select_jobs, to_job
from jobs.schema import jobs, notes
from jobs.statements import change, find_job, held_job, held_seq, note_intent, note_recipe, take_note

_NO_PROGRESS: Final = update(notes).where(notes.c.seq == bindparam("same")).values(progress=None)


def utcnow() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Ledger(Reading):
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
        super().__init__(database.Database(path, connect=connect), clock)
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

    def add(self, new: NewJob, *, limit: int | None = None, seen: SeenFile | None = None) -> tuple[Job, bool]:
        """Write *new* down and return it with True, or return with False the job that it repeats.

        It repeats a job with the same idempotency key, or one that was made of the same watched file: *seen* is the
        folder and the file's key, remembered in the same transaction.

        Raises:
            QueueFull: *limit* jobs or more are unfinished.
            LedgerUnavailable: it was not accepted.

        """
        return self._db.run("add", lambda connection: self._add(connection, new, limit, seen))

    def add_all(self, news: Sequence[NewJob], *, limit: int | None = None) -> list[tuple[Job, bool] | MlxdError]:
        """Do what `add` does for each of *news*, with one sync of the disk; return what it would return or raise."""
        try:
            return self._db.run("add", lambda connection: self._add_each(connection, news, limit))
        except LedgerUnavailable:  # perhaps because of one of them: the others need not suffer for it
            return [self._tried(new, limit) for new in news]

    def _add_each(
        self, connection: Connection, news: Sequence[NewJob], limit: int | None
    ) -> list[tuple[Job, bool] | MlxdError]:
        if all(new.idempotency_key is None for new in news):
            return self._add_new(connection, news, limit)
        told: list[tuple[Job, bool] | MlxdError] = []
        count = 0 if limit is None else unfinished(connection)
        for new in news:
            try:
                job, created = self._add(connection, new, limit, None, count=count)
                told.append((job, created))
                count += created
            except MlxdError as error:  # it was refused before anything of it was said
                told.append(error)
        return told

    def _add_new(
        self, connection: Connection, news: Sequence[NewJob], limit: int | None
    ) -> list[tuple[Job, bool] | MlxdError]:
        """Do what `_add_each` does for jobs that repeat none, as far as there is room."""
        count = 0 if limit is None else unfinished(connection)
        room = len(news) if limit is None else max(0, limit - count)
        added = insert_jobs(connection, news[:room], new_id=self._new_id, now=self._clock())
        full = [no_room(count + len(added), limit) for _ in news[room:]]
        return [*((job, True) for job in added), *full]

    def _tried(self, new: NewJob, limit: int | None) -> tuple[Job, bool] | MlxdError:
        try:
            return self.add(new, limit=limit)
        except MlxdError as error:
            return error

    def _add(
        self,
        connection: Connection,
        new: NewJob,
        limit: int | None,
        seen: SeenFile | None,
        *,
        count: int | None = None,
    ) -> tuple[Job, bool]:
        if (old := repeated_job(connection, new, seen)) is not None:
            return old, False
        if limit is not None:
            admit(unfinished(connection) if count is None else count, limit)
        job = self.insert(connection, new)
        remember(connection, seen, job.id)
        return job, True

    def insert(self, connection: Connection, new: NewJob) -> Job:
        """Write *new* down within a transaction of `transaction`."""
        return insert_job(connection, new, new_id=self._new_id, now=self._clock())

    def now(self) -> datetime:
        """Return the time by the ledger's clock."""
        return self._clock()

    def transaction(self, verb: str) -> AbstractContextManager[Connection]:
        """Return one durable transaction, for what else lives in this file and must happen together with jobs.

        *verb* is one of `jobs.failpoints.VERBS`.
        """
        return self._db.write(verb)

    def remember(self, folder: Path, key: str, job_id: str) -> None:
        """Note that the watched file *key* of *folder* has become *job_id*; the last word counts."""
        with self._db.write("remember") as connection:
            remember(connection, (folder, key), find_job(connection, job_id).id)

    # Running.

    def claim(self, job_id: str, owner: str, *, lane: Lane | None = None) -> Job | None:
        """Take the job for one attempt of *owner*, or return None if it is not there to be taken (now, in *lane*)."""
        wish: dict[str, Any] = {"wanted": printable(job_id), "claimant": owner, "within": lane and lane.value}
        wish |= claims.moments(self._clock())
        return self._db.run("claim", partial(self._claim, wish))

    @staticmethod
    def _claim(wish: Mapping[str, Any], connection: Connection) -> Job | None:
        row = connection.execute(claims.CLAIM, wish).mappings().one_or_none()
        if row is None:
            return None
        if row["fence"] > 1:
            connection.execute(_NO_PROGRESS, {"same": row["seq"]})
        return to_job({**row, "progress": None})

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Note how far the running job is. Not synced to disk by itself: a power cut may lose the last of it."""
        with self._db.write("progress", durable=False) as connection:
            take_note(connection, held_seq(connection, job_id, fence), progress=progress.model_dump(mode="json"))

    def checkpoint(self, job_id: str, fence: int, data: Mapping[str, Any]) -> None:
        """Durably keep *data* for the next attempt of the running job."""
        kept = jsonable(data)
        self._db.run("checkpoint", lambda link: take_note(link, held_seq(link, job_id, fence), checkpoint=kept))

    def intend(self, job_id: str, fence: int, output: OutputFile) -> None:
        """Note that the running job is about to give *output* its final name."""
        self._db.run("intend", lambda link: note_intent(link, held_seq(link, job_id, fence), output))

    def record_recipe(self, job_id: str, fence: int, key: str, details: Mapping[str, Any]) -> None:
        """Note what the running job did, under *key*: once it has succeeded, `recorded` finds it."""
        kept = jsonable(details)
        self._db.run("recipe", lambda link: note_recipe(link, held_seq(link, job_id, fence), key, kept))

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

        *outputs* are the files that are there all the same. A time further ahead than `jobs.claims.RETRY_WITHIN` is cut
        to that.
        """
        now = self._clock()
        retry_at = None if retry_at is None else min(retry_at, now + claims.RETRY_WITHIN)
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

    def cancelled(
        self, job_id: str, fence: int, outputs: Sequence[OutputFile] = (), *, why: ErrorInfo | None = None
    ) -> Job:
        """Record that the running job stopped because it was cancelled, and what it had written by then.

        *why* is told if no person asked for it. After an `InputChanged` the job speaks for no watched file any more.
        """
        changes = moves.stopped(outputs, why=why, now=self._clock())
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

    def orphans(self, owner: str) -> list[Job]:
        """Return the running jobs that *owner* does not hold: those of a dead daemon, until `recover`."""
        with self._db.read() as connection:
            return _orphans(connection, owner)

    def recover(self, owner: str) -> list[Job]:
        """Put back every running job that *owner* does not hold, its attempt given back; call it at the start.

        A job that was asked to stop is cancelled instead. Returns the jobs as they are now.
        """
        with self._db.write("recover") as connection:
            orphans = _orphans(connection, owner)
            return [change(connection, job, moves.released(job, now=self._clock())) for job in orphans]

    def _end(self, verb: str, job_id: str, fence: int, decide: Callable[[Job], moves.Changes]) -> Job:
        def end(connection: Connection) -> Job:
            job = held_job(connection, job_id, fence)
            return change(connection, job, decide(job))

        return self._db.run(verb, end)


def _orphans(connection: Connection, owner: str) -> list[Job]:
    lost = jobs.c.state == State.RUNNING.value, jobs.c.owner.is_distinct_from(owner)
    rows = connection.execute(select_jobs().where(*lost).order_by(jobs.c.seq)).mappings().all()
    return [to_job(row) for row in rows]
