"""Schedules over the socket and with `mlxd schedule`: the real desk and ledger behind a real socket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes_schedules import Calendar, a_schedule, utc
from fakes_socket import FakeService, serving

from daemon.cli import main as cli
from daemon.cli.console import Exit
from daemon.cli.transport import Transport
from jobs.errors import InvalidRequest, ScheduleConflict, ScheduleNotFound

Mlxd = Callable[..., tuple[int, str, str]]


class WithSchedules(FakeService):
    """A service whose schedules are real."""

    def __init__(self, calendar: Calendar) -> None:
        super().__init__()
        self._calendar = calendar

    @property
    def schedules(self) -> Any:
        return self._calendar.desk


@pytest.fixture(name="calendar")
def _calendar(tmp_path: Path) -> Iterator[Calendar]:
    calendar = Calendar(tmp_path, utc("2026-11-16T12:30"))
    calendar.roster.sync([a_schedule(name="conf", cron="0 3 * * *", timezone="Europe/Berlin")])
    yield calendar
    calendar.close()


@pytest.fixture(name="socket")
def _socket(calendar: Calendar) -> Iterator[Path]:
    with serving(WithSchedules(calendar)) as path:
        yield path


@pytest.fixture(name="mlxd")
def _mlxd(socket: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mlxd:
    monkeypatch.setenv("MLXD_HOME", str(socket.parent.parent))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["schedule", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def told(mlxd: Mlxd, *arguments: str) -> Any:
    status, out, err = mlxd(*arguments, "--json")
    assert (status, err) == (Exit.OK, "")
    return json.loads(out)


def test_a_schedules_life(mlxd: Mlxd, calendar: Calendar) -> None:
    """Add, list, next, run, pause, resume, show, remove: each answers, for people and as JSON."""
    options = ("--every", "90m", "--catch-up", "all", "--overlap", "queue", "--param", "text=hi", "--output", "/out")
    added = told(mlxd, "add", "mine", "noop", *options)
    assert (added["name"], added["origin"], added["when"]) == ("mine", "added", "every 1h30m")
    assert added["due_at"] == "2026-11-16T14:00:00Z"
    assert [one["name"] for one in told(mlxd, "list")] == ["conf", "mine"]
    assert told(mlxd, "next", "mine", "2") == ["2026-11-16T14:00:00Z", "2026-11-16T15:30:00Z"]

    job = told(mlxd, "run", "mine")
    assert (job["params"], job["lane"], job["placement"]["directory"]) == ({"text": "hi"}, "batch", "/out")
    assert told(mlxd, "pause", "mine")["state"] == "paused"
    assert told(mlxd, "resume", "mine")["state"] == "active"
    calendar.live(timedelta(hours=2))
    shown = told(mlxd, "show", "mine")
    assert (shown["definition"]["catch_up"], shown["definition"]["overlap"]) == ("all", "queue")
    assert [fire["kind"] for fire in shown["fires"]] == ["on-time", "manual"]
    assert len(shown["upcoming"]) == 5
    assert told(mlxd, "remove", "mine") == {"removed": "mine"}
    assert [one["name"] for one in told(mlxd, "list")] == ["conf"]


def test_what_people_read(mlxd: Mlxd, calendar: Calendar) -> None:
    """Times are in the schedule's zone; what was missed stands there with its reason."""
    assert mlxd()[1].splitlines()[1].split()[:2] == ["conf", "0"]
    assert mlxd("next", "conf", "1")[1] == "Tue 2026-11-17 03:00:00 CET\n"
    calendar.sleep(timedelta(days=3))
    status, out, _ = mlxd("show", "conf")

    assert status == Exit.OK
    assert "0 3 * * * (Europe/Berlin)" in out
    assert "Thu 2026-11-19 03:00:00 CET  catch-up" in out
    assert "Tue 2026-11-17 03:00:00 CET to Wed 2026-11-18 03:00:00 CET  2" in out
    assert "the computer slept; one job stands for all" in out
    assert "in the configuration" in out


def test_backfill(mlxd: Mlxd, calendar: Calendar) -> None:
    """A past span is made good, once."""
    span = ("--from", "2026-11-10T00:00+01:00", "--to", "2026-11-12T12:00+01:00")
    assert told(mlxd, "backfill", "conf", *span) == {"inserted": 3, "known": 0}
    assert told(mlxd, "backfill", "conf", *span) == {"inserted": 0, "known": 3}
    calendar.live(timedelta(minutes=1))
    assert calendar.times("conf") == [utc(f"2026-11-{day}T02:00") for day in (10, 11, 12)]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("show", "none"), Exit.REFUSED, "There is no schedule 'none'"),
        (("remove", "conf"), Exit.REFUSED, "mlxd schedule pause conf"),
        (("add", "conf", "noop", "--every", "1h"), Exit.REFUSED, "already"),
        (("add", "x", "noop"), Exit.REFUSED, "exactly one of cron, every and at; given: none"),
        (("add", "x", "noop", "--cron", "0 0 31 2 *"), Exit.REFUSED, "cron expression"),
        (("add", "x", "noop", "--every", "1h", "--timezone", "Mars/Base"), Exit.REFUSED, "a time zone such as"),
        (("add", "x", "nothing", "--every", "1h"), Exit.REFUSED, "no task nothing"),
        (("add", "x", "batch", "-", "--every", "1h"), Exit.USAGE, "standard input"),
        (("backfill", "conf", "--from", "yesterday"), Exit.USAGE, "write 2026-11-01"),
        (("backfill", "conf", "--from", "2026-11-10", "--to", "2026-11-01"), Exit.REFUSED, "before the start"),
    ],
)
def test_refusals(mlxd: Mlxd, arguments: tuple[str, ...], status: int, said: str) -> None:
    """Each mistake has its status and one sentence that says what is wanted."""
    got, out, err = mlxd(*arguments)
    assert (got, out) == (status, "")
    assert said in err


def test_statuses_over_http(socket: Path) -> None:
    """201 for what is new, 204 for what is gone, problems with their slugs."""
    ask = Transport(socket)
    status, _ = ask.fetch("POST", "/v1/schedules", body={"name": "n", "task": "noop", "cron": "@daily"})
    assert status == 201
    assert ask.fetch("DELETE", "/v1/schedules/n") == (204, b"")
    with pytest.raises(ScheduleNotFound):
        ask.ask("GET", "/v1/schedules/n")
    with pytest.raises(ScheduleConflict):
        ask.ask("DELETE", "/v1/schedules/conf")
    for wrong in ({"output": "relative"}, {"params": {"x": "\ud800"}}, {"limit": 0}, {"nonsense": 1}):
        with pytest.raises(InvalidRequest):
            ask.ask("POST", "/v1/schedules", body={"name": "n", "task": "noop", "cron": "@daily", **wrong})
