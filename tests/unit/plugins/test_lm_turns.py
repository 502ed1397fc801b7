"""Whose turn it is."""

from __future__ import annotations

from jobs.model import Lane
from plugins.lm_turns import Turns

INTERACTIVE, NORMAL, BATCH = Lane.INTERACTIVE, Lane.NORMAL, Lane.BATCH


def test_the_most_urgent_lane_goes_first():
    """With nothing passed over, the order is that of the lanes; nobody working means nobody's turn."""
    turns = Turns()
    assert turns.next([BATCH, INTERACTIVE]) is INTERACTIVE
    assert turns.next([BATCH, NORMAL]) is NORMAL
    assert turns.next([BATCH]) is BATCH
    assert turns.next([]) is None


def test_each_lane_gets_its_share():
    """Of any nine steps a lane that always has work gets at least one, and the most urgent one at least six."""
    turns = Turns(8)
    given = [turns.next(list(Lane)) for _ in range(900)]
    windows = [given[at : at + 9] for at in range(len(given) - 9)]
    assert all(set(window) == set(Lane) for window in windows)
    assert all(window.count(INTERACTIVE) >= 6 for window in windows)


def test_two_lanes_share_by_the_bound():
    """Of any eight steps the less urgent of two gets exactly one."""
    turns = Turns(8)
    given = [turns.next([NORMAL, BATCH]) for _ in range(80)]
    assert given.count(BATCH) == 10


def test_being_idle_saves_nothing_up():
    """A lane that had no work has not been passed over."""
    turns = Turns(4)
    for _ in range(20):
        turns.next([INTERACTIVE])
    assert [turns.next([INTERACTIVE, BATCH]) for _ in range(4)] == [INTERACTIVE] * 3 + [BATCH]
