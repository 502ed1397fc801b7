"""The rest of what lives in the ledger's file: schedules and their times, moves of inputs, reverts, paused folders."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from jobs.errors import QueueFull, ScheduleConflict, ScheduleNotFound
from jobs.firing import Fire, Miss, Situation, Standing, Step
from jobs.model import NewJob, Source, State
from torture.ledger_machine import LedgerMachine
from torture.ledger_model import Plan, Record

NAMES = st.sampled_from(["s1", "s2"])
SOURCES = st.sampled_from([Path("/in/a"), Path("/in/b")])


class WholeLedgerMachine(LedgerMachine):
    """Jobs, schedules and the desk together."""

    # Schedules.

    @rule(name=NAMES)
    def add_schedule(self, name: str) -> None:
        now = self.clock.now
        standing = Standing(name=name, origin="added", definition={}, fingerprint="", anchor=now, next_at=now)
        if name in self.model.plans:
            with pytest.raises(ScheduleConflict):
                self.book.add(standing)
            return
        self._write(lambda: self.book.add(standing), lambda: self.model.plans.update({name: Plan(next_at=now)}))

    @rule(name=NAMES, remove=st.integers(0, 3).map(lambda dice: dice == 0))
    def change_schedule(self, name: str, *, remove: bool) -> None:
        plan = self.model.plans.get(name)
        if plan is None:
            with pytest.raises(ScheduleNotFound):
                self.book.remove(name)
            with pytest.raises(ScheduleNotFound):
                self.book.turn(name, lambda _: None)
            return
        if remove:
            self._write(lambda: self.book.remove(name), lambda: self.model.plans.pop(name))
            return
        paused = not plan.paused
        self._write(
            lambda: self.book.change(name, lambda one: one.model_copy(update={"paused": paused})),
            lambda: plan.__dict__.update(paused=paused),
        )

    @precondition(lambda self: self.model.plans)
    @rule(
        data=st.data(),
        ahead=st.lists(st.integers(0, 3), max_size=2),
        cancel=st.integers(0, 4).map(lambda dice: dice == 0),
        drop=st.integers(0, 4).map(lambda dice: dice == 0),
        missed=st.sampled_from(["", "", "asleep", "off"]),
        fire=st.booleans(),
        limit=st.sampled_from([None, None, 4]),
    )
    def turn(
        self,
        data: st.DataObject,
        ahead: list[int],
        missed: str,
        limit: int | None,
        *,
        cancel: bool,
        drop: bool,
        fire: bool,
    ) -> None:
        """Let times of a schedule become jobs, one after the other, as the daemon decided inside the transaction."""
        name = data.draw(st.sampled_from(sorted(self.model.plans)))
        plan, now = self.model.plans[name], self.clock.now
        step = Step(
            next_at=now + timedelta(minutes=5),
            take=tuple((now + timedelta(seconds=one), "on-time") for one in ahead),
            drop=tuple(plan.waiting()) if drop else (),
            cancel=cancel,
            missed=(Miss(first=now, last=now, count=2, reason=missed, noticed_at=now),) if missed else (),
            job=(lambda _: NewJob(task="t", source=Source(kind="schedule", rule=name))) if fire else None,
        )
        job_id = next(self.ids)
        self.ids = itertools.chain([job_id], self.ids)
        time = self._next_fire(name, step)
        unfinished = self.model.unfinished() - (self._cancelled_at_once(name) if cancel else 0)
        if time is not None and limit is not None and unfinished >= limit:
            with pytest.raises(QueueFull):
                self.book.turn(name, lambda _: step, limit=limit)
            return

        def decide(situation: Situation) -> Step:
            assert [job.id for job in situation.busy] == self.model.busy(name)
            assert list(situation.waiting) == plan.waiting()
            assert (situation.standing.paused, situation.standing.next_at) == (plan.paused, plan.next_at)
            return step

        turned = self._write(
            lambda: self.book.turn(name, decide, limit=limit), lambda: self._model_turn(name, step, time, job_id)
        )
        assert turned is None or [job.id for job in turned.created] == ([job_id] if time else [])

    def _cancelled_at_once(self, name: str) -> int:
        return sum(self.model.records[job].state is not State.RUNNING for job in self.model.busy(name))

    def _next_fire(self, name: str, step: Step) -> datetime | None:
        """Return the time that becomes a job with *step*: the oldest that waits, if no job of the schedule goes on."""
        plan = self.model.plans[name]
        busy = [job for job in self.model.busy(name) if not (step.cancel and self._ends_when_cancelled(job))]
        if step.job is None or busy:
            return None
        waiting = {time for time in plan.waiting() if time not in step.drop}
        dropped = set(plan.fires) - set(step.drop)
        waiting |= {time for time, _ in step.take if time not in dropped}
        return min(waiting, default=None)

    def _ends_when_cancelled(self, job_id: str) -> bool:
        return self.model.records[job_id].state is not State.RUNNING

    def _model_turn(self, name: str, step: Step, time: datetime | None, job_id: str) -> None:
        plan = self.model.plans[name]
        plan.next_at = step.next_at
        for one in step.drop:
            plan.fires.pop(one, None)
        for one, kind in step.take:
            plan.fires.setdefault(one, (kind, ""))
        for miss in step.missed:
            plan.miss(miss.first, miss.count, miss.reason)
        if step.cancel:
            for busy in self.model.busy(name):
                self.model.records[busy].cancel()
        if time is not None:
            plan.fires[time] = (plan.fires[time][0], job_id)
            self.model.records[job_id] = Record(rule=name)

    @precondition(lambda self: self.model.plans)
    @rule(data=st.data(), by_hand=st.booleans())
    def fire_by_hand(self, data: st.DataObject, *, by_hand: bool) -> None:
        """Run a schedule now, or let a time wait for its turn."""
        name = data.draw(st.sampled_from(sorted(self.model.plans)))
        plan, now = self.model.plans[name], self.clock.now
        if not by_hand:
            new = now not in plan.fires
            taken = self._write(
                lambda: self.book.take(name, [now], "backfill"), lambda: plan.fires.setdefault(now, ("backfill", ""))
            )
            assert taken in {None, int(new)}
            return
        job_id = next(self.ids)
        self.ids = itertools.chain([job_id], self.ids)

        def then() -> None:
            plan.fires.setdefault(now, ("manual", job_id))
            self.model.records[job_id] = Record(rule=name)

        def make(fire: Fire) -> NewJob:
            assert (fire.at, fire.kind) == (now, "manual")
            return NewJob(task="t", source=Source(kind="schedule", rule=name))

        self._write(lambda: self.book.manual(name, make), then)

    # The desk.

    @precondition(lambda self: self.model.records)
    @rule(
        data=st.data(),
        what=st.sampled_from(["plan", "plan", "revert", "pause"]),
        source=SOURCES,
        place=st.sampled_from([Path("/done/a"), Path("/done/b")]),
    )
    def desk(self, data: st.DataObject, what: str, source: Path, place: Path) -> None:
        """Plan a move, take a job back, pause or resume a folder."""
        job_id, _ = self._pick(data)
        journal, model, now = self.journal, self.model, self.clock.now
        if what == "plan":
            moves = model.moves.setdefault(job_id, {})
            self._write(
                lambda: journal.plan(job_id, source, place, "1" * 64, now=now), lambda: moves.update({source: place})
            )
        elif what == "revert":
            self._write(lambda: journal.revert(job_id, now=now), lambda: model.reverted.add(job_id))
        elif source in model.paused:
            self._write(lambda: journal.resume(source), lambda: model.paused.discard(source))
        else:
            self._write(lambda: journal.pause(source, now=now), lambda: model.paused.add(source))

    # Looking.

    def _look(self) -> None:
        """Look at the rest as well."""
        super()._look()
        self._look_at_schedules()
        model = self.model
        assert set(self.journal.paused()) == model.paused
        for job_id in model.records:
            assert (self.journal.reverted(job_id) is not None) == (job_id in model.reverted)
            assert {move.source: move.target for move in self.journal.moves(job_id)} == model.moves.get(job_id, {})

    def _look_at_schedules(self) -> None:
        plans = self.model.plans
        assert {one.name: (one.paused, one.next_at) for one in self.book.all()} == {
            name: (plan.paused, plan.next_at) for name, plan in plans.items()
        }
        assert self.book.waiting() == {name: len(plan.waiting()) for name, plan in plans.items() if plan.waiting()}
        for name, plan in plans.items():
            found = {fire.at: (fire.kind, fire.job or "") for fire in self.book.fires(name, 1000)}
            assert found == plan.fires
            assert self.book.known(name, [*plan.fires, self.clock.now + timedelta(days=400)]) == set(plan.fires)
            misses = [(one.first, one.last, one.count, one.reason) for one in reversed(self.book.misses(name, 1000))]
            assert misses == plan.misses
