"""The ledger against a plain model of itself: any sequence of calls, closings and openings."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes_jobs import Clock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobs.errors import JobConflict, StaleFence
from jobs.ledger import Ledger
from jobs.model import TERMINAL, ErrorInfo, Job, NewJob, State, allowed

ERROR = ErrorInfo(type="error", message="No.")
OWNERS = st.sampled_from(["a", "b"])


@dataclass
class Record:
    """What the model knows of a job."""

    state: State = State.QUEUED
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    fence: int = 0
    owner: str | None = None
    asked: bool = False
    due: float = 0.0

    def become(self, state: State) -> None:
        assert allowed(self.state, state)
        self.state, self.owner = state, None

    def wait(self, state: State = State.QUEUED) -> None:
        self.become(State.CANCELLED if self.asked else state)


class LedgerMachine(RuleBasedStateMachine):
    """Each rule does one thing to both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.elapsed = 0.0
        # Counted, not drawn: hypothesis must see the same choices when it tries a failure again.
        self.ids = (f"job{number:07}" for number in itertools.count())
        self.ledger = self._open()
        self.records: dict[str, Record] = {}
        self.keys: dict[str, str] = {}

    def _open(self) -> Ledger:
        return Ledger(Path(self.folder.name) / "ledger.sqlite3", clock=self.clock, new_id=lambda: next(self.ids))

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    def _pick(self, data: st.DataObject, *states: State) -> tuple[str, Record]:
        chosen = sorted(job for job, record in self.records.items() if not states or record.state in states)
        job_id = data.draw(st.sampled_from(chosen or sorted(self.records)))
        return job_id, self.records[job_id]

    @rule(key=st.none() | st.sampled_from(["k1", "k2"]), delay=st.sampled_from([0.0, 0.0, 10.0]))
    def add(self, key: str | None, delay: float) -> None:
        at = self.clock.now.fromtimestamp(self.clock.now.timestamp() + delay, self.clock.now.tzinfo)
        job, created = self.ledger.add(NewJob(task="t", idempotency_key=key, not_before=at, max_failures=2))
        assert created == (key not in self.keys)
        if created:
            self.records[job.id] = Record(due=self.elapsed + delay)
        if key is not None:
            assert self.keys.setdefault(key, job.id) == job.id

    @precondition(lambda self: self.records)
    @rule(data=st.data(), owner=OWNERS)
    def claim(self, data: st.DataObject, owner: str) -> None:
        job_id, record = self._pick(data, State.QUEUED)
        claimed = self.ledger.claim(job_id, owner)
        may = record.state is State.QUEUED and record.due <= self.elapsed
        assert (claimed is not None) == may
        if may:
            record.state, record.owner, record.due = State.RUNNING, owner, 0.0
            record.attempts += 1
            record.fence += 1

    @precondition(lambda self: self.records)
    @rule(
        data=st.data(),
        end=st.sampled_from(["finish", "retry", "fail", "crash", "release", "block", "cancelled"]),
        late=st.integers(0, 5).map(lambda dice: dice == 0),
    )
    def end(self, data: st.DataObject, end: str, *, late: bool) -> None:
        job_id, record = self._pick(data, State.RUNNING)
        fence = record.fence - late
        if record.state is not State.RUNNING or late:
            with pytest.raises(StaleFence):
                self._call(end, job_id, fence)
            return
        job = self._call(end, job_id, fence)
        self._model_end(end, record)
        assert job.state is record.state

    def _call(self, end: str, job_id: str, fence: int) -> Job:
        now = self.clock.now
        match end:
            case "finish":
                return self.ledger.finish(job_id, fence, {}, [])
            case "retry" | "fail":
                return self.ledger.fail(job_id, fence, ERROR, retry_at=now if end == "retry" else None)
            case "crash":
                return self.ledger.crash(job_id, fence, ERROR, limit=2)
            case "release":
                return self.ledger.release(job_id, fence)
            case "block":
                return self.ledger.block(job_id, fence, ERROR)
            case _:
                return self.ledger.cancelled(job_id, fence)

    def _model_end(self, end: str, record: Record) -> None:
        match end:
            case "finish":
                record.become(State.SUCCEEDED)
            case "retry" | "fail":
                record.failures += 1
                if end == "fail" or record.failures >= 2:
                    record.become(State.FAILED)
                else:
                    record.wait()
            case "crash":
                record.crashes += 1
                record.wait(State.QUARANTINED if record.crashes >= 2 else State.QUEUED)
            case "release" | "block":
                record.attempts -= 1
                record.wait(State.QUEUED if end == "release" else State.BLOCKED)
            case _:
                record.become(State.CANCELLED)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id, record = self._pick(data)
        if record.state in TERMINAL:
            with pytest.raises(JobConflict):
                self.ledger.cancel(job_id)
            return
        self.ledger.cancel(job_id)
        if record.state is State.RUNNING:
            record.asked = True
        else:
            record.become(State.CANCELLED)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        job_id, record = self._pick(data, State.QUARANTINED, State.BLOCKED)
        if record.state not in {State.QUARANTINED, State.BLOCKED}:
            with pytest.raises(JobConflict):
                self.ledger.requeue(job_id)
            return
        self.ledger.requeue(job_id)
        record.become(State.QUEUED)
        record.crashes, record.due = 0, 0.0

    @rule()
    def unblock(self) -> None:
        blocked = {job for job, record in self.records.items() if record.state is State.BLOCKED}
        assert {job.id for job in self.ledger.unblock()} == blocked
        for job_id in blocked:
            self.records[job_id].become(State.QUEUED)

    @rule(owner=OWNERS)
    def die_and_come_back_as(self, owner: str) -> None:
        self.ledger.close()
        self.ledger = self._open()
        self.ledger.recover(owner)
        for record in self.records.values():
            if record.state is State.RUNNING and record.owner != owner:
                record.attempts -= 1
                record.wait()

    @rule()
    def wait(self) -> None:
        self.clock.forward(6)
        self.elapsed += 6

    @invariant()
    def agree(self) -> None:
        jobs = {job.id: job for job in self.ledger.find(limit=1000)}
        told = {
            job.id: (job.state, job.attempts, job.failures, job.crashes, job.fence, job.owner, job.cancel_requested)
            for job in jobs.values()
        }
        assert told == {
            job: (r.state, r.attempts, r.failures, r.crashes, r.fence, r.owner, r.asked)
            for job, r in self.records.items()
        }
        due = {job for job, r in self.records.items() if r.state is State.QUEUED and r.due <= self.elapsed}
        assert {job.id for job in self.ledger.ready()} == due
        assert all((job.finished_at is not None) == job.terminal for job in jobs.values())
        assert sum(self.ledger.counts().values()) == len(jobs)


class TestLedgerMachine(LedgerMachine.TestCase):  # type: ignore[name-defined,misc]
    """Any sequence of calls leaves ledger and model agreed, also over closings and deaths."""

    settings = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
