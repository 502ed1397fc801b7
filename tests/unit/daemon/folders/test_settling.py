"""When a file has held still for long enough."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.folders.identity import Facts
from daemon.folders.settling import EMPTY_FACTOR, Settling

FACTS = Facts(device=1, inode=2, size=3, mtime_ns=4)


def test_a_still_file_is_due_after_the_hold() -> None:
    """Not before, and not only at, but from the deadline on."""
    settling = Settling(2.0)
    assert not settling.track("a", FACTS, 10.0)
    assert settling.next_deadline() == 12.0
    assert settling.due(11.9, 10) == []
    assert settling.due(12.0, 10) == ["a"]
    assert settling.track("a", FACTS, 12.0)


@pytest.mark.parametrize(
    "changed",
    [
        FACTS._replace(size=4),
        FACTS._replace(size=2),
        FACTS._replace(inode=9),
        FACTS._replace(device=9),
        FACTS._replace(mtime_ns=5),
        FACTS._replace(mtime_ns=10**30),
    ],
    ids=["grown", "shortened", "replaced", "another disk", "touched", "from the future"],
)
def test_any_change_starts_the_wait_again(changed: Facts) -> None:
    """Growing, shortening, replacing and touching all count, wherever the new time lies."""
    settling = Settling(2.0)
    settling.track("a", FACTS, 10.0)
    assert not settling.track("a", changed, 11.9)
    assert settling.due(12.0, 10) == []
    assert settling.next_deadline() == 13.9
    assert settling.due(13.9, 10) == ["a"]


def test_seeing_it_unchanged_does_not_start_it_again() -> None:
    """However often events speak of a file that stays as it is, its deadline stays."""
    settling = Settling(2.0)
    for now in (10.0, 10.5, 11.0, 11.9):
        settling.track("a", FACTS, now)
    assert settling.next_deadline() == 12.0


def test_an_empty_file_waits_longer() -> None:
    """A copy may just have begun; when the first bytes come the ordinary wait counts."""
    settling = Settling(2.0)
    settling.track("a", FACTS._replace(size=0), 10.0)
    assert settling.next_deadline() == 10.0 + 2.0 * EMPTY_FACTOR
    settling.track("a", FACTS, 11.0)
    assert settling.next_deadline() == 13.0


def test_no_hold_is_due_at_once() -> None:
    """A hold of nothing takes files as they come."""
    settling = Settling(0)
    assert settling.track("a", FACTS, 10.0)
    assert settling.due(10.0, 10) == ["a"]


def test_a_due_file_stays_until_it_is_forgotten() -> None:
    """Whoever asks may fail to take it."""
    settling = Settling(2.0)
    settling.track("a", FACTS, 10.0)
    assert settling.due(12.0, 10) == settling.due(12.0, 10) == ["a"]
    settling.forget("a")
    assert settling.due(12.0, 10) == []
    assert settling.next_deadline() is None
    assert len(settling) == 0
    settling.forget("a")


def test_the_longest_waiting_come_first_and_in_portions() -> None:
    """A burst is taken in order, a portion at a time."""
    settling = Settling(2.0)
    for number in range(10):
        settling.track(f"{number}", FACTS, 10.0 + number)
    assert settling.due(100.0, 3) == ["0", "1", "2"]


def test_a_file_that_changed_and_changed_back_is_due_once() -> None:
    """Entries that no longer hold do not make a file come twice."""
    settling = Settling(2.0)
    settling.track("a", FACTS, 10.0)
    settling.forget("a")
    settling.track("a", FACTS, 10.0)
    assert settling.due(12.0, 10) == ["a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(["track", "forget"]), st.floats(0, 3, width=16)
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_a_due_file_was_always_still(events: list[tuple[str, int, str, float]]) -> None:
    """Whatever happens in whatever order, what is due is exactly what was last seen changing a hold ago."""
    settling, hold, now = Settling(2.0), 2.0, 0.0
    since: dict[str, tuple[Facts, float]] = {}
    for path, size, kind, passed in events:
        now += passed
        facts = FACTS._replace(size=size + 1)
        if kind == "forget":
            settling.forget(path)
            since.pop(path, None)
        else:
            settling.track(path, facts, now)
            if path not in since or since[path][0] != facts:
                since[path] = (facts, now)
        wanted = {path for path, (_, start) in since.items() if now >= start + hold}
        assert sorted(settling.due(now, 10)) == sorted(wanted)
        starts = [start + hold for _, start in since.values()]
        assert settling.next_deadline() == (min(starts) if starts else None)
