"""A ledger at work on a disk that is written down: the program's own verbs, and what each of them promised."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.errors import JobConflict, QueueFull
from jobs.firing import Fire, Situation, Standing, Step
from jobs.journal import Journal
from jobs.ledger import Ledger
from jobs.model import ErrorInfo, Job, NewJob, OutputFile, Progress, Source, State
from jobs.schedules import ScheduleBook
from torture.crash_disk import Disk, Image, Op, materialise
from torture.crash_vfs import CrashVfs

NAME = "ledger.sqlite3"
#: Asks a connection for rows.
Ask = Callable[[str], Iterable[tuple[Any, ...]]]

_NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
#: Lengths of texts; a page of the file has 4,096 bytes, and the log is folded in when it has a thousand pages.
_LIGHT = (10, 100, 1000, 5000, 40_000)
_HEAVY = (100, 5000, 200_000, 800_000)
_ERROR = ErrorInfo(type="error", message="No.", facts={"why": "x" * 200})
_SUMMARY = "SELECT state, attempts, failures, crashes, fence, cancel_requested FROM jobs WHERE id = ?"


def contents(ask: Ask) -> str:
    """Return a digest of every row there is; tables that are empty, or not there yet, count for nothing."""
    names = [name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    digests = [
        hashlib.sha256("\0".join((name, *map(str, row))).encode()).digest()
        for name in names
        if not name.startswith("sqlite_")
        for row in ask(f"SELECT * FROM {name}")  # noqa: S608 - SQLite's own word for it
    ]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


class Life:
    """One program with a ledger below *root*, from its start until `end`; *pragmas* break it for a control.

    Each step is announced on the disk before and after it: ``("begin", n)`` and ``("ack", n, durable)``. In a *heavy*
    life texts are so long that SQLite folds its log into the file by itself every few steps.
    """

    def __init__(
        self, root: Path, disk: Disk, random_: random.Random, *, start: Image, heavy: bool = False, **pragmas: str
    ) -> None:
        materialise(start, root)
        disk.load(start)
        self._disk = disk
        self._random = random_
        self._vfs = CrashVfs(root, disk)
        self._path = root / NAME
        self._connect = lambda path: self._vfs.connect(path, **pragmas)
        self._clock = _NOW
        self._sizes = _HEAVY if heavy else _LIGHT
        self._ids = (f"{random_.getrandbits(40):010x}" for _ in itertools.count())
        self._held: contextlib.ExitStack = contextlib.ExitStack()
        #: How often SQLite folded the log into the file while the ledger was at work.
        self.folded = 0
        #: Number of a step -> what the ledger held after it.
        self.states: list[str] = []
        #: Before this event the disk holds what was there at the beginning.
        self.first = len(disk.events)
        self._open()
        self._note()

    def _open(self) -> None:
        self.ledger = Ledger(self._path, connect=self._connect, clock=self._now, new_id=lambda: next(self._ids))
        self.book, self.journal = ScheduleBook(self.ledger), Journal(self.ledger)

    def _now(self) -> datetime:
        self._clock += timedelta(seconds=1)
        return self._clock

    def _note(self) -> None:
        with self.ledger.reading() as connection:
            self.states.append(contents(lambda sql: [tuple(row) for row in connection.exec_driver_sql(sql)]))

    def end(self) -> None:
        """Stop as a program does that is asked to."""
        self._held.close()
        self.ledger.close()
        self._vfs.unregister()

    def run(self, steps: int) -> None:
        """Do *steps* things, whichever come."""
        verbs = [verb for verb, weight in self._verbs() for _ in range(weight)]
        for number in range(len(self.states), len(self.states) + steps):
            verb = self._random.choice(verbs)
            self._disk.mark(("begin", number))
            at = len(self._disk.events)
            job = verb()
            self.folded += verb != self.restart and self._wrote_file(at)
            self._note()
            # What wrote nothing promises nothing, and progress may be lost: the program says so.
            durable = verb != self.progress and self.states[-1] != self.states[-2]
            self._disk.mark(("ack", number, durable))
            if job is not None:
                self._agree(job)

    def _wrote_file(self, since: int) -> bool:
        file = self._disk.find(NAME)
        return any(event.op is Op.WRITE and event.inode == file for event in self._disk.events[since:])

    def _verbs(self) -> list[tuple[Callable[[], Job | None], int]]:
        return [
            (self.add, 8),
            (self.add_again, 1),
            (self.claim, 6),
            (self.progress, 6),
            (self.note, 6),
            (self.end_attempt, 5),
            (self.cancel, 1),
            (self.put_back, 1),
            (self.schedule, 1),
            (self.turn, 2),
            (self.desk, 1),
            (self.restart, 1),
            (self.hold, 1),
            (self.let_go, 2),
        ]

    def _agree(self, job: Job) -> None:
        """Make sure that what was told is what `states` has."""
        told = (job.state.value, job.attempts, job.failures, job.crashes, job.fence, int(job.cancel_requested))
        with self.ledger.reading() as connection:
            found = tuple(connection.exec_driver_sql(_SUMMARY, (job.id,)).one())
        if told != found:
            raise AssertionError(f"the ledger told {told} and holds {found}")

    def _pick(self, *states: State) -> Job | None:
        found = self.ledger.find(states=states, limit=100)
        return self._random.choice(found) if found else None

    def _text(self) -> str:
        return self._random.randbytes(self._random.choice(self._sizes) // 2).hex()

    def add(self) -> Job | None:
        key = f"key-{self._random.getrandbits(40)}" if self._random.random() < 0.5 else None
        seen = (Path("/in"), f"file-{self._random.getrandbits(40)}") if self._random.random() < 0.3 else None
        new = NewJob(task="t", params={"text": self._text()}, idempotency_key=key, source=Source(kind="folder"))
        with contextlib.suppress(QueueFull):
            return self.ledger.add(new, limit=60, seen=seen)[0]
        return None

    def add_again(self) -> Job | None:
        job = self._pick()
        if job is None or job.idempotency_key is None:
            return None
        return self.ledger.add(NewJob(task="t", idempotency_key=job.idempotency_key))[0]

    def claim(self) -> Job | None:
        job = self._pick(State.QUEUED)
        return self.ledger.claim(job.id, "me") if job else None

    def progress(self) -> None:
        if job := self._pick(State.RUNNING):
            self.ledger.progress(job.id, job.fence, Progress(done=self._random.random(), message=self._text()[:500]))

    def note(self) -> None:
        if job := self._pick(State.RUNNING):
            output = OutputFile(path=Path("/out") / str(self._random.random()), size=1, sha256="0" * 64)
            self._random.choice(
                [
                    lambda: self.ledger.checkpoint(job.id, job.fence, {"at": self._text()}),
                    lambda: self.ledger.intend(job.id, job.fence, output),
                    lambda: self.ledger.record_recipe(job.id, job.fence, "key", {"said": self._text()}),
                ]
            )()

    def end_attempt(self) -> Job | None:
        job = self._pick(State.RUNNING)
        if job is None:
            return None
        outputs = [OutputFile(path=Path("/out/a"), size=1, sha256="1" * 64)]
        return self._random.choice(
            [
                lambda: self.ledger.finish(job.id, job.fence, {"text": self._text()}, outputs),
                lambda: self.ledger.finish(job.id, job.fence, {}, []),
                lambda: self.ledger.fail(job.id, job.fence, _ERROR, retry_at=self._clock),
                lambda: self.ledger.fail(job.id, job.fence, _ERROR, outputs, retry_at=None),
                lambda: self.ledger.crash(job.id, job.fence, _ERROR),
                lambda: self.ledger.release(job.id, job.fence),
                lambda: self.ledger.block(job.id, job.fence, _ERROR),
                lambda: self.ledger.cancelled(job.id, job.fence, outputs),
            ]
        )()

    def cancel(self) -> Job | None:
        job = self._pick(State.QUEUED, State.RUNNING, State.BLOCKED)
        return self.ledger.cancel(job.id) if job else None

    def put_back(self) -> Job | None:
        if self._random.random() < 0.5:
            self.ledger.unblock()
            return None
        job = self._pick(State.QUARANTINED, State.BLOCKED)
        return self.ledger.requeue(job.id) if job else None

    def schedule(self) -> None:
        name = self._random.choice("abc")
        if any(one.name == name for one in self.book.all()):
            self.book.remove(name)
            return
        self.book.add(Standing(name=name, origin="added", definition={"x": 1}, fingerprint="f", anchor=_NOW))

    def turn(self) -> Job | None:
        """Let a time of a schedule become a job: its row, the job and the next time together."""
        standings = self.book.all()
        if not standings:
            return None

        def decide(situation: Situation) -> Step:
            now = self._now()
            return Step(next_at=now, take=((now, "on-time"),), job=self._scheduled)

        turned = self.book.turn(self._random.choice(standings).name, decide)
        return turned.created[0] if turned.created else None

    def _scheduled(self, fire: Fire) -> NewJob:
        return NewJob(task="t", source=Source(kind="schedule", rule="a"), params={"at": str(fire.at)})

    def desk(self) -> None:
        if job := self._pick():
            self.journal.plan(job.id, Path("/in/a"), Path("/done/a"), "2" * 64, now=self._now())

    def restart(self) -> None:
        """Close, which folds the log into the file, and open again; then what every start does."""
        self._held.close()
        self.ledger.close()
        self._open()
        with contextlib.suppress(JobConflict):
            self.ledger.recover(self._random.choice(["me", "somebody else"]))

    def hold(self) -> None:
        """Begin a long read: until `let_go` the log cannot be begun anew."""
        self._held.close()
        connection = self._held.enter_context(self.ledger.reading())
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one()

    def let_go(self) -> None:
        self._held.close()
