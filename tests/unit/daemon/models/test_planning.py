"""The plan of a lane: jobs of one model together, and nobody overtaken beyond the bound."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.models.planning import Choice, LanePlan, Want

BOUND = 60.0
#: Seconds of a load, and of a job, in the simulation below.
LOAD, JOB = 5.0, 1.0


def choose(plan: LanePlan, line: str, opened: str = "", now: float = 0.0) -> Choice:
    """Ask *plan* about a line of one-letter needs, a dash for none, of which those in *opened* are open."""
    heads: dict[str, tuple[int, int]] = {}
    for number, need in enumerate(line):
        heads.setdefault(need.replace("-", ""), (0, number))
    return plan.choose(heads, lambda need: need in opened, now)


def test_first_come_first_served_among_what_is_open() -> None:
    """The first in the line goes if its model is open or it needs none."""
    assert choose(LanePlan(lambda: BOUND), "abc", "bca") == Choice(need="a")
    assert choose(LanePlan(lambda: BOUND), "-a", "") == Choice(need="")
    assert choose(LanePlan(lambda: BOUND), "") == Choice(need=None)


def test_who_waits_for_a_model_is_overtaken_and_wants_it() -> None:
    """A job behind it runs on the open model; its own is wanted, not yet due, and the worker knows when it will be."""
    found = choose(LanePlan(lambda: BOUND), "ba", "a")
    assert found == Choice(need="a", wants=(Want(need="b", since=0.0, due=False),), again=BOUND)


def test_who_stands_behind_is_not_passed_over() -> None:
    """The clock of a model does not run while only jobs in front of its own are taken."""
    assert choose(LanePlan(lambda: BOUND), "ab", "a") == Choice(need="a")


def test_it_is_due_at_the_bound() -> None:
    """After the bound room is made, and who waits for it stays due until its model is open."""
    plan = LanePlan(lambda: BOUND)
    choose(plan, "ba", "a", 0.0)
    assert not choose(plan, "ba", "a", 59.9).wants[0].due
    assert choose(plan, "ba", "a", 60.0) == Choice(need="a", wants=(Want(need="b", since=60.0, due=True),))
    assert choose(plan, "ba", "b", 70.0) == Choice(need="b")
    assert choose(plan, "a", "b", 71.0).wants == (Want(need="a", since=71.0, due=False),)


def test_several_that_wait_share_the_bound() -> None:
    """Of two models that wait the first is due at half the bound, the other half of it after the first was opened."""
    plan = LanePlan(lambda: BOUND)
    assert choose(plan, "bca", "a", 0.0).again == BOUND / 2
    found = choose(plan, "bca", "a", 30.0)
    assert [(want.need, want.due) for want in found.wants] == [("b", True), ("c", False)]
    assert choose(plan, "bcab", "b", 30.0).again == 30.0
    assert [want.need for want in choose(plan, "cab", "b", 60.0).wants if want.due] == ["c"]


def test_nothing_open_lets_everybodys_clock_run() -> None:
    """A worker that can take nothing passes over all who wait; they are wanted in the order of the line."""
    found = choose(LanePlan(lambda: BOUND), "cba")
    assert (found.need, [want.need for want in found.wants]) == (None, ["c", "b", "a"])


def test_a_bound_of_nothing_is_strict_order() -> None:
    """With a bound of 0 whoever is first is due at once, and nobody behind him is taken meanwhile."""
    assert choose(LanePlan(lambda: 0.0), "ba", "a") == Choice(need=None, wants=(Want(need="b", since=0.0, due=True),))
    assert choose(LanePlan(lambda: 0.0), "aba", "a") == Choice(need="a")


class Simulation:
    """One worker, room for one model, time that passes: what the plan says is carried out to the letter."""

    def __init__(self, line: list[tuple[str, float]]) -> None:
        #: Need and time of arrival, in order of arrival.
        self.line = [(number, need, at) for number, (need, at) in enumerate(sorted(line, key=lambda one: one[1]))]
        self.plan = LanePlan(lambda: BOUND)
        self.now = 0.0
        self.open: str | None = None
        self.loads: list[float] = []
        #: When a model was given up for which jobs waited.
        self.forced: list[float] = []
        #: Number of a job -> when somebody behind it was first taken; and how long jobs of its model had waited since.
        self.passed: dict[str, float] = {}
        self.longest = 0.0
        self.order: list[int] = []

    def run(self) -> None:
        """Run everything."""
        while self.line:
            here = [one for one in self.line if one[2] <= self.now]
            if not here:
                self.now = self.line[0][2]
                continue
            self.turn(here)

    def turn(self, here: list[tuple[int, str, float]]) -> None:
        heads: dict[str, tuple[int, int]] = {}
        for number, need, _ in here:
            heads.setdefault(need, (0, number))
        found = self.plan.choose(heads, lambda need: need == self.open, self.now)
        swap = [want for want in found.wants if want.due or self.open not in heads]
        if swap:
            self.forced += [self.now] if self.open in heads else []
            self.load(swap[0].need)
        elif found.need is not None:
            self.take(next(one for one in here if one[1] == found.need), here)

    def load(self, need: str) -> None:
        self.now += LOAD
        self.open = need
        self.loads.append(self.now)
        if need in self.passed:
            self.longest = max(self.longest, self.now - self.passed.pop(need))

    def take(self, job: tuple[int, str, float], here: list[tuple[int, str, float]]) -> None:
        self.line.remove(job)
        self.order.append(job[0])
        for number, need, _ in here:
            if number < job[0] and need != job[1]:
                self.passed.setdefault(need, self.now)
        self.now += JOB


LINES = st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 400)), min_size=1, max_size=150)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_nobody_is_overtaken_beyond_the_bound(line: list[tuple[str, float]]) -> None:
    """However jobs arrive: a model comes to its turn within the bound, loads and a job for each that waits on top."""
    house = Simulation(line)
    house.run()
    models = len({need for need, _ in line})
    assert house.longest <= BOUND + models * (LOAD + JOB)
    assert len(house.order) == len(line)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_forced_swaps_are_bounded_by_time_and_not_by_jobs(line: list[tuple[str, float]]) -> None:
    """Models whose jobs are not done are given up at most as often, in the time of a bound, as there are models."""
    house = Simulation(line)
    house.run()
    models = len({need for need, _ in line})
    for at, began in enumerate(house.forced):
        assert len([one for one in house.forced[at:] if one - began < BOUND]) <= models


@settings(max_examples=100, deadline=None)
@given(st.permutations("aaaaaaaaaabbbbbbbbbbcccccccccc"))
def test_a_backlog_within_the_bound_costs_one_load_a_model(order: list[str]) -> None:
    """Thirty jobs of three models that are done before the bound is over: three loads, whatever their order."""
    house = Simulation([(need, 0.0) for need in order])
    house.run()
    assert len(house.loads) == 3


@given(st.text("abc-", min_size=1), st.text("abc"), st.floats(0, 1e6))
def test_jobs_of_one_model_keep_their_order_and_the_wait_is_finite(line: str, opened: str, now: float) -> None:
    """Whatever is taken is the first of its need; a worker that gets nothing knows when to ask again, or who is due."""
    found = choose(LanePlan(lambda: BOUND), line, opened, now)
    if found.need is None:
        assert found.wants
        assert found.again is None or 0 < found.again < math.inf
    else:
        assert found.need == "" or found.need in opened
