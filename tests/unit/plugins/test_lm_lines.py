"""Who may begin: places, memory, and that nobody is overtaken for ever."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model import Lane
from plugins.lm_lines import RESERVE, Lines
from plugins.lm_plan import Plan
from plugins.lm_turns import ONE_STEP_IN

INTERACTIVE, NORMAL, BATCH = Lane.INTERACTIVE, Lane.NORMAL, Lane.BATCH


class House:
    """Lines and those who were let in; *tokens* is the memory. What works ends when the test says so."""

    def __init__(self, tokens: int = 100, *, batch: int = 4, bounds=None, paused=()) -> None:
        memory = SimpleNamespace(tokens=tokens, paused=set(paused))
        self.lines = Lines(batch=batch, memory=memory, bounds=bounds)
        self.inside: list[SimpleNamespace] = []
        #: How many of other lanes have begun since a lane asks, now and at most.
        self.overtaken, self.most = dict.fromkeys(Lane, 0), dict.fromkeys(Lane, 0)
        self._made = 0

    def ask(self, lane: Lane, cost: int) -> SimpleNamespace:
        self._made += 1
        answer = SimpleNamespace(
            id=str(self._made),
            request=SimpleNamespace(lane=lane),
            cost=cost,
            overtaken=0,
            prompt=range(cost),
            way=SimpleNamespace(plan=Plan()),
        )
        self.lines.add(answer)
        return answer

    def let_in(self) -> list[SimpleNamespace]:
        """Let all begin who may, and return them."""
        begun = []
        while True:
            working, reading = self._working(), dict.fromkeys(Lane, 0)
            lines = self.lines._lines
            asking = {lane for lane in Lane if lines[lane] and self.lines._has_place(lane, working, 0)}
            if (one := self.lines.next(working, reading, lambda _: True)) is None:
                return begun
            for lane in Lane:
                others = lane in asking and lane is not one.request.lane
                self.overtaken[lane] = self.overtaken[lane] + 1 if others else 0
                self.most[lane] = max(self.most[lane], self.overtaken[lane])
            self.inside.append(one)
            begun.append(one)

    def end(self, answer: SimpleNamespace) -> None:
        self.inside.remove(answer)

    def _working(self):
        keys = {(one.request.lane, one.way.plan) for one in self.inside}
        return {key: [one for one in self.inside if (one.request.lane, one.way.plan) == key] for key in keys}


def test_the_urgent_begin_first_and_have_places_of_their_own() -> None:
    """A full batch leaves the interactive lane its reserve; in a lane the first comes first."""
    house = House(10_000, batch=2)
    for lane in (BATCH, NORMAL, INTERACTIVE):
        for _ in range(4 + RESERVE):
            house.ask(lane, 1)
    lanes = [one.request.lane for one in house.let_in()]
    assert lanes[:7] == [INTERACTIVE] * 7
    assert Counter(lanes) == {INTERACTIVE: 2 + RESERVE, NORMAL: 2, BATCH: 2}
    assert [one.id for one in house.inside if one.request.lane is NORMAL] == ["13", "14"]


def test_a_quarter_of_the_memory_is_kept_for_persons() -> None:
    """The other lanes stop before it; rows are padded to the longest of their lane."""
    house = House(100)
    first, _, third = house.ask(BATCH, 30), house.ask(BATCH, 45), house.ask(INTERACTIVE, 70)
    assert house.let_in() == [third]
    house.ask(NORMAL, 10)
    assert house.let_in() == []  # 80 of 100
    house.end(third)
    assert [one.request.lane for one in house.let_in()] == [NORMAL, BATCH]
    assert first in house.inside  # 40; with the second one it would be 2 x 45 + 10
    assert [one.cost for one in [house.ask(INTERACTIVE, 60)] if house.let_in()] == [60]


def test_nobody_less_urgent_begins_to_the_cost_of_who_waits_for_memory() -> None:
    """A large request of a person does not wait while small ones of the batch take what becomes free."""
    house = House(100)
    running = house.ask(NORMAL, 60)
    house.let_in()
    person, small = house.ask(INTERACTIVE, 50), house.ask(BATCH, 5)
    assert house.let_in() == []
    house.end(running)
    assert house.let_in() == [person, small]


def test_a_large_one_is_not_overtaken_for_ever() -> None:
    """Small ones of a more urgent lane come without end; after as many as the bound says they wait for it."""
    house = House(100, bounds={BATCH: 5})
    for _ in range(3):
        house.ask(NORMAL, 10)
    running = house.let_in()
    large = house.ask(BATCH, 70)
    overtaking = 0
    while large not in house.inside:
        house.ask(NORMAL, 10)
        begun = house.let_in()
        overtaking += sum(one is not large for one in begun)
        house.end(running.pop(0))
        running += [one for one in begun if one is not large]
        assert overtaking < 5
    assert sum(one.cost for one in house.inside) <= 100


@given(
    events=st.lists(
        st.one_of(st.tuples(st.sampled_from(list(Lane)), st.integers(1, 120)), st.integers(0, 30)), max_size=80
    ),
    bounds=st.fixed_dictionaries({NORMAL: st.integers(3, 9), BATCH: st.integers(3, 9)}),
)
@settings(max_examples=80, deadline=None)
def test_everybody_begins_whatever_comes(events, bounds) -> None:
    """Arrivals and ends in any order: memory and places are kept, and whoever is first of a lane is let in in time."""
    house = House(100, bounds=bounds)
    for event in events:
        if isinstance(event, int):
            if house.inside:
                house.end(house.inside[event % len(house.inside)])
        else:
            house.ask(*event)
        house.let_in()
        tokens = sum(
            len(some) * max((one.cost for one in some), default=0)
            for some in ([one for one in house.inside if one.request.lane is lane] for lane in Lane)
        )
        assert tokens <= 100 or len(house.inside) == 1
    steps = 0
    while house.lines:
        if house.inside:
            house.end(house.inside[0])
        house.let_in()
        steps += 1
        assert steps < 200, "somebody never begins"
    # Two lanes may be due at once: then one of them waits for the other.
    assert all(house.most[lane] <= bounds.get(lane, ONE_STEP_IN) for lane in Lane)


def test_a_paused_lane_begins_nothing_new() -> None:
    """While memory is short the batch lane waits, unless nothing else is under way."""
    house = House(1000, paused=[BATCH])
    house.ask(NORMAL, 1)
    batch = house.ask(BATCH, 1)
    (normal,) = house.let_in()
    house.end(normal)
    assert house.let_in() == [batch]


def test_in_the_batch_lane_the_shortest_prompt_begins_first() -> None:
    """Equals keep their order, and in the other lanes all do."""
    house = House(10_000, batch=8)
    for lane in (NORMAL, BATCH):
        for cost in (5, 3, 9, 3):
            house.ask(lane, cost)
    begun = [(one.request.lane, one.cost, one.id) for one in house.let_in()]
    assert [cost for lane, cost, _ in begun if lane is NORMAL] == [5, 3, 9, 3]
    assert [name for lane, _, name in begun if lane is BATCH] == ["6", "8", "5", "7"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 4))
def test_no_long_prompt_is_overtaken_for_ever(costs: list[int], batch: int) -> None:
    """However many short ones come: nobody of the batch lane is overtaken by more than the bound."""
    house = House(10_000, batch=batch)
    first = house.ask(BATCH, 51)
    begun: list[str] = []
    for cost in costs:
        house.ask(BATCH, cost)
        begun += [one.id for one in house.let_in()]
        if house.inside:
            house.end(house.inside[0])
    while first.id not in begun:
        begun += [one.id for one in house.let_in()]
        house.end(house.inside[0])
    assert begun.index(first.id) <= 64 + batch
