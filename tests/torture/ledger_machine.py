"""A ledger and its model, driven by hypothesis: any sequence of verbs, closings and deaths leaves them agreed.

A death comes in the middle of a verb: the files are copied just before or just after its commit, as the disk has them
then, and the next ledger opens the copy. Before the commit nothing of the verb may be seen, after it everything.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from fakes_jobs import Clock, Died
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Engine, create_engine

from jobs import database
from jobs.errors import JobConflict, JobNotFound, QueueFull, StaleFence
from jobs.journal import Journal
from jobs.ledger import Ledger
from jobs.model import TERMINAL, ErrorInfo, Job, Lane, NewJob, OutputFile, Progress, State
from jobs.schedules import ScheduleBook
from torture.ledger_model import CHANGED, RETRY_WITHIN, STUCK, Model, Record, told

Returned = TypeVar("Returned")

ERROR = ErrorInfo(type="error", message="No.")
UNREAD = ErrorInfo(type=CHANGED, message="It was changed.")
FOLDER = Path("/in")
MOST_FAILURES = 2
CRASH_LIMIT = 2
_MEMORY = Path("/dev/shm")

OWNERS = st.sampled_from(["a", "b"])
LATE = st.integers(0, 4).map(lambda dice: dice == 0)
DIGESTS = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
PATHS = st.sampled_from([Path("/out/a"), Path("/out/b")])


_FIRST: list[Engine] = []


def warm_engine(*args: Any, **kwargs: Any) -> Engine:
    """Return an engine that knows every statement which one before it has compiled: that is half of the time here."""
    engine = create_engine(*args, **kwargs)
    if not _FIRST:
        _FIRST.append(engine)
    engine.dialect, engine._compiled_cache = _FIRST[0].dialect, _FIRST[0]._compiled_cache
    return engine


def output(path: Path, sha256: str) -> OutputFile:
    return OutputFile(path=path, size=1, sha256=sha256)


class LedgerMachine(RuleBasedStateMachine):
    """Each rule does one thing to both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
        self.home = Path(self.folder.name)
        self.clock = Clock()
        # Counted, not drawn: hypothesis must see the same choices when it tries a failure again.
        self.ids = (f"job{number:07}" for number in itertools.count())
        self.homes = itertools.count()
        #: When the next commit is the last thing that the program does: "before", "after" or "".
        self.dying = ""
        self.model = Model()
        self._open()

    def _open(self) -> None:
        with mock.patch.object(database, "create_engine", warm_engine):
            self.ledger = Ledger(
                self.home / "ledger", clock=self.clock, new_id=lambda: next(self.ids), connect=self._connect
            )
        self.book, self.journal = ScheduleBook(self.ledger), Journal(self.ledger)

    def _connect(self, path: Path) -> sqlite3.Connection:
        machine = self

        class Connection(sqlite3.Connection):
            def commit(self) -> None:
                if not (machine.dying and self.in_transaction):
                    super().commit()
                    return
                if machine.dying == "after":
                    super().commit()
                machine.copy()
                raise Died

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)

    def copy(self) -> None:
        """Take the files as the disk has them; the shared memory is nobody's to keep."""
        self.home = Path(self.folder.name) / str(next(self.homes))
        self.home.mkdir()
        for ending in ("", "-wal"):
            old = self.ledger_path.with_name(f"{self.ledger_path.name}{ending}")
            if old.exists():
                shutil.copyfile(old, self.home / old.name)

    @property
    def ledger_path(self) -> Path:
        return self.ledger._db._path

    def teardown(self) -> None:
        self.dying = ""
        try:
            self._look()
        finally:
            self.ledger.close()
            self.folder.cleanup()

    def _write(self, call: Callable[[], Returned], then: Callable[[], object]) -> Returned | None:
        """Do *call*, and *then* the same to the model; None if the program died meanwhile, or the call returned it."""
        try:
            returned = call()
        except Died:
            if self.dying == "after":
                then()
            self._come_back("reborn")
            return None
        then()
        return returned

    def _come_back(self, owner: str) -> None:
        """Open what the disk has, and do what every start does."""
        self.dying = ""
        self.ledger.close()
        self._open()
        back = self.ledger.recover(owner)
        assert [job.id for job in back] == self.model.recover(owner)

    def _write_running(self, data: st.DataObject, *, call: Any, then: Any) -> None:
        """Do a verb that carries a fence to a running job; an outdated attempt's, or one on another job, is refused.

        If the job is to be tried again, it begins again at once, and now and then the same happens to it again.
        """
        job_id, record = self._pick(data, State.RUNNING)
        with pytest.raises(StaleFence):
            call(job_id, record.fence - 1)
        other, its = self._pick(data)
        if its.state is not State.RUNNING:
            with pytest.raises(StaleFence):
                call(other, its.fence)
        for _ in range(data.draw(st.integers(1, 3))):
            job = self._write(lambda: call(job_id, record.fence), lambda: then(record))
            if isinstance(job, Job):
                assert told(job) == record.told()
            if record.state is State.RUNNING and data.draw(st.booleans()):
                # Interrupted, and soon the next attempt's.
                self._write(lambda: self.ledger.release(job_id, record.fence), record.release)
            if not record.may_start(self.clock.now):
                return
            self._claim(job_id, record, "a")
            if record.state is not State.RUNNING:
                return

    def _pick(self, data: st.DataObject, *states: State) -> tuple[str, Record]:
        records = self.model.records
        chosen = [job for job, record in records.items() if not states or record.state in states]
        job_id = data.draw(st.sampled_from(chosen or list(records)))
        return job_id, records[job_id]

    # Taking jobs in.

    @rule(
        key=st.sampled_from([None, None, "k1", "k2"]),
        seen=st.sampled_from([None, None, "f1", "f2"]),
        delay=st.sampled_from([None, None, 0.0, 10.0, 1000.0]),
        lane=st.sampled_from(Lane),
        priority=st.integers(-1, 1),
        limit=st.sampled_from([None, None, 3]),
        begin=st.booleans(),
    )
    def add(
        self,
        *,
        key: str | None,
        seen: str | None,
        delay: float | None,
        lane: Lane,
        priority: int,
        limit: int | None,
        begin: bool,
    ) -> None:
        due = None if delay is None else self._later(delay)
        new = NewJob(
            task="t",
            idempotency_key=key,
            not_before=due,
            lane=lane,
            priority=priority,
            max_failures=MOST_FAILURES,
        )
        file = None if seen is None else (FOLDER, seen)
        old = self._repeated(key, file)
        if old is None and limit is not None and self.model.unfinished() >= limit:
            with pytest.raises(QueueFull):
                self.ledger.add(new, limit=limit, seen=file)
            return
        made = [] if old else [next(self.ids)]
        self.ids = itertools.chain(made, self.ids)
        job_id = old or made[0]

        def then() -> None:
            self.model.records.setdefault(job_id, Record(lane=lane, priority=priority, key=key, due=due))
            if file is not None and self.model.known(file) is None:
                self.model.seen[file] = job_id

        answer = self._write(lambda: self.ledger.add(new, limit=limit, seen=file), then)
        if answer is not None:
            assert (answer[0].id, answer[1]) == (job_id, old is None)
        record = self.model.records.get(job_id)
        if begin and record is not None and record.may_start(self.clock.now):
            self._claim(job_id, record, "b")

    def _later(self, seconds: float) -> Any:
        return type(self.clock.now).fromtimestamp(self.clock.now.timestamp() + seconds, self.clock.now.tzinfo)

    def _repeated(self, key: str | None, file: tuple[Path, str] | None) -> str | None:
        if file is not None and (known := self.model.known(file)) is not None:
            return known
        return next((job for job, one in self.model.records.items() if key is not None and one.key == key), None)

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), key=st.sampled_from(["f1", "f3"]))
    def remember(self, data: st.DataObject, key: str) -> None:
        job_id, _ = self._pick(data)
        self._write(
            lambda: self.ledger.remember(FOLDER, key, job_id),
            lambda: self.model.seen.update({(FOLDER, key): job_id}),
        )

    # Running.

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), owner=OWNERS, late=LATE)
    def claim(self, data: st.DataObject, owner: str, *, late: bool) -> None:
        """Claim a job that waits; *late*: any job, as a stale hint does."""
        job_id, record = self._pick(data) if late else self._pick(data, State.QUEUED)
        self._claim(job_id, record, owner)

    def _claim(self, job_id: str, record: Record, owner: str) -> None:
        may = record.may_start(self.clock.now)
        job = self._write(lambda: self.ledger.claim(job_id, owner), lambda: record.claim(owner) if may else None)
        assert job is None or (may and told(job) == record.told())

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), amount=st.integers(0, 9))
    def note(self, data: st.DataObject, amount: int) -> None:
        """Say how far it is, where to go on, what was done."""
        what, saved = Progress(done=amount), {"at": amount}
        calls: dict[str, tuple[Any, Any]] = {
            "progress": (lambda job, fence: self.ledger.progress(job, fence, what), {"progress": what}),
            "checkpoint": (lambda job, fence: self.ledger.checkpoint(job, fence, saved), {"checkpoint": saved}),
            "recipe": (lambda job, fence: self.ledger.record_recipe(job, fence, "r", saved), {"recipe": ("r", saved)}),
        }
        call, values = calls[data.draw(st.sampled_from(sorted(calls)))]
        self._write_running(data, call=call, then=lambda record: record.__dict__.update(values))

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), path=PATHS, sha256=DIGESTS)
    def intend(self, data: st.DataObject, path: Path, sha256: str) -> None:
        file = output(path, sha256)
        self._write_running(
            data,
            call=lambda job, fence: self.ledger.intend(job, fence, file),
            then=lambda record: record.intend(file),
        )

    # Ending an attempt.

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), path=PATHS)
    def finish(self, data: st.DataObject, path: Path) -> None:
        result, outputs = {"text": "x"}, [output(path, "1" * 64)]
        self._write_running(
            data,
            call=lambda job, fence: self.ledger.finish(job, fence, result, outputs),
            then=lambda record: record.finish(result, outputs),
        )

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), delay=st.sampled_from([0.0, 0.0, 0.0, None, 30.0, 5000.0]), path=PATHS)
    def fail(self, data: st.DataObject, delay: float | None, path: Path) -> None:
        retry_at = None if delay is None else self._later(delay)
        kept = None if retry_at is None else min(retry_at, self.clock.now + RETRY_WITHIN)
        outputs = [output(path, "2" * 64)]

        def most(record: Record) -> int:
            # What a schedule fires has the default's budget.
            return MOST_FAILURES if record.rule is None else NewJob(task="t").max_failures

        self._write_running(
            data,
            call=lambda job, fence: self.ledger.fail(job, fence, ERROR, outputs, retry_at=retry_at),
            then=lambda record: record.fail("error", outputs, retry_at=kept, most=most(record)),
        )

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), shared=LATE)
    def crash(self, data: st.DataObject, *, shared: bool) -> None:
        self._write_running(
            data,
            call=lambda job, fence: self.ledger.crash(job, fence, ERROR, limit=CRASH_LIMIT, shared=shared),
            then=lambda record: record.crash("error", limit=CRASH_LIMIT, shared=shared),
        )

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), end=st.sampled_from(["release", "block", "block", "cancelled", "changed"]))
    def step_aside(self, data: st.DataObject, end: str) -> None:
        calls: dict[str, tuple[Any, Any]] = {
            # Looked up at each call: a death in between opens another ledger.
            "release": (lambda job, fence: self.ledger.release(job, fence), Record.release),  # noqa: PLW0108 - see above
            "block": (lambda job, fence: self.ledger.block(job, fence, ERROR), lambda one: one.block("error")),
            "cancelled": (lambda job, fence: self.ledger.cancelled(job, fence), Record.stop),  # noqa: PLW0108 - same
            "changed": (lambda job, fence: self.ledger.cancelled(job, fence, why=UNREAD), Record.step_aside),
        }
        call, then = calls[end]
        self._write_running(data, call=call, then=then)

    # What people and the daemon ask for.

    @precondition(lambda self: self.model.records)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id, record = self._pick(data)
        if record.state in TERMINAL:
            with pytest.raises(JobConflict):
                self.ledger.cancel(job_id)
            return
        job = self._write(lambda: self.ledger.cancel(job_id), record.cancel)
        assert job is None or told(job) == record.told()

    @precondition(lambda self: self.model.stuck())
    @rule(data=st.data(), how=st.sampled_from(["requeue", "unblock some", "unblock all"]))
    def put_back(self, data: st.DataObject, how: str) -> None:
        other, its = self._pick(data)
        if its.state not in STUCK:
            with pytest.raises(JobConflict):
                self.ledger.requeue(other)
        if how == "requeue":
            job_id, record = self._pick(data, *STUCK)
            self._write(lambda: self.ledger.requeue(job_id), record.requeue)
        else:
            blocked = [job for job, one in self.model.records.items() if one.state is State.BLOCKED]
            self._unblock(blocked, None if how == "unblock all" else blocked[: len(blocked) // 2])

    def _unblock(self, blocked: list[str], some: list[str] | None) -> None:
        chosen = blocked if some is None else some

        def then() -> None:
            for job_id in chosen:
                self.model.records[job_id].unblock()

        back = self._write(lambda: self.ledger.unblock(some), then)
        assert back is None or [job.id for job in back] == chosen

    # Time and death.

    @rule(seconds=st.sampled_from([6, 6, 60, 700, -86_400]))
    def wait(self, seconds: float) -> None:
        """Let time pass, or have the clock set back."""
        self.clock.forward(seconds)

    @rule(owner=OWNERS, how=st.sampled_from(["restart", "die", "before", "before", "after", "after"]))
    def end_the_program(self, how: str, owner: str) -> None:
        """End as a daemon does that is asked to, die between two verbs, or die at the next commit; then start again."""
        if how in {"before", "after"}:
            self.dying = how
            return
        if how == "die":
            self.copy()
        self._come_back(owner)

    # Looking.

    @invariant()
    def agree(self) -> None:
        """Whatever the ledger says of its jobs is what the model says."""
        jobs = {job.id: told(job) for job in self.ledger.find(limit=1000, newest_first=False)}
        assert jobs == {job: record.told() for job, record in self.model.records.items()}
        assert list(jobs) == list(self.model.records)
        assert [job.id for job in self.ledger.ready()] == self.model.ready(self.clock.now)

    @rule()
    def look_closely(self) -> None:
        """Ask for everything that can be asked for."""
        self._look()

    def _look(self) -> None:
        model, ledger, now = self.model, self.ledger, self.clock.now
        states = [record.state for record in model.records.values()]
        assert ledger.counts() == {state: states.count(state) for state in State}
        assert [one.id for one in ledger.ready_ids()] == model.ready(now)
        assert [job.id for job in ledger.ready(lanes=[Lane.BATCH])] == [
            job for job in model.ready(now) if model.records[job].lane is Lane.BATCH
        ]
        waits = [one.due for one in model.records.values() if one.state is State.QUEUED and not one.may_start(now)]
        assert ledger.next_due() == min(waits, default=None)
        assert {key: ledger.seen(FOLDER, key) for key in ("f1", "f2", "f3")} == {
            key: model.known((FOLDER, key)) for key in ("f1", "f2", "f3")
        }
        done = [job for job, one in model.records.items() if one.state is State.SUCCEEDED and one.recipe]
        assert [(job.id, details) for job, details in ledger.recorded("r", limit=1000)] == [
            (job, model.records[job].recipe[1]) for job in reversed(done)
        ]
        for path in (Path("/out/a"), Path("/out/b")):
            assert ledger.is_output(path) == any(path in one.intents for one in model.records.values())
        for job_id, record in model.records.items():
            assert told(ledger.get(job_id)) == record.told()
            assert ledger.checkpointed(job_id) == record.checkpoint
            assert ledger.intended(job_id) == {path: frozenset(known) for path, known in record.intents.items()}
        with pytest.raises(JobNotFound):
            ledger.get("nobody")
