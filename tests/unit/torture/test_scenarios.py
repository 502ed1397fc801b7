"""What the row "failpoints" takes back when it lets a home come to rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torture import scenarios
from torture.history import History


@contextmanager
def scenes(folder: Path, *, jobs: int, launchd: Any = None) -> Iterator[scenarios.Scenes]:
    """Scenes in a home whose ledger knows *jobs* that came of files."""
    home = SimpleNamespace(folder=folder, socket=folder / "socket", query=lambda _sql, _parameters=(): [(jobs,)])
    history = History(folder / "history.jsonl")
    yield scenarios.Scenes(home, history, launchd or SimpleNamespace(), random.Random(1))
    history.close()


def test_calm_takes_back_what_the_scenes_may_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule is paused, and the folder goes on that stays paused if mlxd dies between pause and resume."""
    asked = []
    monkeypatch.setattr(scenarios, "ask", lambda _socket, *request, **_options: asked.append(request) or (200, {}, b""))

    with scenes(tmp_path, jobs=0) as played:
        played.calm()

    gone = {"path": str(tmp_path / "gone")}
    assert asked == [("POST", "/v1/schedules/tick/pause"), ("POST", "/v1/folders/resume", gone)]


def test_calm_that_was_refused_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that says no is no rest: who asked tries again, as after a death."""
    monkeypatch.setattr(scenarios, "ask", lambda *_request, **_options: (503, {}, b"stopping"))

    with scenes(tmp_path, jobs=0) as played, pytest.raises(OSError, match="503"):
        played.calm()


@pytest.mark.parametrize("jobs", [0, 2, 3])
def test_files_are_untaken_until_each_has_become_a_job(tmp_path: Path, jobs: int) -> None:
    """Every file put into a watched folder counts, until the ledger knows as many jobs of files."""
    with scenes(tmp_path, jobs=jobs) as played:
        for number in range(3):
            played.files.append(tmp_path / f"file-{number}.txt")

        assert played.untaken() == 3 - jobs


class _Launchd:
    """Keeps a daemon that dies at its first stop, of the failpoint that the stop leads to."""

    def __init__(self) -> None:
        self.pid, self.asked, self.missing = 1, [], {"drain.closed"}

    def kill(self, _signal: int) -> None:
        self.asked.append(self.pid)

    def die(self) -> None:
        self.pid, self.missing = 2, set()


def test_a_stop_is_for_the_daemon_that_can_still_die_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another scene waited, the last failpoint of a stop fired: the next daemon is not stopped in its place."""
    launchd, clock = _Launchd(), iter((10.0, 20.0))
    monkeypatch.setattr(scenarios.time, "monotonic", lambda: next(clock))
    with scenes(tmp_path, jobs=0, launchd=launchd) as played:
        played._scenes = {}
        played(lambda: launchd.missing)
        assert launchd.asked == [1]

        played._scenes = {"cancel": launchd.die}
        launchd.missing = {"drain.closed", "ledger.cancel.commit"}
        played(lambda: launchd.missing)

    assert launchd.asked == [1]
