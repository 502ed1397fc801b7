"""What queued jobs wish for: models loaded without a worker, places given up or not, models that are set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes_engine import House

from daemon.models.references import ResolvedModel
from daemon.models.residency import PATIENCE_S, Phase
from daemon.models.wishes import Outlook, Wish
from jobs.errors import ModelBroken, ModelUnloadable, RunnerDied
from jobs.model import Lane


def model(ref: str) -> ResolvedModel:
    return ResolvedModel(ref=ref, runtime="lm", path=Path("/models") / ref, keep_alive_s=0.0)


def key(ref: str) -> str:
    return model(ref).key


class Line:
    """What waits, as the test says."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.wanted: list[Wish] = []
        self.needs: dict[str, Lane] = {}
        house.residents.queued = self

    def wish(self, ref: str, lane: Lane = Lane.BATCH, *, due: bool = False, need: int = 60) -> None:
        """Let jobs of *lane* wait for a model, from now on."""
        self.wanted.append(Wish(model=model(ref), lane=lane, need=need, since=self.house.time, due=due))
        self.needs[key(ref)] = lane
        self.house.run()
        self.house.settle()
        self.house.run()

    def wishes(self) -> Sequence[Wish]:
        return self.wanted

    def demand(self) -> Mapping[str, Lane]:
        return self.needs


def line(budget: int = 100) -> Line:
    return Line(House(budget))


def opened(one: Line, ref: str, lane: Lane = Lane.BATCH) -> bool:
    return one.house.residents.outlook().opened(key(ref), lane)


def test_a_wish_loads_a_model_that_nobody_holds() -> None:
    """It becomes ready without a lease, and stays until a job has used it, whatever its keep-alive is."""
    one = line()
    one.wish("a")
    assert opened(one, "a")
    one.wanted.clear()
    one.house.settle()
    assert one.house.loaded == ["a"]
    one.house.has("a", keep_alive_s=0.0).release()
    one.needs.clear()
    one.house.settle()
    one.house.run()
    assert one.house.loaded == []


def test_a_model_that_jobs_wait_for_is_not_idle() -> None:
    """Between two jobs of a backlog a keep-alive of nothing unloads nothing."""
    one = line()
    one.wish("a")
    one.wanted.clear()
    one.house.has("a", keep_alive_s=0.0).release()
    one.house.run()
    assert one.house.loaded == ["a"]
    assert one.house.residents.deadline() is None


def test_a_polite_wish_takes_no_place_that_its_lane_has_jobs_for() -> None:
    """A model of the same lane, or of a more urgent one, stays; once nobody waits for it, it goes."""
    one = line()
    one.wish("a", Lane.NORMAL)
    one.wish("b", Lane.BATCH)
    one.wish("c", Lane.NORMAL)
    assert one.house.loaded == ["a"]
    assert opened(one, "a", Lane.NORMAL)
    del one.needs[key("a")]
    one.wanted.pop(0)
    one.house.run()
    one.house.settle()
    one.house.run()
    assert one.house.loaded == ["c"]


def test_a_more_urgent_wish_takes_the_place_at_once() -> None:
    """What the interactive lane wants is had at the cost of a model that only the batch lane waits for."""
    one = line()
    one.wish("a", Lane.BATCH)
    one.wish("b", Lane.INTERACTIVE)
    assert one.house.loaded == ["b"]


def test_a_due_wish_closes_a_model_for_its_lane_and_below() -> None:
    """No job of the lane begins on it any more; one of a more urgent lane does, and goes before the wish."""
    one = line()
    lease = one.house.has("a", lane=Lane.NORMAL)
    one.needs[key("a")] = Lane.NORMAL
    one.wish("b", Lane.NORMAL, due=True)
    assert not opened(one, "a", Lane.NORMAL)
    assert not opened(one, "a", Lane.BATCH)
    assert opened(one, "a", Lane.INTERACTIVE)
    person = one.house.ask("a", lane=Lane.INTERACTIVE)
    assert person.ended.is_set()
    running = one.house.ask("a", lane=Lane.NORMAL)  # a job that has begun goes before those that only wait
    assert running.ended.is_set()
    for held in (lease, person.result(), running.result()):
        held.release()
    one.house.run()
    assert one.house.loaded == ["b"]


def test_several_models_are_loaded_when_they_fit() -> None:
    """Wishes fill the budget; who does not fit waits politely and takes nobody's room in advance."""
    one = line(budget=130)
    for ref in "abc":
        one.wish(ref)
    assert one.house.loaded == ["a", "b"]
    assert not opened(one, "c")


def test_batch_jobs_are_asked_for_their_place_by_a_person() -> None:
    """Once; those of other lanes are not asked, and for the normal lane only after a while."""
    house = House()
    recalled: list[str] = []
    waiter = house.ask("a", lane=Lane.BATCH)
    waiter.recall = lambda: recalled.append("batch")
    house.run()
    normal = house.ask("a", lane=Lane.NORMAL)
    normal.recall = lambda: recalled.append("normal")
    house.ask("b", lane=Lane.NORMAL)
    house.run()
    assert recalled == []
    assert house.residents.deadline() == house.time + PATIENCE_S
    house.time += PATIENCE_S
    house.settle()
    house.run()
    house.ask("c", lane=Lane.INTERACTIVE)
    house.run()
    assert recalled == ["batch"]


def test_who_is_refused_is_told_when_the_job_asks() -> None:
    """A wish that can never be fulfilled, and a model that is broken, hold no job back."""
    one = line()
    one.wish("huge", need=1000)
    assert opened(one, "huge")
    one.house.failures["broken"] = ModelBroken("its header lies")
    one.wish("broken")
    assert opened(one, "broken")
    one.house.residents.renew(None, {})
    assert not one.house.residents.outlook().opened(key("broken"), Lane.BATCH)


def test_a_model_whose_loads_die_is_set_aside() -> None:
    """The first deaths cost who waits nothing; then whoever asks is refused, with advice, until it has rested."""
    one = line()
    one.house.failures["a"] = RunnerDied("killed", exit=-9)
    told: list[Any] = []
    for _ in range(4):
        waiter = one.house.ask("a")
        one.house.run()
        with pytest.raises((RunnerDied, ModelUnloadable)) as caught:
            waiter.result()
        told.append(caught.value)
    assert [type(error) for error in told] == [RunnerDied, RunnerDied, ModelUnloadable, ModelUnloadable]
    assert all(error.innocent for error in told[:2])
    assert "mlxd models load a" in told[2].message
    assert one.house.engines[-1].calls == ["start"]
    assert len(one.house.engines) == 3
    assert one.house.residents.outlook() == Outlook(hopeless=frozenset(one.house.residents.deaths.barred_keys()))

    one.house.time += 600.0
    one.house.failures.clear()
    assert one.house.has("a").ref == "a"
    assert one.house.residents.deaths.counts() == {}


def test_after_its_rest_one_more_death_sets_it_aside_again() -> None:
    """It is tried once, not as often as at the first time."""
    one = line()
    one.house.failures["a"] = RunnerDied("killed")
    for _ in range(3):
        one.house.ask("a")
        one.house.run()
    one.house.time += 600.0
    one.house.ask("a")
    one.house.run()
    refused = one.house.ask("a")
    assert refused.ended.is_set()
    assert len(one.house.engines) == 4


def test_what_has_come_for_queued_jobs_is_theirs_for_a_while() -> None:
    """Who is behind them in the line makes no room of it before a worker could take one: it would come for nothing.

    Found in a long run under load: one model came and went three times a second, and nobody was served for ten minutes.
    """
    one = line()
    one.wish("a", Lane.INTERACTIVE, due=True)
    one.wish("b", Lane.NORMAL, due=True)
    assert one.house.loaded == ["a"]
    assert opened(one, "a", Lane.INTERACTIVE)
    lease = one.house.has("a", lane=Lane.INTERACTIVE, keep_alive_s=0.0)
    one.wanted.pop(0)  # nobody waits for it any more
    one.needs.pop(key("a"))
    one.house.settle()
    lease.release()
    one.house.run()
    assert one.house.loaded == ["b"]


def test_what_nobody_takes_is_not_kept_for_ever() -> None:
    """The workers may all be waiting for its place: after a while it is given up like any other idle model."""
    one = line()
    one.wish("a", Lane.INTERACTIVE, due=True)
    one.house.ask("b", lane=Lane.BATCH)
    one.house.run()
    assert one.house.loaded == ["a"]
    one.house.time += PATIENCE_S
    one.house.settle()
    assert one.house.residents.models[key("a")].phase is Phase.UNLOADING


def test_what_is_used_is_promised_to_those_who_wait_behind() -> None:
    """As soon as one job has it: no further one of their lane begins on it."""
    one = line()
    one.wish("a", Lane.NORMAL, due=True)
    one.house.has("a", lane=Lane.NORMAL)
    assert opened(one, "a", Lane.BATCH)
    one.house.ask("b", lane=Lane.BATCH)
    one.house.run()
    assert not opened(one, "a", Lane.BATCH)


def test_room_for_one_model_is_made_once() -> None:
    """However many jobs wait for it: the places of two others are not given up for two that wait for the same."""
    one = line(budget=130)
    for ref in "ab":
        one.house.has(ref).release()
    first, second = one.house.ask("c"), one.house.ask("c")
    one.house.run()
    assert first.ended.is_set()
    assert second.ended.is_set()
    assert len(one.house.loaded) == 2
