"""Which old jobs are forgotten, and which are not."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from jobs import pruning
from jobs.errors import JobNotFound
from jobs.firing import Fire, Situation, Standing, Step
from jobs.ledger import Ledger
from jobs.model import ErrorInfo, Job, NewJob, OutputFile, Placement, State
from jobs.pruning import Pruning
from jobs.schedules import ScheduleBook
from jobs.schema import jobs

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Clock:
    """Tells what it was told."""

    def __init__(self) -> None:
        self.now = LONG_AGO

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that shows long ago."""
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger of which the two latest jobs are always kept."""
    monkeypatch.setattr(pruning, "LEAST", 2)
    ledger = Ledger(tmp_path / "ledger.sqlite3", clock=clock)
    yield ledger
    ledger.close()


def done(ledger: Ledger, new: NewJob | None = None, **facts: object) -> Job:
    """Return a job that has run."""
    job = ledger.add(new or NewJob(task="t"), **facts)[0]  # type: ignore[arg-type]
    claimed = ledger.claim(job.id, "me")
    assert claimed is not None
    output = OutputFile(path=Path("/results") / job.id / "x.txt", size=1, sha256="0" * 64)
    ledger.intend(job.id, claimed.fence, output)
    ledger.record_recipe(job.id, claimed.fence, f"key-{job.id}", {})
    return ledger.finish(job.id, claimed.fence, {"text": "x"}, [output])


def forget(ledger: Ledger, **facts: int) -> int:
    return Pruning(ledger).forget(before=NOW - timedelta(days=90), keep=0, **facts)


def ids(ledger: Ledger) -> list[str]:
    return [job.id for job in ledger.find(newest_first=False, limit=500)]


def test_what_ended_long_ago_is_forgotten_with_all_that_belongs_to_it(ledger: Ledger) -> None:
    """Old jobs go with their notes, intents and recipes, whatever their end was; how many went can be told."""
    old, failed, cancelled = done(ledger), ledger.add(NewJob(task="t"))[0], ledger.add(NewJob(task="t"))[0]
    claimed = ledger.claim(failed.id, "me")
    assert claimed is not None
    ledger.fail(failed.id, claimed.fence, ErrorInfo(type="e", message="No."), retry_at=None)
    ledger.cancel(cancelled.id)
    kept = [done(ledger), done(ledger)]

    assert forget(ledger) == 3
    assert ids(ledger) == [job.id for job in kept]
    assert ledger.forgotten() == 3
    assert not ledger.is_output(old.outputs[0].path)
    assert ledger.recorded(f"key-{old.id}") == []
    with pytest.raises(JobNotFound):
        ledger.get(old.id)
    assert forget(ledger) == 0


def test_what_is_young_stays(ledger: Ledger, clock: Clock) -> None:
    """A job that ended within the time to keep stays, however many came after it; so do the latest, however old."""
    clock.now = NOW - timedelta(days=89)
    young = done(ledger)
    clock.now = LONG_AGO
    old = [done(ledger) for _ in range(3)]

    assert forget(ledger) == 1
    assert ids(ledger) == [young.id, old[1].id, old[2].id]


def test_what_is_not_done_stays(ledger: Ledger) -> None:
    """A job that has not ended is never forgotten, in whatever state it is, nor the job that it belongs to."""
    parent = done(ledger)
    made = [ledger.add(NewJob(task="t", parent=parent.id if n == 0 else None))[0] for n in range(5)]
    for number, state in enumerate((State.QUEUED, State.RUNNING, State.BLOCKED, State.QUARANTINED)):
        with ledger._db.write("prune") as connection:
            values = {"state": state.value, "finished_at": LONG_AGO}
            connection.execute(update(jobs).where(jobs.c.id == made[number].id).values(values))
    latest = [done(ledger), done(ledger)]
    ledger.cancel(made[4].id)

    assert forget(ledger) == 1
    assert ids(ledger) == [parent.id, *(job.id for job in made[:4]), *(job.id for job in latest)]


def test_what_something_depends_on_stays(ledger: Ledger) -> None:
    """Kept are jobs of watched files, jobs that wrote into a folder of yours, and those with provenance."""
    kept = [
        done(ledger, seen=(Path("/in"), "file")),
        done(ledger, NewJob(task="t", placement=Placement(directory=Path("/out")))),
        done(ledger, NewJob(task="t", placement=Placement(input=Path("/in/x")))),
        done(ledger, NewJob(task="t", provenance=True)),
    ]
    gone = done(ledger, NewJob(task="t", provenance=False, placement=Placement(stem="x")))
    latest = [done(ledger), done(ledger)]

    assert forget(ledger) == 1
    assert ids(ledger) == [job.id for job in (*kept, *latest)]
    assert ledger.seen(Path("/in"), "file") == kept[0].id
    assert gone.id not in ids(ledger)


def test_a_schedules_latest_jobs_stay_and_no_time_comes_twice(ledger: Ledger, clock: Clock) -> None:
    """Of a schedule the jobs of the twenty latest times stay; that a time became a job is never forgotten."""
    book = ScheduleBook(ledger)
    book.add(Standing(name="s", origin="added", definition={}, fingerprint="f", anchor=LONG_AGO))

    def decide(_situation: Situation) -> Step:
        return Step(next_at=clock.now, take=((clock.now, "on-time"),), job=make)

    def make(fire: Fire) -> NewJob:
        return NewJob(task="t", params={"at": str(fire.at)})

    made = []
    for _ in range(23):
        clock.now += timedelta(minutes=1)
        (job,) = book.turn("s", decide).created
        claimed = ledger.claim(job.id, "me")
        assert claimed is not None
        ledger.finish(job.id, claimed.fence, {}, [])
        made.append(job)

    assert forget(ledger) == 3
    assert ids(ledger) == [job.id for job in made[3:]]
    times = [LONG_AGO + timedelta(minutes=n + 1) for n in range(23)]
    assert book.known("s", times) == set(times)


def test_a_key_is_known_as_long_as_its_job(ledger: Ledger) -> None:
    """The key of a job that is kept gives that job; once it is forgotten, the key is free, and its number is not."""
    new = NewJob(task="t", idempotency_key="k")
    old = done(ledger, new)
    assert ledger.add(new) == (old, False)
    done(ledger)
    done(ledger)
    forget(ledger)

    again, created = ledger.add(new)

    assert created
    assert again.seq > old.seq + 2


def test_one_step_has_a_bound_and_the_space_is_used_again(ledger: Ledger, tmp_path: Path) -> None:
    """Jobs go a few at a time, the oldest first, and as many new ones do not make the file larger."""
    large = NewJob(task="t", params={"text": "x" * 50_000})
    for _ in range(12):
        done(ledger, large)

    assert [forget(ledger, most=4) for _ in range(4)] == [4, 4, 2, 0]
    ledger.close()
    path = tmp_path / "ledger.sqlite3"
    before, again = path.stat().st_size, Ledger(path)
    for _ in range(9):
        done(again, large)
    again.close()
    assert path.stat().st_size <= before


DIE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from jobs import pruning
from jobs.ledger import Ledger
pruning.LEAST = 2
pruning.Pruning(Ledger(Path(sys.argv[1]))).forget(before=datetime(2026, 6, 1, tzinfo=UTC), keep=0)
"""


@pytest.mark.parametrize(("moment", "gone"), [("commit", 0), ("committed", 8)])
def test_a_death_in_the_middle_forgets_all_or_nothing(ledger: Ledger, tmp_path: Path, moment: str, gone: int) -> None:
    """Killed before the commit nothing is forgotten, after it everything is; the file is whole either way."""
    made = [done(ledger).id for _ in range(10)]
    ledger.close()
    path = tmp_path / "ledger.sqlite3"
    environ = {**os.environ, "MLXD_FAILPOINTS": f"ledger.prune.{moment}=kill"}

    died = subprocess.run([sys.executable, "-c", DIE, str(path)], env=environ, check=False)

    assert died.returncode == -signal.SIGKILL
    again = Ledger(path)
    assert ids(again) == made[gone:]
    again.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
