"""The ledger, each time with one mistake in it that somebody might have made: every one must be found out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from sqlalchemy import Connection, bindparam, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs import accepting, claims, journal, ledger, moves, reading, schedules, statements
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, OutputFile, State
from jobs.rows import path_key, select_jobs, to_job
from jobs.schedules import ScheduleBook
from jobs.schema import fires, intents, jobs, notes, seen


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake."""

    name: str
    #: Whose attribute is replaced, which, by what.
    owner: Any
    attribute: str
    mistake: Any

    def planted(self) -> AbstractContextManager[Any]:
        """Return a block within which the ledger has the mistake."""
        return mock.patch.object(self.owner, self.attribute, self.mistake)


def _changing(original: Callable[..., moves.Changes], **values: Any) -> Callable[..., moves.Changes]:
    """Return a decision that writes *values* whatever else it decides."""
    return lambda *args, **kwargs: original(*args, **kwargs) | values


def _without(original: Callable[..., moves.Changes], *columns: str) -> Callable[..., moves.Changes]:
    """Return a decision that forgets *columns*."""

    def decide(*args: Any, **kwargs: Any) -> moves.Changes:
        return {name: value for name, value in original(*args, **kwargs).items() if name not in columns}

    return decide


def _any_fence(job_id: str, state: State, current: int, fence: int) -> None:
    _require_held(job_id, state, current, current)


_require_held = statements.require_held
_checkpoint = Ledger.checkpoint


def _late_checkpoint(self: Ledger, job_id: str, fence: int, data: Any) -> None:
    _checkpoint(self, job_id, self.get(job_id).fence, data)


def _cancel_anything(job: Job, *, now: datetime) -> moves.Changes:
    return {"cancel_requested": 1} if job.state is State.RUNNING else moves.stopped(now=now)


_repeated, _crashed, _failed, _released = ledger.repeated_job, moves.crashed, moves.failed, moves.released


def _only_files_repeat(connection: Connection, new: NewJob, file: Any) -> Job | None:
    return _repeated(connection, new.model_copy(update={"idempotency_key": None}), file)


def _only_keys_repeat(connection: Connection, new: NewJob, file: Any) -> Job | None:
    return _repeated(connection, new, None)


def _one_crash_more(job: Job, error: Any, *, limit: int, **kwargs: Any) -> moves.Changes:
    return _crashed(job, error, limit=limit + 1, **kwargs)


def _shared_convicts(job: Job, error: Any, *, shared: bool = False, **kwargs: Any) -> moves.Changes:
    return _crashed(job, error, **kwargs)


def _unlimited_failures(job: Job, *args: Any, **kwargs: Any) -> moves.Changes:
    return _failed(job.model_copy(update={"max_failures": 100}), *args, **kwargs)


def _forget_the_wish(job: Job, *args: Any, **kwargs: Any) -> moves.Changes:
    return _released(job.model_copy(update={"cancel_requested": False}), *args, **kwargs)


_any_job_stands = select(seen.c.job_id).where(seen.c.folder == bindparam("folder"), seen.c.key == bindparam("key"))


def _recover_everybody(self: Ledger, owner: str) -> list[Job]:
    with self._db.write("recover") as connection:
        rows = connection.execute(select_jobs().where(jobs.c.state == State.RUNNING.value).order_by(jobs.c.seq))
        found = [to_job(row) for row in rows.mappings().all()]
        return [statements.change(connection, job, moves.released(job, now=self._clock())) for job in found]


def _unblock_everything(self: Ledger, job_ids: Collection[str] | None = None) -> list[Job]:
    return _unblock(self)


_unblock, _add, _claim, _turn = Ledger.unblock, Ledger.add, Ledger.claim, ScheduleBook.turn


def _add_in_two(self: Ledger, new: NewJob, *, limit: int | None = None, seen: Any = None) -> tuple[Job, bool]:
    """Accept first, remember the file later: a death between the two, and the file becomes a second job."""
    if seen is not None and (old := self.seen(*seen)) is not None:
        return self.get(old), False
    job, created = _add(self, new, limit=limit)
    if seen is not None:
        self.remember(*seen, job.id)
    return job, created


def _claim_in_two(self: Ledger, job_id: str, owner: str) -> Job | None:
    """Claim first, forget the last attempt's progress never."""
    with self._db.read() as connection:
        query = select(notes.c.progress).join(jobs, jobs.c.seq == notes.c.seq).where(jobs.c.id == job_id)
        progress = connection.execute(query).scalar_one_or_none()
    job = _claim(self, job_id, owner)
    if job is not None and progress is not None:
        with self._db.write("progress") as connection:
            connection.execute(update(notes).where(notes.c.seq == job.seq).values(progress=progress))
        return self.get(job_id)
    return job


def _only_the_last_content(connection: Connection, seq: int, output: OutputFile) -> None:
    values = {"key": path_key(output.path), "contents": [output.sha256]}
    statement = upsert(intents).values(seq=seq, path=output.path, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["seq", "path"], set_=values))


def _turn_in_two(self: ScheduleBook, name: str, decide: Any, *, limit: int | None = None) -> Any:
    """Make the job first and note the schedule's next time later."""
    step = None

    def keep(situation: Any) -> Any:
        nonlocal step
        step = decide(situation)
        return None if step is None else schedules.Step(**{**vars(step), "next_at": situation.standing.next_at})

    turned = _turn(self, name, keep, limit=limit)
    if step is not None:
        self.change(name, lambda standing: standing.model_copy(update={"next_at": step.next_at}))
    return turned


def _take_again(connection: Connection, name: str, times: Any) -> int:
    """Let a time wait for its turn also if it became a job already."""
    taken = 0
    for time, kind in times:
        row = upsert(fires).values(schedule=name, fire_at=time, kind=kind)
        values = {"job_id": None, "kind": kind}
        connection.execute(row.on_conflict_do_update(index_elements=["schedule", "fire_at"], set_=values))
        taken += 1
    return taken


def _overlapping(connection: Connection, name: str) -> Any:
    waits = select(fires).where(fires.c.schedule == name, fires.c.job_id.is_(None))
    row = connection.execute(waits.order_by(fires.c.fire_at).limit(1)).mappings().one_or_none()
    return None if row is None else schedules._fire(row)


def _first_plan_counts(self: journal.Journal, job_id: str, source: Any, target: Any, sha256: str, *, now: Any) -> None:
    if not any(move.source == source for move in self.moves(job_id)):
        _plan(self, job_id, source, target, sha256, now=now)


_plan = journal.Journal.plan

MUTANTS = tuple(
    Mutant(name=name, owner=owner, attribute=attribute, mistake=mistake)
    for name, owner, attribute, mistake in (
        ("a claim does not look at the state", claims, "CLAIM", claims.claiming(claimable=true())),
        ("fences are not compared", statements, "require_held", _any_fence),
        ("an outdated attempt may checkpoint", Ledger, "checkpoint", _late_checkpoint),
        ("a released attempt is not given back", moves, "released", _without(moves.released, "attempts")),
        ("being blocked costs an attempt", moves, "blocked", _without(moves.blocked, "attempts")),
        ("what has ended may be cancelled", moves, "cancelled", _cancel_anything),
        ("idempotency keys are ignored", ledger, "repeated_job", _only_files_repeat),
        ("watched files are not remembered", ledger, "repeated_job", _only_keys_repeat),
        ("a job that ended unread stands for its file", accepting, "_SEEN", _any_job_stands),
        ("the crash budget is off by one", moves, "crashed", _one_crash_more),
        ("a shared death convicts", moves, "crashed", _shared_convicts),
        ("the error budget has no end", moves, "failed", _unlimited_failures),
        ("recovery forgets who asked to stop", moves, "released", _forget_the_wish),
        ("recovery takes what its owner holds", Ledger, "recover", _recover_everybody),
        ("not_before is ignored", claims, "CLAIM", claims.claiming(due=true())),
        ("the time of the retry is lost", moves, "failed", _without(moves.failed, "not_before")),
        ("a clock set back holds a retry for a day", claims, "RETRY_WITHIN", timedelta(days=10_000)),
        ("outputs are not recorded", moves, "finished", _changing(moves.finished, outputs=[])),
        ("results are not recorded", moves, "finished", _without(moves.finished, "result")),
        ("the queue has no limit", ledger, "admit", lambda _count, _limit: None),
        ("releasing by hand keeps the crashes", moves, "requeued", _without(moves.requeued, "crashes")),
        ("unblocking some unblocks all", Ledger, "unblock", _unblock_everything),
        ("priorities are ignored", reading, "URGENCY", (jobs.c.seq,)),
        ("a claim keeps the last attempt's progress", Ledger, "claim", _claim_in_two),
        ("only the last intent is known", ledger, "note_intent", _only_the_last_content),
        ("a job and its watched file are two transactions", Ledger, "add", _add_in_two),
        ("a schedule's job and its next time are two transactions", ScheduleBook, "turn", _turn_in_two),
        ("a time may become a job twice", schedules, "_take", _take_again),
        ("jobs of one schedule overlap", schedules, "_its_turn", _overlapping),
        ("the first plan of a move counts", journal.Journal, "plan", _first_plan_counts),
    )
)
