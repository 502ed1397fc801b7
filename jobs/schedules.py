"""The durable side of schedules: what they are, when each comes next, which of their times became which job.

1. A time of a schedule becomes a job at most once: (schedule, time) is a key, and its row, the job and the schedule's
   next time are written in one transaction, or none of them is.
2. Jobs of one schedule that have to wait for each other are rows without a job; each gets its job when it is its turn.

What a schedule means is the daemon's to know: the definition is JSON here, and decisions come as functions that are
called inside the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs import moves
from jobs.accepting import admit, unfinished
from jobs.errors import ScheduleConflict, ScheduleNotFound
from jobs.firing import SOURCE, Fire, Miss, Situation, Standing, Step, Turned
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, State
from jobs.rows import jsonable, printable, select_jobs, to_job
from jobs.schema import fires, jobs, misses, schedules
from jobs.statements import change

#: A job in one of these states is not done. One in quarantine is: it goes on by a person's hand only.
_BUSY: Final = (State.QUEUED.value, State.RUNNING.value, State.BLOCKED.value)
#: Rows about missed times that are kept of each schedule.
_MISSES_KEPT: Final = 100


class ScheduleBook:
    """Schedules in the ledger's file. Any thread may call any method; all raise `LedgerUnavailable`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # What there is.

    def all(self) -> list[Standing]:
        """Return the schedules by name."""
        query = select(schedules).order_by(schedules.c.name)
        with self._ledger.reading() as connection:
            return [_standing(row) for row in connection.execute(query).mappings()]

    def get(self, name: str) -> Standing:
        """Return a schedule, or raise `ScheduleNotFound`."""
        with self._ledger.reading() as connection:
            return _find(connection, name)

    def add(self, standing: Standing) -> None:
        """Write a new schedule down; `ScheduleConflict` if there is one of its name."""
        with self._ledger.transaction("schedule") as connection:
            statement = upsert(schedules).values(**_values(standing)).on_conflict_do_nothing()
            if connection.execute(statement.returning(schedules.c.name)).first() is None:
                raise ScheduleConflict(
                    f"There is a schedule {standing.name!r} already; choose another name, or remove that one first.",
                    schedule=standing.name,
                )

    def change(self, name: str, decide: Callable[[Standing], Standing]) -> Standing:
        """Write down what *decide* makes of a schedule, and return it; nothing comes between reading and writing."""
        with self._ledger.transaction("schedule") as connection:
            before = _find(connection, name)
            after = decide(before)
            if after != before:
                connection.execute(update(schedules).where(_named(name)).values(**_values(after)))
            return after

    def remove(self, name: str) -> None:
        """Forget a schedule and its history; its jobs stay. Raises `ScheduleNotFound`."""
        with self._ledger.transaction("schedule") as connection:
            connection.execute(delete(schedules).where(_named(_find(connection, name).name)))

    def fires(self, name: str, limit: int = 20) -> list[Fire]:
        """Return the latest times that became jobs, and those that wait for their turn, latest first."""
        query = select(fires).where(fires.c.schedule == printable(name)).order_by(fires.c.fire_at.desc()).limit(limit)
        with self._ledger.reading() as connection:
            return [_fire(row) for row in connection.execute(query).mappings()]

    def waiting(self) -> dict[str, int]:
        """Return how many times wait for their turn, for each schedule where some do."""
        query = select(fires.c.schedule, func.count()).where(fires.c.job_id.is_(None)).group_by(fires.c.schedule)
        with self._ledger.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def misses(self, name: str, limit: int = 20) -> list[Miss]:
        """Return the latest missed times, latest first."""
        query = select(misses).where(misses.c.schedule == printable(name)).order_by(misses.c.id.desc()).limit(limit)
        with self._ledger.reading() as connection:
            return [_miss(row) for row in connection.execute(query).mappings()]

    def known(self, name: str, times: Collection[datetime]) -> set[datetime]:
        """Return those of *times* that became jobs or wait for their turn."""
        query = select(fires.c.fire_at).where(fires.c.schedule == printable(name), fires.c.fire_at.in_(times))
        with self._ledger.reading() as connection:
            return set(connection.execute(query).scalars())

    # What happens.

    def turn(self, name: str, decide: Callable[[Situation], Step | None], *, limit: int | None = None) -> Turned:
        """Ask *decide* and do what it says, all in one transaction; None changes nothing.

        Raises:
            ScheduleNotFound: it is gone.
            QueueFull: a job would be one too many for *limit*; nothing was changed.

        """
        with self._ledger.transaction("fire") as connection:
            situation = _situation(connection, _find(connection, name))
            step = decide(situation)
            return Turned() if step is None else self._do(connection, situation, step, limit)

    def _do(self, connection: Connection, situation: Situation, step: Step, limit: int | None) -> Turned:
        name, turned = situation.standing.name, Turned()
        connection.execute(update(schedules).where(_named(name)).values(next_at=step.next_at))
        for time in step.drop:
            waits = fires.c.schedule == name, fires.c.fire_at == time, fires.c.job_id.is_(None)
            connection.execute(delete(fires).where(*waits))
        _take(connection, name, step.take)
        for miss in step.missed:
            _note_miss(connection, name, miss)
        if step.cancel:
            now = self._ledger.now()
            turned.cancelled = [change(connection, job, moves.cancelled(job, now=now)) for job in situation.busy]
        if step.job is not None and (fire := _its_turn(connection, name)) is not None:
            admit(unfinished(connection), limit)
            job = self._ledger.insert(connection, step.job(fire))
            same = fires.c.schedule == name, fires.c.fire_at == fire.at
            connection.execute(update(fires).where(*same).values(job_id=job.id))
            turned.created.append(job)
        return turned

    def manual(self, name: str, make: Callable[[Fire], NewJob], *, limit: int | None = None) -> Job:
        """Make a job of a schedule for now, whatever else goes on; its times are not touched.

        Raises:
            ScheduleNotFound, QueueFull: nothing was written.

        """
        with self._ledger.transaction("schedule") as connection:
            _find(connection, name)
            admit(unfinished(connection), limit)
            fire = Fire(at=self._ledger.now(), kind="manual")
            job = self._ledger.insert(connection, make(fire))
            values = {"schedule": name, "fire_at": fire.at, "kind": fire.kind, "job_id": job.id}
            connection.execute(upsert(fires).values(**values).on_conflict_do_nothing())
            return job

    def take(self, name: str, times: Iterable[datetime], kind: str) -> int:
        """Let those of *times* that became no job yet wait for their turn; return how many these are."""
        with self._ledger.transaction("schedule") as connection:
            _find(connection, name)
            return _take(connection, name, [(time, kind) for time in times])


def _find(connection: Connection, name: str) -> Standing:
    row = connection.execute(select(schedules).where(_named(name))).mappings().one_or_none()
    if row is None:
        raise ScheduleNotFound(f"There is no schedule {name!r}; `mlxd schedule list` shows them.", schedule=name)
    return _standing(row)


def _values(standing: Standing) -> dict[str, Any]:
    return standing.model_dump() | {"definition": jsonable(standing.definition), "paused": int(standing.paused)}


def _named(name: str) -> Any:
    return schedules.c.name == printable(name)


def _situation(connection: Connection, standing: Standing) -> Situation:
    own = jobs.c.source_kind == SOURCE, jobs.c.source_rule == printable(standing.name)
    unfinished = select_jobs().where(jobs.c.state.in_(_BUSY), *own).order_by(jobs.c.seq)
    waits = select(fires.c.fire_at).where(fires.c.schedule == standing.name, fires.c.job_id.is_(None))
    # Of a schedule without a next time there is none from then on.
    begin = bindparam("begin", standing.next_at, type_=fires.c.fire_at.type)
    again = select(fires.c.fire_at).where(fires.c.schedule == standing.name, fires.c.fire_at >= begin)
    return Situation(
        standing=standing,
        busy=tuple(to_job(row) for row in connection.execute(unfinished).mappings().all()),
        waiting=tuple(connection.execute(waits.order_by(fires.c.fire_at)).scalars().all()),
        taken=frozenset() if standing.next_at is None else frozenset(connection.execute(again).scalars().all()),
    )


def _its_turn(connection: Connection, name: str) -> Fire | None:
    """Return the oldest waiting time, if no job of the schedule is under way."""
    own = jobs.c.source_kind == SOURCE, jobs.c.source_rule == printable(name)
    if connection.execute(select(jobs.c.seq).where(jobs.c.state.in_(_BUSY), *own).limit(1)).first() is not None:
        return None
    waits = select(fires).where(fires.c.schedule == name, fires.c.job_id.is_(None))
    row = connection.execute(waits.order_by(fires.c.fire_at).limit(1)).mappings().one_or_none()
    return None if row is None else _fire(row)


def _take(connection: Connection, name: str, times: Iterable[tuple[datetime, str]]) -> int:
    """Write down times that wait for their turn, but none that is there already; return how many were not."""
    taken = 0
    for time, kind in times:
        row = upsert(fires).values(schedule=name, fire_at=time, kind=kind).on_conflict_do_nothing()
        taken += connection.execute(row.returning(fires.c.fire_at)).first() is not None
    return taken


def _note_miss(connection: Connection, name: str, miss: Miss) -> None:
    """Write down missed times, as part of the latest row if that has the same reason."""
    latest = select(misses).where(misses.c.schedule == name).order_by(misses.c.id.desc()).limit(1)
    row = connection.execute(latest).mappings().one_or_none()
    if row is not None and row["reason"] == miss.reason and row["last_at"] <= miss.first:
        more = {"last_at": miss.last, "count": row["count"] + miss.count, "noticed_at": miss.noticed_at}
        connection.execute(update(misses).where(misses.c.id == row["id"]).values(**more))
        return
    values: Mapping[str, Any] = {"first_at": miss.first, "last_at": miss.last, "count": miss.count}
    connection.execute(insert(misses).values(schedule=name, reason=miss.reason, noticed_at=miss.noticed_at, **values))
    kept = select(misses.c.id).where(misses.c.schedule == name).order_by(misses.c.id.desc()).limit(_MISSES_KEPT)
    connection.execute(delete(misses).where(misses.c.schedule == name, misses.c.id.not_in(kept)))


def _standing(row: RowMapping) -> Standing:
    return Standing.model_validate({**row, "paused": bool(row["paused"])})


def _fire(row: RowMapping) -> Fire:
    return Fire(at=row["fire_at"], kind=row["kind"], job=row["job_id"])


def _miss(row: RowMapping) -> Miss:
    return Miss(
        first=row["first_at"],
        last=row["last_at"],
        count=row["count"],
        reason=row["reason"],
        noticed_at=row["noticed_at"],
    )
