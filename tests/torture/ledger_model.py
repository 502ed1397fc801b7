"""What a ledger means, without SQL: dicts and a few rules, for the real one to be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.model import TERMINAL, Job, Lane, OutputFile, Progress, State, allowed

#: No retry is put off for longer.
RETRY_WITHIN = timedelta(minutes=10)
#: States that a person's hand, or what was missing, ends.
STUCK = (State.BLOCKED, State.QUARANTINED)
#: Type of the error with which a job ends unread, for its watched file holds something else.
CHANGED = "input-changed"
_CONTENTS_KEPT = 8


@dataclass
class Record:
    """One job."""

    lane: Lane = Lane.NORMAL
    priority: int = 0
    key: str | None = None
    rule: str | None = None
    state: State = State.QUEUED
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    fence: int = 0
    owner: str | None = None
    asked: bool = False
    due: datetime | None = None
    error: str | None = None
    result: Mapping[str, Any] | None = None
    outputs: tuple[OutputFile, ...] = ()
    progress: Progress | None = None
    checkpoint: Mapping[str, Any] | None = None
    recipe: tuple[str, Mapping[str, Any]] | None = None
    #: Path -> contents that the file may have, newest first.
    intents: dict[Path, list[str]] = field(default_factory=dict)

    def may_start(self, now: datetime) -> bool:
        """Tell whether the job may be claimed."""
        return self.state is State.QUEUED and (
            self.due is None or self.due <= now or (self.failures > 0 and self.due > now + RETRY_WITHIN)
        )

    def claim(self, owner: str) -> None:
        self._become(State.RUNNING)
        self.owner, self.due, self.error, self.progress = owner, None, None, None
        self.attempts += 1
        self.fence += 1

    def finish(self, result: Mapping[str, Any], outputs: Sequence[OutputFile]) -> None:
        self._become(State.SUCCEEDED)
        self.result, self.outputs, self.error = result, tuple(outputs), None

    def fail(self, error: str, outputs: Sequence[OutputFile], *, retry_at: datetime | None, most: int) -> None:
        self.failures += 1
        self.error = error
        if retry_at is None or self.failures >= most:
            self._become(State.FAILED)
            self.outputs = tuple(outputs)
        else:
            self._wait(State.QUEUED)
            self.due = retry_at

    def crash(self, error: str, *, limit: int, shared: bool) -> None:
        self.crashes += 1
        self.error = error
        self._wait(State.QUARANTINED if self.crashes >= limit and not shared else State.QUEUED)

    def release(self) -> None:
        self.attempts -= 1
        self._wait(State.QUEUED)

    def block(self, error: str) -> None:
        self.attempts -= 1
        self.error = error
        self._wait(State.BLOCKED)

    def stop(self, outputs: Sequence[OutputFile] = ()) -> None:
        self._become(State.CANCELLED)
        self.outputs = tuple(outputs)

    def step_aside(self) -> None:
        """End unread: the watched file holds something else."""
        self.stop()
        self.error = CHANGED

    def cancel(self) -> None:
        if self.state is State.RUNNING:
            self.asked = True
        else:
            self.stop()

    def unblock(self) -> None:
        self._become(State.QUEUED)
        self.error = None

    def requeue(self) -> None:
        self.unblock()
        self.crashes, self.due = 0, None

    def intend(self, output: OutputFile) -> None:
        earlier = [one for one in self.intents.get(output.path, []) if one != output.sha256]
        self.intents[output.path] = [output.sha256, *earlier][:_CONTENTS_KEPT]

    def _become(self, state: State) -> None:
        assert allowed(self.state, state), f"the model itself went from {self.state} to {state}"
        self.state, self.owner = state, None

    def _wait(self, state: State) -> None:
        if self.asked:
            self.stop()
        else:
            self._become(state)

    def told(self) -> tuple[Any, ...]:
        """Return what a job that is asked for must say."""
        return (
            *(self.lane, self.priority, self.key, self.rule, self.state, self.attempts, self.failures, self.crashes),
            *(self.fence, self.owner, self.asked, self.due, self.error, self.result, self.outputs, self.progress),
            self.state in TERMINAL,
        )


def told(job: Job) -> tuple[Any, ...]:
    """Return the same of a real job."""
    return (
        *(job.lane, job.priority, job.idempotency_key, job.source.rule, job.state, job.attempts, job.failures),
        *(job.crashes, job.fence, job.owner, job.cancel_requested, job.not_before),
        *(job.error and job.error.type, job.result, job.outputs, job.progress, job.finished_at is not None),
    )


@dataclass
class Plan:
    """One schedule."""

    paused: bool = False
    next_at: datetime | None = None
    #: Time -> kind and the job that it became, "" while it waits.
    fires: dict[datetime, tuple[str, str]] = field(default_factory=dict)
    #: (first, last, count, reason), oldest first.
    misses: list[tuple[datetime, datetime, int, str]] = field(default_factory=list)

    def waiting(self) -> list[datetime]:
        return sorted(time for time, (_, job) in self.fires.items() if not job)

    def miss(self, at: datetime, count: int, reason: str) -> None:
        """Note missed times: with the last ones if these have the same reason and came before."""
        if self.misses and self.misses[-1][3] == reason and self.misses[-1][1] <= at:
            first, _, before, _ = self.misses.pop()
            self.misses.append((first, at, before + count, reason))
        else:
            self.misses.append((at, at, count, reason))


@dataclass
class Model:
    """The whole ledger."""

    records: dict[str, Record] = field(default_factory=dict)
    #: (folder, key) of a watched file -> the job it became.
    seen: dict[tuple[Path, str], str] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    #: Job -> source -> target.
    moves: dict[str, dict[Path, Path]] = field(default_factory=dict)
    reverted: set[str] = field(default_factory=set)
    paused: set[Path] = field(default_factory=set)

    def known(self, file: tuple[Path, str]) -> str | None:
        """Return the job that stands for a watched file: none does that ended unread."""
        job = self.seen.get(file)
        if job is None or (self.records[job].state, self.records[job].error) == (State.CANCELLED, CHANGED):
            return None
        return job

    def unfinished(self) -> int:
        return sum(record.state not in TERMINAL for record in self.records.values())

    def running(self) -> bool:
        return any(record.state is State.RUNNING for record in self.records.values())

    def stuck(self) -> bool:
        return any(record.state in STUCK for record in self.records.values())

    def busy(self, rule: str) -> list[str]:
        """Return the jobs of a schedule that are under way, oldest first."""
        states = {State.QUEUED, State.RUNNING, State.BLOCKED}
        return [job for job, record in self.records.items() if record.rule == rule and record.state in states]

    def ready(self, now: datetime) -> list[str]:
        """Return the jobs that may start, most urgent first; dicts keep the order of acceptance."""
        order = list(Lane)
        jobs = [(job, record) for job, record in self.records.items() if record.may_start(now)]
        return [job for job, _ in sorted(jobs, key=lambda one: (order.index(one[1].lane), -one[1].priority))]

    def recover(self, owner: str) -> list[str]:
        lost = [job for job, one in self.records.items() if one.state is State.RUNNING and one.owner != owner]
        for job in lost:
            self.records[job].release()
        return lost
