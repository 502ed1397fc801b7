"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.model import Lane
from plugins.lm_turns import LEAST, ONE_STEP_IN, Turns, bounds_of

INTERACTIVE, NORMAL, BATCH = Lane.INTERACTIVE, Lane.NORMAL, Lane.BATCH

#: Lane -> its bound.
BOUNDS = st.fixed_dictionaries({NORMAL: st.integers(LEAST, 12), BATCH: st.integers(LEAST, 12)})
#: Which lanes have work, step by step: as arrivals and ends make it.
WORK = st.lists(st.sets(st.sampled_from(list(Lane))), max_size=120)
#: The same, in runs: a lane that has work usually has it for a while.
RUNS = st.lists(st.tuples(st.sets(st.sampled_from(list(Lane))), st.integers(1, 30)), max_size=12).map(
    lambda runs: [lanes for lanes, steps in runs for _ in range(steps)]
)


def passed_over(work, given_to, lane) -> int:
    """Return how often in a row *lane* had work and did not get the step, at most."""
    longest = run = 0
    for lanes, chosen in zip(work, given_to, strict=True):
        run = run + 1 if lane in lanes and chosen is not lane else 0
        longest = max(longest, run)
    return longest


def test_the_most_urgent_lane_goes_first():
    """With nothing passed over, the order is that of the lanes; nobody working means nobody's turn."""
    turns = Turns()
    assert turns.next([BATCH, INTERACTIVE]) is INTERACTIVE
    assert turns.next([BATCH, NORMAL]) is NORMAL
    assert turns.next([BATCH]) is BATCH
    assert turns.next([]) is None


@given(bounds=BOUNDS, work=st.one_of(WORK, RUNS))
@example(bounds={NORMAL: LEAST, BATCH: LEAST}, work=[set(Lane)] * 60)
@example(bounds={NORMAL: 5, BATCH: 4}, work=[{INTERACTIVE, BATCH}, *[set(Lane)] * 60])
@example(bounds={NORMAL: 8, BATCH: 8}, work=[set(Lane)] * 200)
def test_no_lane_is_passed_over_beyond_its_bound(bounds, work):
    """Whatever comes when: of its bound's number of steps in a row a lane with work gets one, to the step."""
    turns = Turns(bounds)
    given_to = [turns.next(lanes) for lanes in work]
    assert all(chosen in lanes if lanes else chosen is None for lanes, chosen in zip(work, given_to, strict=True))
    for lane, bound in bounds.items():
        assert passed_over(work, given_to, lane) <= bound - 1
    assert passed_over(work, given_to, INTERACTIVE) <= 2


@given(bounds=BOUNDS, work=st.one_of(WORK, RUNS))
def test_nothing_is_given_away_without_need(bounds, work):
    """A less urgent lane gets a step only when a bound asks for it now or, two being close to theirs, right after."""
    turns = Turns(bounds)
    passed = dict.fromkeys(Lane, 0)
    for lanes in work:
        chosen = turns.next(lanes)
        ordered = [lane for lane in Lane if lane in lanes]
        if ordered and chosen is not ordered[0]:
            slacks = sorted(bounds[lane] - 1 - passed[lane] for lane in ordered[1:])
            assert slacks[0] == 0 or slacks[:2] == [1, 1]
        passed = {lane: passed[lane] + 1 if lane in lanes and lane is not chosen else 0 for lane in Lane}


def test_two_lanes_share_by_the_bound():
    """Of any eight steps the less urgent of two gets exactly one."""
    turns = Turns()
    given_to = [turns.next([NORMAL, BATCH]) for _ in range(80)]
    assert given_to.count(BATCH) == 80 / ONE_STEP_IN


def test_being_idle_saves_nothing_up():
    """A lane that had no work has not been passed over."""
    turns = Turns({BATCH: 4})
    for _ in range(20):
        turns.next([INTERACTIVE])
    assert [turns.next([INTERACTIVE, BATCH]) for _ in range(4)] == [INTERACTIVE] * 3 + [BATCH]


def test_the_bounds_of_a_model_are_in_its_options():
    """One number for both lanes, or one each; unset means the usual one."""
    assert bounds_of({}) == {}
    assert bounds_of({"one_step_in": 4}) == {NORMAL: 4, BATCH: 4}
    assert bounds_of({"one_step_in": {"batch": 100}}) == {BATCH: 100}
    for wrong in (2, True, "8", {"interactive": 8}, {"batch": 2.5}, {"night": 9}):
        with pytest.raises(ValueError, match=f"at least {LEAST}"):
            bounds_of({"one_step_in": wrong})
