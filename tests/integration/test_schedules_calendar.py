"""Schedules in a daemon of real parts and injected time: days pass, the lid closes, the power goes, clocks are set."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fakes_jobs import Disk
from fakes_schedules import Calendar, a_schedule, utc

from daemon.schedules.timing import times
from jobs.errors import InvalidParams, InvalidRequest, ScheduleConflict, ScheduleNotFound, UnknownTask
from jobs.ledger import Ledger
from jobs.model import State
from jobs.schedules import ScheduleBook

START = utc("2026-11-16T12:30")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(name="calendar")
def _calendar(tmp_path: Path) -> Iterator[Calendar]:
    calendar = Calendar(tmp_path, START)
    yield calendar
    calendar.close()


def hours(*offsets: int) -> list:
    """Return the whole hours after START, the first being number 1."""
    return [utc("2026-11-16T12:00") + offset * HOUR for offset in offsets]


def test_a_day_by_the_hour(calendar: Calendar) -> None:
    """Awake, every time becomes one job at its very second; the job says when and of which schedule it is."""
    calendar.desk.add(a_schedule(params={"text": "x"}, timezone="Europe/Berlin"))
    calendar.live(DAY)

    assert calendar.times("s") == hours(*range(1, 25))
    jobs = calendar.jobs()
    assert [job.created_at for job in jobs] == hours(*range(1, 25))
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert (jobs[0].source.kind, jobs[0].source.rule) == ("schedule", "s")
    assert jobs[0].source.detail == "2026-11-16T14:00:00+01:00"
    assert jobs[0].placement.directory == calendar.folder / "results" / "schedule-s"
    assert jobs[0].placement.stem == "2026-11-16_14-00"
    assert [job.id for job in calendar.doors.announced] == [job.id for job in jobs]
    assert calendar.desk.show("s").missed == ()


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("Europe/Berlin", "2026-03-28", "2026-03-30"),
        ("Europe/Berlin", "2026-10-24", "2026-10-26"),
        ("America/New_York", "2026-03-07", "2026-03-09"),
        ("America/New_York", "2026-10-31", "2026-11-02"),
        ("Australia/Lord_Howe", "2026-10-03", "2026-10-05"),
        ("Australia/Lord_Howe", "2026-04-04", "2026-04-06"),
    ],
)
def test_changes_of_the_clocks(tmp_path: Path, zone: str, first: str, last: str) -> None:
    """Over each change a daily schedule has one job a calendar day, one by the half hour has 96 in 48 hours."""
    calendar = Calendar(tmp_path, utc(first))
    calendar.desk.add(a_schedule(name="daily", cron="15 2 * * *", timezone=zone))
    calendar.desk.add(a_schedule(name="half", cron="*/30 * * * *", timezone=zone))
    calendar.live(utc(last) - utc(first))

    local = [time.astimezone(ZoneInfo(zone)).date() for time in calendar.times("daily")]
    assert len(local) == len(set(local)) == 2
    found = calendar.times("half")
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=30)}
    assert len(found) == 96
    calendar.close()


@pytest.mark.parametrize("away", ["asleep", "off"])
@pytest.mark.parametrize(
    ("policy", "ran", "missed"),
    [("skip", [], 72), ("once", [72], 71), ("all", [69, 70, 71, 72], 68)],
)
def test_three_days_away(calendar: Calendar, away: str, policy: str, ran: list[int], missed: int) -> None:
    """Three days asleep or off: no job, one for all, or the last few in turn; the rest is told as missed."""
    calendar.desk.add(a_schedule(catch_up=policy, limit=4))
    if away == "asleep":
        calendar.sleep(3 * DAY)
    else:
        calendar.off(3 * DAY)
    calendar.live(timedelta(minutes=10))

    assert calendar.times("s") == hours(*ran)
    assert [job.created_at for job in calendar.jobs()] == [START + 3 * DAY] * len(ran)
    told = calendar.desk.show("s").missed
    assert sum(miss.count for miss in told) == missed
    assert (told[0].first, told[0].last) == (hours(1)[0], hours(missed)[0])
    assert ("the computer slept" if away == "asleep" else "mlxd did not run") in told[0].reason
    assert calendar.woke == (1 if away == "asleep" else 0)

    calendar.live(HOUR)
    assert calendar.times("s") == hours(*ran, 73), "then it goes on as ever"


def test_the_window(calendar: Calendar) -> None:
    """What was missed longer ago than the window is not caught up, and the reason says so."""
    calendar.desk.add(a_schedule(cron="0 3 * * MON", catch_up_window="2d"))
    calendar.off(11 * DAY)
    calendar.live(HOUR)

    assert calendar.times("s") == []
    assert "longer ago than catch_up_window" in calendar.desk.show("s").missed[0].reason


def test_a_short_nap_misses_nothing(calendar: Calendar) -> None:
    """A time that is met within a minute is met, also under skip; nothing is told as missed."""
    calendar.desk.add(a_schedule(catch_up="skip"))
    calendar.live(timedelta(minutes=29, seconds=50))
    calendar.sleep(timedelta(seconds=50))
    calendar.live(timedelta(minutes=1))

    assert calendar.times("s") == hours(1)
    assert calendar.desk.show("s").missed == ()


def test_a_year_off_by_the_second(calendar: Calendar) -> None:
    """31 million missed times neither hang the daemon nor fill the ledger."""
    calendar.desk.add(a_schedule(every="1s", catch_up="all", limit=5))
    calendar.off(365 * DAY)

    told = calendar.desk.show("s").missed
    assert len(calendar.book.fires("s", 100)) == 5
    assert len(told) == 1
    assert told[0].first == START + timedelta(seconds=1)


def test_jobs_that_run_are_left_alone_by_a_wake(calendar: Calendar) -> None:
    """A sleep takes no running job back: it has its claim, its attempt and its owner as before."""
    calendar.desk.add(a_schedule())
    calendar.live(HOUR, work=False)
    job = calendar.bench.ledger.claim(calendar.jobs()[0].id, "me")
    assert job is not None
    calendar.sleep(3 * DAY)

    assert calendar.bench.ledger.get(job.id) == job
    assert calendar.stopped == []


def test_a_clock_set_back_fires_nothing_twice(calendar: Calendar) -> None:
    """An hour back, the hour's time is not done again; far ahead and back, the schedule does not fall silent."""
    calendar.desk.add(a_schedule())
    calendar.live(HOUR)
    calendar.bench.clock.now -= HOUR
    calendar.live(2 * HOUR)
    assert calendar.times("s") == hours(1, 2)

    calendar.bench.clock.now += 1000 * DAY
    calendar.live(timedelta(minutes=1))
    assert len(calendar.times("s")) == 3
    calendar.bench.clock.now -= 1000 * DAY
    calendar.live(HOUR)
    assert calendar.times("s")[:3] == hours(1, 2, 3)
    assert len(calendar.jobs()) == 4


def test_what_was_taken_before_the_clock_was_set_back_takes_no_place(calendar: Calendar) -> None:
    """Of times that come a second time, the latest that became no job are caught up with, up to the limit."""
    calendar.desk.add(a_schedule(catch_up="all", limit=2))
    calendar.sleep(4 * HOUR)
    calendar.live(timedelta())
    assert calendar.times("s") == hours(3, 4)
    calendar.sleep(-4 * HOUR)
    calendar.live(timedelta())
    calendar.sleep(4 * HOUR)
    calendar.live(timedelta())

    assert calendar.times("s") == hours(1, 2, 3, 4)


def test_an_interval_from_the_future(calendar: Calendar) -> None:
    """Defined while the clock was years ahead, it counts afresh when the clock is put right."""
    calendar.bench.clock.now += 1000 * DAY
    calendar.keeper.turn()
    calendar.desk.add(a_schedule(every="1h"))
    calendar.bench.clock.now -= 1000 * DAY
    calendar.live(2 * HOUR)

    assert calendar.times("s") == [START + HOUR, START + 2 * HOUR]


def test_overlap_skip(calendar: Calendar) -> None:
    """While its job is not done, times pass; neighbours are told together, with the job's id."""
    calendar.desk.add(a_schedule())
    calendar.live(4 * HOUR, work=False)

    assert calendar.times("s") == hours(1)
    (told,) = calendar.desk.show("s").missed
    assert (told.first, told.last, told.count) == (*hours(2, 4), 3)
    assert told.reason == f"job {calendar.jobs()[0].id} was queued; overlap is skip"


def test_overlap_queue(calendar: Calendar) -> None:
    """Each time's job comes when the one before has ended, also across a restart."""
    calendar.desk.add(a_schedule(overlap="queue"))
    calendar.live(3 * HOUR, work=False)
    assert (len(calendar.jobs()), calendar.desk.all()[0].waiting) == (1, 2)
    calendar.off(timedelta(seconds=1))
    assert len(calendar.jobs()) == 1

    for count in (2, 3):
        calendar.work()
        calendar.keeper.turn()
        assert [job.state for job in calendar.jobs()] == [State.SUCCEEDED] * (count - 1) + [State.QUEUED]
    assert calendar.times("s") == hours(1, 2, 3)


def test_overlap_cancel_running(calendar: Calendar) -> None:
    """The job that runs is asked to stop; the new one comes when it has."""
    calendar.desk.add(a_schedule(overlap="cancel-running"))
    calendar.live(HOUR, work=False)
    first = calendar.bench.ledger.claim(calendar.jobs()[0].id, "me")
    assert first is not None
    calendar.live(2 * HOUR, work=False)
    assert calendar.stopped == [first.id, first.id]
    assert len(calendar.jobs()) == 1

    calendar.bench.ledger.cancelled(first.id, first.fence)
    calendar.keeper.turn()
    assert [job.state for job in calendar.jobs()] == [State.CANCELLED, State.QUEUED]
    assert calendar.times("s") == hours(1, 3)
    calendar.live(HOUR, work=False)
    assert [job.state for job in calendar.jobs()] == [State.CANCELLED, State.CANCELLED, State.QUEUED]


def test_quarantine_is_not_in_the_way(calendar: Calendar) -> None:
    """A job that was put aside does not keep its schedule from going on."""
    calendar.desk.add(a_schedule())
    calendar.live(HOUR, work=False)
    job = calendar.bench.ledger.claim(calendar.jobs()[0].id, "me")
    calendar.bench.ledger.crash(job.id, job.fence, _error(), limit=1)
    calendar.live(HOUR)

    assert calendar.times("s") == hours(1, 2)


def _error():
    from jobs.model import ErrorInfo

    return ErrorInfo(type="x", message="x")


def test_jitter(calendar: Calendar) -> None:
    """Each time is put off by the same amount that `next` promised, and never beyond the following time."""
    calendar.desk.add(a_schedule(jitter="50m"))
    promised = calendar.desk.next("s", 5).times
    calendar.live(6 * HOUR)

    assert [job.created_at for job in calendar.jobs()][:5] == list(promised)
    assert calendar.times("s")[:5] == hours(1, 2, 3, 4, 5)
    assert len({time.minute for time in promised}) > 2
    calendar.desk.add(a_schedule(name="wild", every="60s", jitter="1d"))
    calendar.live(HOUR)
    assert len(calendar.times("wild")) >= 59


def test_pause_and_resume(calendar: Calendar) -> None:
    """What passes while it rests is neither met nor missed; the rest outlives a restart and a reload."""
    configured = a_schedule(name="c")
    calendar.roster.sync([configured])
    calendar.desk.pause("c")
    calendar.live(3 * HOUR)
    calendar.off(3 * HOUR, configured)
    calendar.live(HOUR)
    assert calendar.desk.show("c").state == "paused"
    assert calendar.times("c") == []

    calendar.desk.resume("c")
    calendar.live(HOUR)
    assert calendar.times("c") == hours(8)
    assert calendar.desk.show("c").missed == ()


def test_the_configuration_comes_and_goes(calendar: Calendar) -> None:
    """A changed timing counts from now; what is gone is forgotten; an unchanged one keeps its missed times."""
    calendar.roster.sync([a_schedule(name="a"), a_schedule(name="b", every="1h")])
    calendar.off(5 * HOUR, a_schedule(name="a", cron="0 0 * * *"), a_schedule(name="b", every="1h"))
    calendar.live(timedelta(minutes=1))
    assert calendar.times("a") == []
    assert len(calendar.times("b")) == 1
    calendar.roster.sync([a_schedule(name="b", every="1h", enabled=False)])
    calendar.live(DAY)
    assert [one.name for one in calendar.desk.all()] == ["b"]
    assert (calendar.desk.show("b").state, len(calendar.times("b"))) == ("disabled", 1)
    calendar.roster.sync([a_schedule(name="b", every="1h")])
    calendar.live(timedelta(minutes=1))
    assert len(calendar.times("b")) == 1, "what passed while it was off is not missed"
    with pytest.raises(ScheduleNotFound):
        calendar.desk.show("a")


def test_added_and_configured_names(calendar: Calendar) -> None:
    """A name is there once; one of the configuration can be paused but not removed, and takes an added one's place."""
    calendar.roster.sync([a_schedule(name="c")])
    calendar.desk.add(a_schedule(name="a"))
    for name in ("a", "c"):
        with pytest.raises(ScheduleConflict, match="already"):
            calendar.desk.add(a_schedule(name=name))
    with pytest.raises(ScheduleConflict, match="pause c"):
        calendar.desk.remove("c")
    calendar.live(HOUR)
    calendar.desk.remove("a")
    assert [one.name for one in calendar.desk.all()] == ["c"]
    assert len(calendar.jobs()) == 2, "its jobs stay"

    calendar.desk.add(a_schedule(name="d"))
    calendar.roster.sync([a_schedule(name="c"), a_schedule(name="d")])
    assert [one.origin for one in calendar.desk.all()] == ["config", "config"]


def test_a_template_that_does_not_work(calendar: Calendar) -> None:
    """Refused when added; in the configuration a problem that harms nobody else, and over once it is mended."""
    with pytest.raises(UnknownTask):
        calendar.desk.add(a_schedule(task="nothing"))
    with pytest.raises(InvalidParams):
        calendar.desk.add(a_schedule(params={"wrong": 1}))
    with pytest.raises(InvalidParams, match="never fire"):
        calendar.desk.add(a_schedule(at="2020-01-01T00:00"))

    calendar.roster.sync([a_schedule(name="bad", task="later"), a_schedule(name="good")])
    calendar.live(2 * HOUR)
    assert (calendar.times("bad"), calendar.times("good")) == ([], hours(1, 2))
    assert calendar.desk.problems() == ["schedule bad: no task later"]
    assert [(miss.count, miss.reason) for miss in calendar.desk.show("bad").missed] == [(2, "no task later")]

    calendar.bench.task("later", lambda ctx, params: {})
    calendar.live(HOUR)
    assert calendar.times("bad") == hours(3)
    assert calendar.desk.problems() == []


def test_a_single_time(calendar: Calendar) -> None:
    """It fires once, and then the schedule is over."""
    calendar.desk.add(a_schedule(at="2026-11-16T15:00", timezone="Europe/Berlin"))
    assert calendar.desk.next("s", 5).times == (utc("2026-11-16T14:00"),)
    calendar.live(DAY)
    calendar.off(DAY)

    assert calendar.times("s") == hours(2)
    assert (calendar.desk.show("s").state, calendar.desk.next("s", 5).times) == ("over", ())


def test_run_now(calendar: Calendar) -> None:
    """A job at once, whatever goes on; the schedule's times stay."""
    calendar.desk.add(a_schedule())
    before = calendar.desk.all()[0].next_at
    jobs = [calendar.desk.run("s") for _ in range(2)]

    assert [job.state for job in jobs] == [State.QUEUED] * 2
    assert calendar.desk.all()[0].next_at == before
    assert [fire.kind for fire in calendar.desk.show("s").fires] == ["manual"]


def test_backfill_twice_gives_no_doubles(calendar: Calendar) -> None:
    """A past span's times become jobs, those that are there already do not; a second time does nothing."""
    calendar.desk.add(a_schedule(catch_up="skip"))
    calendar.live(2 * HOUR)
    calendar.sleep(4 * HOUR)
    assert calendar.times("s") == hours(1, 2)

    first = calendar.desk.backfill("s", hours(-1)[0], hours(6)[0])
    again = calendar.desk.backfill("s", hours(-1)[0], hours(6)[0])
    assert (first.inserted, first.known, again.inserted, again.known) == (6, 2, 0, 8)
    calendar.live(timedelta(minutes=5))
    assert calendar.times("s") == hours(-1, 0, 1, 2, 3, 4, 5, 6)
    assert len(calendar.jobs()) == 8
    with pytest.raises(InvalidRequest, match="future"):
        calendar.desk.backfill("s", hours(0)[0], hours(50)[0])
    with pytest.raises(InvalidRequest, match="1000"):
        calendar.desk.backfill("s", utc("2020-01-01"), hours(0)[0])


def test_backfill_of_an_interval_keeps_its_grid(calendar: Calendar) -> None:
    """Times before the schedule was defined lie on the same grid as those after."""
    calendar.desk.add(a_schedule(every="2h"))
    calendar.live(2 * HOUR)
    calendar.desk.backfill("s", START - 5 * HOUR, calendar.bench.clock.now)
    calendar.live(timedelta(minutes=1))

    assert calendar.times("s") == [START + offset * HOUR for offset in (-4, -2, 0, 2)]


def test_a_full_queue_and_a_broken_disk_lose_nothing(calendar: Calendar) -> None:
    """While a job cannot be written nothing moves on and the reason is told; as soon as it can, it is."""
    calendar.desk.add(a_schedule())
    calendar.desk.add(a_schedule(name="t"))
    calendar.limit = 1
    calendar.live(timedelta(minutes=30, seconds=20), work=False)
    assert len(calendar.jobs()) == 1
    assert "1 jobs are unfinished" in calendar.desk.problems()[0]
    calendar.live(timedelta(seconds=10))
    assert (calendar.times("s"), calendar.times("t")) == (hours(1), hours(1))
    assert calendar.desk.problems() == []


def test_a_commit_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Job, fire and next time are one transaction: with the disk full none of them is written, afterwards all are."""
    disk = Disk()
    calendar = Calendar(tmp_path, START)
    calendar.desk.add(a_schedule())
    calendar.switch_off()
    calendar.switch_on()
    broken = Ledger(tmp_path / "ledger.sqlite3", clock=calendar.bench.clock, connect=disk.connect)
    calendar.book._ledger = broken
    calendar.bench.clock.advance(1800)
    disk.break_commits("SQLITE_FULL", "database or disk is full")
    pause = calendar.keeper.turn()
    disk.repair()

    assert calendar.jobs() == calendar.times("s") == []
    assert calendar.desk.all()[0].next_at == hours(1)[0]
    assert 0 < pause < 30
    calendar.keeper.turn()
    assert (len(calendar.jobs()), calendar.times("s")) == (1, hours(1))
    broken.close()
    calendar.close()


#: Lives through schedule time on the ledger of argv[1] until it is killed, or kills itself within a transaction.
CHILD = """
import os, signal, sys
from datetime import datetime, timedelta
from pathlib import Path
from fakes_schedules import Calendar
from jobs.ledger import Ledger

mode = sys.argv[3]
if mode == "inside":
    plain = Ledger.insert
    def insert(self, connection, new):
        plain(self, connection, new)
        os.kill(os.getpid(), signal.SIGKILL)
    Ledger.insert = insert
calendar = Calendar(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]))
while True:
    calendar.live(timedelta(minutes=1))
    print(calendar.bench.clock.now.isoformat(), flush=True)
"""


def _child(folder: Path, now: str, mode: str, lines: int) -> str:
    """Let a child live, kill it after so many lines at the latest; return the last time it told."""
    command = [sys.executable, "-c", CHILD, str(folder), now, mode]
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": tests}) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(lines)]
        child.kill()
        said += [line.strip() for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    return max([now, *filter(None, said)])


def test_kill_within_the_transaction(tmp_path: Path) -> None:
    """Killed after the job was inserted and before the commit: no job, no moved time; the next daemon fires once."""
    calendar = Calendar(tmp_path, START)
    calendar.desk.add(a_schedule())
    calendar.switch_off()
    _child(tmp_path, "2026-11-16T13:00:01+00:00", "inside", 1)
    calendar.now = utc("2026-11-16T13:00:02")
    calendar.switch_on()

    assert calendar.jobs() == calendar.times("s") == []
    calendar.keeper.turn()
    assert (len(calendar.jobs()), calendar.times("s")) == (1, hours(1))
    calendar.close()


@pytest.mark.slow
def test_kill_anywhere(tmp_path: Path) -> None:
    """Killed again and again at any instant: with catch-up of all, each time became exactly one job."""
    rng = random.Random(7)
    calendar = Calendar(tmp_path, START)
    calendar.desk.add(a_schedule(cron="* * * * *", catch_up="all", limit=1000))
    calendar.switch_off()
    now = START.isoformat()
    for _ in range(4):
        now = _child(tmp_path, now, "anywhere", rng.randrange(1, 30))
    calendar.now = utc(now[:19])
    calendar.switch_on()
    calendar.bench.ledger.recover("me")
    calendar.live(timedelta(minutes=2))

    fired = calendar.times("s")
    assert len(fired) == len(calendar.jobs()) > 10
    standing = ScheduleBook(calendar.bench.ledger).get("s")
    timing = a_schedule(cron="* * * * *").timing(standing.anchor)
    assert fired == list(times(timing, START, calendar.bench.clock.now))
    calendar.close()
