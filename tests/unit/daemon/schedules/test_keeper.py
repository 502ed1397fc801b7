"""The keeper's thread: it wakes when told, tells of a sleep, and survives a surprise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes_schedules import Calendar, a_schedule, utc

from daemon.schedules.office import ScheduleOffice
from daemon.schedules.wake import Jump
from jobs.model import Job, Source

DEADLINE_S = 20


@pytest.fixture(name="calendar")
def _calendar(tmp_path: Path) -> Iterator[Calendar]:
    calendar = Calendar(tmp_path, utc("2026-11-16T12:30"))
    yield calendar
    calendar.keeper.stop()
    calendar.close()


def test_the_thread_wakes_for_news(calendar: Calendar) -> None:
    """A schedule that is added while the thread sleeps is kept at once, and so is a job's end."""
    calendar.keeper.start([a_schedule(overlap="queue")])
    fired = threading.Semaphore(0)
    calendar.doors.announced = _Told(fired)
    calendar.bench.clock.advance(1800)
    calendar.desk.add(a_schedule(name="other"))
    assert fired.acquire(timeout=DEADLINE_S), "waking made it see the time"

    calendar.bench.clock.advance(3600)
    calendar.keeper.wake()
    assert fired.acquire(timeout=DEADLINE_S), "the other one fires"
    calendar.work()
    calendar.keeper.job_ended(calendar.jobs()[0].model_copy(update={"state": "succeeded"}))
    assert fired.acquire(timeout=DEADLINE_S), "the second time waited for the first one's job"


class _Told(list[Job]):
    def __init__(self, told: threading.Semaphore) -> None:
        super().__init__()
        self._told = told

    def append(self, job: Job) -> None:
        super().append(job)
        self._told.release()


def test_other_jobs_ends_do_not_wake_it(calendar: Calendar) -> None:
    """Only the end of a schedule's job is news."""
    calendar.desk.add(a_schedule())
    calendar.live(timedelta(hours=1))
    job = calendar.jobs()[0]
    calendar.keeper._woken = False
    calendar.keeper.job_ended(job.model_copy(update={"source": Source(kind="cli")}))
    assert not calendar.keeper._woken
    calendar.keeper.job_ended(job)
    assert calendar.keeper._woken


def test_a_definition_nobody_understands_harms_no_other(calendar: Calendar) -> None:
    """One that another version wrote is listed with what is wrong; the others fire."""
    calendar.desk.add(a_schedule())
    strange = calendar.book.get("s").model_copy(update={"name": "strange", "definition": {"name": "strange"}})
    calendar.book.add(strange)
    calendar.live(timedelta(hours=1))

    assert len(calendar.times("s")) == 1
    assert "cannot be understood" in calendar.desk.problems()[0]
    assert calendar.desk.show("strange").definition is None
    calendar.desk.remove("strange")


def test_a_surprise_harms_no_other(calendar: Calendar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that raises what nobody foresaw is told of; the others fire."""
    calendar.desk.add(a_schedule(name="a"))
    calendar.desk.add(a_schedule(name="b"))
    plain = ScheduleOffice.job
    monkeypatch.setattr(
        ScheduleOffice, "job", lambda self, one, fire: 1 / 0 if one.name == "a" else plain(self, one, fire)
    )
    calendar.live(timedelta(minutes=31))

    assert (calendar.times("a"), len(calendar.times("b"))) == ([], 1)
    assert "ZeroDivisionError" in calendar.desk.problems()[0]


def test_waking_looks_around_on_a_thread_of_its_own(calendar: Calendar) -> None:
    """Everything that a sleep may have changed is looked at, once, in order, without holding up the caller."""
    looked, done = [], threading.Event()
    office = ScheduleOffice(
        calendar.doors,
        results=calendar.folder,
        limit=lambda: 1,
        stop=lambda job_id: None,
        on_wake=(lambda: looked.append(threading.current_thread()), done.set),
    )
    office.woke(Jump(100.0))
    assert done.wait(DEADLINE_S)
    assert len(looked) == 1
    assert looked[0] is not threading.current_thread()


def test_a_reload_counts_at_once(calendar: Calendar) -> None:
    """The configuration's new schedules are kept, and the thread is told."""
    calendar.keeper.reconfigure([a_schedule(name="new")])
    assert calendar.keeper._woken
    assert [one.name for one in calendar.desk.all()] == ["new"]


def test_a_ledger_that_cannot_be_read(calendar: Calendar) -> None:
    """The keeper tries again soon instead of ending."""
    calendar.desk.add(a_schedule())
    calendar.bench.ledger.close()
    assert 0 < calendar.keeper.turn() <= 5
