"""The checker of watched folders: what it lets pass, and what it does not."""

from __future__ import annotations

import hashlib
import math
import random
from pathlib import Path

import pytest
from torture.watch_verdict import Taken, WatchVerdict, judge
from torture.watched_disk import Rest, WatchedDisk


def rest(*, counts: bool = True, size: int = 1, began: float = 0.0, until: float = math.inf) -> Rest:
    return Rest("/in/a", "d", size, counts, began, began, until, until)


def took(at: float, *, digest: str | None = "d", read: str = "d", aside: tuple[float, float] | None = None) -> Taken:
    return Taken("/in/a", digest, read, at, aside)


def verdict(rests: list[Rest], *taken: Taken) -> WatchVerdict:
    return judge(rests, taken, hold=1.0, grace=5.0)


def test_a_settled_file_taken_once_in_time_is_right() -> None:
    """Nothing is said of it."""
    found = verdict([rest()], took(3.0))
    assert (found.expected, found.lost, found.doubled, found.broken) == (1, [], [], [])
    assert found.waits == [3.0]


@pytest.mark.parametrize(
    ("kind", "rests", "taken"),
    [
        ("lost", [rest()], []),
        ("lost", [rest(until=6.0)], []),
        ("doubled", [rest()], [took(2.0), took(3.0)]),
        ("partial", [rest()], [took(0.9)]),
        ("partial", [rest(size=0)], [took(9.0)]),
        ("partial", [rest()], [took(2.0, read="other")]),
        ("partial", [rest()], [took(2.0), took(3.0, digest="x", read="x")]),
        ("partial", [rest()], [took(2.0, aside=(2.5, 3.0))]),
        ("excluded", [rest(counts=False)], [took(2.0)]),
        ("excluded", [rest(until=3.0)], [took(4.0)]),
        ("late", [rest()], [took(6.1)]),
    ],
)
def test_what_is_wrong_is_found(kind: str, rests: list[Rest], taken: list[Taken]) -> None:
    """Each kind of mistake, and no other."""
    found = verdict(rests, *taken)
    kinds = ("lost", "doubled", "partial", "excluded", "late")
    assert [one for one in kinds if getattr(found, one)] == [kind]


@pytest.mark.parametrize("until", [2.1, 2.7])
def test_a_job_may_end_unread_whose_content_was_gone(until: float) -> None:
    """Before it began, or while it ran; who claims that of a content that lay there all the time is found, above."""
    found = verdict([rest(until=until)], took(2.0, aside=(2.5, 3.0)))
    assert (found.lost, found.doubled, found.broken) == ([], [], [])


def test_what_did_not_lie_there_for_long_may_be_taken_and_need_not() -> None:
    """Between settling and the last moment for a rescan both are right."""
    for taken in ([], [took(2.0)]):
        found = verdict([rest(until=4.0)], *taken)
        assert (found.expected, found.lost, found.broken) == (0, [], [])


def test_the_disk_remembers_what_lay_where_and_when(tmp_path: Path) -> None:
    """A rename ends one rest and begins another; a file of another name in between does not count."""
    now = [0.0]
    disk = WatchedDisk(tmp_path / "in", tmp_path / "out", clock=lambda: now[0], chance=random.Random(1))
    path, other = disk.root / "a.part", disk.root / "sub" / "a"
    disk.write(path, b"half", counts=False)
    now[0] = 2.0
    disk.move(path, other)
    now[0] = 5.0
    disk.delete(other)
    first, second = disk.rests
    assert (first.path, first.counts, first.began, first.until) == (str(path), False, 0.0, 2.0)
    assert (second.path, second.counts, second.began, second.until) == (str(other), True, 2.0, 5.0)
    assert second.digest == hashlib.sha256(b"half").hexdigest()
    assert [change.kind for change in disk.told()] == ["created", "moved", "deleted"]
