"""Waiting for several jobs."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from daemon.cli.console import Exit
from daemon.cli.waiting_many import finish_many
from jobs.errors import DaemonUnreachable

PATIENCE = 20


class Daemon:
    """Jobs that end when they are told to."""

    def __init__(self, **ends: str) -> None:
        self.ends = ends
        self.doors = {job: threading.Event() for job in ends}
        self.gone = False

    def ask(self, method: str, target: str, *, query: Any = None, patience: float | None = None) -> dict[str, Any]:
        assert (method, target.rpartition("/")[2]) == ("GET", "wait")
        job = target.split("/")[3]
        if self.gone:
            raise DaemonUnreachable("Nobody answers.")
        over = self.doors[job].wait(min(query["timeout"], PATIENCE))
        return {"id": job, "state": self.ends[job] if over else "running"}


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def _finish(daemon: Daemon, *, first: bool = False, timeout: float | None = None, as_json: bool = False) -> Exit:
    return finish_many(daemon, list(daemon.ends), first=first, timeout=timeout, as_json=as_json)  # type: ignore[arg-type]


def test_all_are_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Each gets a line as it ends; the status is 0 only if all succeeded."""
    daemon = Daemon(a="succeeded", b="failed", c="succeeded")
    for door in daemon.doors.values():
        door.set()

    status = _finish(daemon)

    assert sorted(_lines(capsys)) == ["a succeeded", "b failed", "c succeeded"]
    assert status not in {Exit.OK, Exit.TIMEOUT}


def test_the_first_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """With the first end the waiting is over, whatever the others do."""
    daemon = Daemon(a="succeeded", b="succeeded")
    daemon.doors["b"].set()

    assert _finish(daemon, first=True, as_json=True) is Exit.OK
    assert json.loads(capsys.readouterr().out) == [{"id": "b", "state": "succeeded"}]
    daemon.doors["a"].set()


def test_the_time_may_be_up(capsys: pytest.CaptureFixture[str]) -> None:
    """A job that has not ended by then is told as it is, and the status says so."""
    daemon = Daemon(a="succeeded", b="succeeded")
    daemon.doors["a"].set()

    assert _finish(daemon, timeout=0.05) is Exit.TIMEOUT
    assert sorted(_lines(capsys)) == ["a succeeded", "b running"]


def test_a_daemon_that_went_away_is_told() -> None:
    """Waiting ends by the error that says what to do."""
    daemon = Daemon(a="succeeded", b="succeeded")
    daemon.gone = True

    with pytest.raises(DaemonUnreachable):
        _finish(daemon)
