"""Shares, wishes and lessons of the resident models, driven by hand."""

from fakes_engine import House

from daemon.models.learned import Learned
from daemon.models.relief import LoadedModels
from daemon.models.residency import Phase
from daemon.models.sparing import Nobody
from jobs.model import Lane


def share(engine):
    """Return what the engine was told last."""
    return engine.heard("share")["share"]


def test_a_runner_hears_of_its_share_and_of_changes():
    """Alone it may have the budget; when another is loaded, less; a small difference is not worth a word."""
    house = House()
    house.has("a", 30)
    (a,) = house.engines
    assert (share(a)["memory"], share(a)["most"]) == (100, 100)
    a.on_memory(29)
    house.settle()
    assert len([1 for op, _ in a.orders if op == "share"]) == 1
    house.has("b", 40)
    assert share(a)["memory"] == 29 + (100 - 29 - 40) // 2


def test_what_a_waiting_model_needs_is_not_given_away():
    """While a request waits for room, those who are in use do not grow into it."""
    house = House()
    house.has("a", 60)
    house.ask("b", 50)
    house.engines[0].on_memory(60)
    house.settle()
    assert share(house.engines[0])["memory"] == 60


def test_idle_models_make_way_for_a_request_that_stands_still():
    """The runner says what it wants, an idle model is unloaded for it, and the answer comes in two parts."""
    house = House()
    house.has("b", 40).release()
    house.run()
    house.has("a", 40)
    a = house.engines[1]
    a.on_wishes({"wanted": 90, "ceiling": None, "factor": 1.0})
    house.settle()
    assert house.residents.models[next(iter(house.residents.models))].phase is Phase.UNLOADING
    assert share(a) | {"coming": True, "answers": 90} == share(a)
    house.run()
    assert house.loaded == ["a"]
    assert share(a) | {"coming": False, "answers": 90, "memory": 100} == share(a)


def test_what_cannot_be_had_is_answered_too():
    """A model in use stays; the runner hears that nothing is coming, and decides by itself."""
    house = House()
    house.has("b", 40)
    house.has("a", 40)
    a = house.engines[1]
    a.on_wishes({"wanted": 90})
    house.settle()
    assert share(a) | {"coming": False, "answers": 90, "memory": 60, "most": 100} == share(a)
    assert sorted(house.loaded) == ["a", "b"]


def test_what_runners_learn_is_remembered():
    """Its size after the load, what a token takes, what was too much: all of it under the model's key."""
    learned = Learned(now=lambda: 0.0)
    house = House(learned=learned)
    house.has("a", 30)
    (key,) = house.residents.models
    a = house.engines[0]
    a.on_memory(25)
    a.on_memory(70)
    a.on_wishes({"wanted": 0, "ceiling": 60, "factor": 1.5})
    house.settle()
    lesson = learned.of(key)
    assert (lesson.base, lesson.ceiling, lesson.factor) == (25, 60, 1.5)
    assert share(a)["memory"] == 60
    a.on_wishes({"wanted": "x", "ceiling": "y", "factor": None})
    house.settle()
    assert learned.of(key) == lesson


def test_a_death_for_lack_of_memory_teaches_a_ceiling():
    """The next runner of the model is given less than the last one had; an ordinary death teaches nothing."""
    learned = Learned(now=lambda: 0.0)
    house = House(learned=learned)
    lease = house.has("a", 30)
    (key,) = house.residents.models
    house.engines[0].on_memory(80)
    house.settle()
    house.engines[0].ran_out = True
    house.engines[0].on_exit()
    house.run()
    assert (learned.of(key).ceiling, learned.of(key).deaths) == (60, 1)
    lease.release()
    again = house.has("a", 30)
    assert share(house.engines[1])["memory"] == 60
    house.engines[1].on_exit()
    house.run()
    assert learned.of(key).deaths == 1
    again.release()


def test_what_relief_sees_and_does():
    """Runners and the spare are counted, pauses reach those who come later, and idle models go least used first."""
    house = House(budget=1000)
    lease = house.has("a", 10)
    for name in ("b", "c", "p"):
        house.time += 1
        house.has(name, 10, pin=name == "p").release()
        house.run()
    spare = Nobody()
    spare.pid = 7
    loaded = LoadedModels(house.residents, spare=spare)
    assert list(loaded.pids()) == [4242] * 4 + [7]
    assert loaded.in_use()
    loaded.trim()
    loaded.pause([Lane.BATCH])
    assert all(engine.heard("trim") == {} for engine in house.engines)
    house.has("late", 10).release()
    assert house.engines[-1].heard("pause") == {"lanes": ["batch"]}
    house.run()

    assert loaded.unload_idle(excess=15) == 2
    house.run()
    assert house.loaded == ["a", "p", "late"]
    assert loaded.unload_idle(excess=None) == 2
    house.run()
    assert house.loaded == ["a"]
    lease.release()
    house.run()
    assert not loaded.in_use()
