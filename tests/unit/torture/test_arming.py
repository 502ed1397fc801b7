"""Which failpoints are armed, and what is noticed of their firing."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any, cast

from torture import arming
from torture.arming import Armed
from torture.history import History, read
from torture.launchsim import Supervisor

from jobs.failpoints import NAMES, parse


class Launchd:
    """Notes what it is told to kill."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def kill(self, sig: int) -> None:
        self.killed.append(sig)


def watched(tmp_path: Path, points: dict[str, int], fired: list[str], seconds: float = 5.0) -> tuple[Any, ...]:
    """Let *fired* fire at the first scene; return what was missing, the kills and the history."""
    history, launchd = History(tmp_path / "history"), Launchd()
    armed = Armed(tmp_path / "marks", points, random.Random(3))

    def scenes(_missing: object) -> None:
        for name in fired:
            (tmp_path / "marks" / name).touch()

    missing = armed.watch(cast("Supervisor", launchd), history, scenes, seconds=seconds)
    history.close()
    return missing, launchd.killed, [line["name"] for line in read(history.path)]


def test_neighbouring_seeds_share_out_all_names() -> None:
    """Eight dozens have every one of the 92 failpoints in them, and a seed always has the same dozen."""
    dozens = [arming.share(number, 12) for number in range(-(-len(NAMES) // 12))]

    assert set().union(*dozens) == set(NAMES)
    assert all(len(set(dozen)) == 12 for dozen in dozens)
    assert arming.share(3, 12) == dozens[3]


def test_what_is_armed_can_be_read_by_the_program(tmp_path: Path) -> None:
    """Every name is armed for one of its first times, in the words that mlxd understands."""
    points = arming.arm(NAMES, random.Random(1))
    armed = Armed(tmp_path / "marks", points, random.Random(1))

    assert set(points) == set(NAMES)
    assert {name: point.nth for name, point in parse(armed.environ["MLXD_FAILPOINTS"]).items()} == points
    assert points["start.locked"] == points["drain.closed"] == 1


def test_every_firing_is_told(tmp_path: Path) -> None:
    """When all have fired nothing is missing, and the history has each."""
    assert watched(tmp_path, {"hint.put": 1, "job.done": 2}, ["hint.put", "job.done"]) == (
        set(),
        [],
        ["hint.put", "job.done"],
    )


def test_what_never_fires_is_missing(tmp_path: Path) -> None:
    """A failpoint that nothing leads to is no success."""
    missing, _, told = watched(tmp_path, {"hint.put": 1, "job.done": 2}, ["hint.put"], seconds=0.1)

    assert (missing, told) == ({"job.done"}, ["hint.put"])


def test_a_runners_death_may_be_followed_by_the_daemons(tmp_path: Path) -> None:
    """Of the failpoints in a runner some kill the daemon in the same moment."""
    points = dict.fromkeys(arming.IN_RUNNERS, 1)
    _, killed, told = watched(tmp_path, points, list(points))

    assert told == sorted(points)
    assert set(killed) == {signal.SIGKILL}
