"""The resident models and the line of waiters, driven by hand: no threads, no processes, no clock."""

import pytest
from fakes_engine import House

from jobs.errors import Interrupted, JobCancelled, ModelBroken, ModelTooLarge, RunnerDied
from jobs.model import Lane


def test_two_requests_for_one_cold_model_load_it_once():
    """The second waits for the first one's load, and both are served."""
    house = House()
    one, two = house.ask("a"), house.ask("a")
    house.run()

    assert len(house.engines) == 1
    assert one.result().info == two.result().info == {"model": "a"}


def test_a_lease_sends_in_its_lane():
    """What is submitted through a lease goes into the lane it was acquired in."""
    lease = House().has("a", lane=Lane.BATCH)
    assert lease.submit({"x": 1}).result() == {"lane": "batch", "x": 1}
    assert lease.engine.submit({}).result() == {"lane": "batch"}


def test_nothing_is_evicted_in_use_and_the_waiter_gets_the_place():
    """A request for another model waits for the lease to end, then the idle model goes and the new one is loaded."""
    house = House()
    lease = house.has("a")
    other = house.ask("b")
    house.run()
    assert house.loaded == ["a"]

    lease.release()
    house.run()
    assert house.loaded == ["b"]
    assert other.result().info == {"model": "b"}
    assert house.engines[0].calls == ["start", "stop"]


def test_a_stream_on_the_resident_model_does_not_starve_another():
    """Requests for the resident model that come after one for another model stand behind it."""
    house = House()
    first = house.has("a")
    other = house.ask("b")
    late = house.ask("a")
    assert not late.ended.is_set()

    first.release()
    house.run()
    assert other.ended.is_set()
    assert not late.ended.is_set()
    other.result().release()
    house.run()
    assert late.result().info == {"model": "a"}


def test_the_interactive_lane_goes_first():
    """Of two that wait for the same place the person's request is served first."""
    house = House()
    lease = house.has("a")
    batch, person = house.ask("b", lane=Lane.BATCH), house.ask("c", lane=Lane.INTERACTIVE)
    lease.release()
    house.run()

    assert person.ended.is_set()
    assert not batch.ended.is_set()


def test_keep_alive_runs_from_the_last_use():
    """A model is unloaded when its keep-alive has run out, not before; zero means at once, none for ever."""
    house = House(budget=1000)
    house.has("a", keep_alive_s=10.0).release()
    house.has("b", keep_alive_s=0.0).release()
    house.has("c", keep_alive_s=None).release()
    house.run()
    assert house.loaded == ["a", "c"]
    assert house.residents.deadline() == 1010.0

    house.time = 1009.9
    house.settle()
    assert house.loaded == ["a", "c"]
    house.time = 1010.0
    house.run()
    house.settle()
    house.run()
    assert house.loaded == ["c"]
    assert house.residents.deadline() is None


def test_a_load_failure_is_told_to_all_who_wait_and_forgotten_by_the_next():
    """Both waiters get the runtime's own error, status remembers the problem, and the next request tries anew."""
    house = House()
    house.failures["a"] = ModelBroken("bad weights")
    waiters = [house.ask("a"), house.ask("a")]
    house.run()
    for waiter in waiters:
        with pytest.raises(ModelBroken, match="bad weights"):
            waiter.result()
    assert [message for _, message in house.residents.problems.values()] == ["bad weights"]

    house.failures.clear()
    assert house.has("a").info == {"model": "a"}
    assert not house.residents.problems


def test_a_runner_that_cannot_be_started_is_a_dead_runner():
    """An operating system's refusal reaches the waiter as `RunnerDied`."""
    house = House()
    house.failures["a"] = OSError("no more processes")
    waiter = house.ask("a")
    house.run()
    with pytest.raises(RunnerDied, match="no more processes"):
        waiter.result()


def test_a_death_is_noticed_and_the_next_request_loads_again():
    """A runner that ends while leased is forgotten; its lease may still be released; a new one is spawned."""
    house = House()
    lease = house.has("a")
    house.engines[0].on_exit()
    house.run()
    assert house.loaded == []

    assert house.has("a").info == {"model": "a"}
    lease.release()
    house.run()
    assert len(house.engines) == 2
    assert [model.leases for model in house.residents.models.values()] == [1]


def test_pins_are_blamed_only_where_there_are_some():
    """A model larger than the whole budget is not explained by pinned ones."""
    waiter = House().ask("a", 600)
    with pytest.raises(ModelTooLarge) as caught:
        waiter.result()
    assert "pin" not in caught.value.message
    assert "Raise memory.budget or take a smaller one." in caught.value.message


def test_what_does_not_fit_is_refused_with_the_numbers():
    """`ModelTooLarge` says what is needed and what can be had."""
    house = House()
    house.has("p", 50, pin=True).release()
    waiter = house.ask("a", 60)
    with pytest.raises(ModelTooLarge, match=r"pinned ones keep .* unpin a model") as caught:
        waiter.result()
    assert caught.value.facts == {"need": 60, "available": 50, "budget": 100}


def test_what_was_observed_corrects_the_estimate():
    """A runner's own report replaces the estimate: room is there for more, and the next load reckons with it."""
    house = House()
    house.has("a", 90).release()
    house.engines[0].on_memory(30)
    house.settle()
    house.has("b", 60).release()
    assert house.loaded == ["a", "b"]


def test_a_model_that_grew_beyond_the_budget_pushes_an_idle_one_out():
    """Reports that exceed the budget together unload the least recently used idle model."""
    house = House()
    house.has("a", 50, keep_alive_s=None).release()
    house.settle()
    house.time += 1
    lease = house.has("b", 50)
    house.engines[1].on_memory(80)
    house.run()
    assert house.loaded == ["b"]
    lease.release()


def test_unload_waits_for_the_lease_and_later_requests_load_anew():
    """Unloading takes effect when the last lease ends; pins do not protect from it; who asks meanwhile waits."""
    house = House()
    lease = house.has("a", pin=True)
    assert house.residents.doom("a") is True
    later = house.ask("a")
    assert not later.ended.is_set()

    lease.release()
    house.run()
    assert later.result().info == {"model": "a"}
    assert len(house.engines) == 2
    assert house.residents.doom("unknown") is False


def test_who_gives_up_leaves_the_line():
    """A withdrawn request ends with `JobCancelled` and no model is loaded for it."""
    house = House()
    lease = house.has("a")
    other = house.ask("b")
    house.residents.withdraw(other)
    house.residents.withdraw(other)
    with pytest.raises(JobCancelled):
        other.result()
    lease.release()
    house.run()
    assert house.loaded == ["a"]


def test_closing_interrupts_the_line_and_ends_every_runner():
    """After `close` nobody waits, nothing is resident, and newcomers are turned away."""
    house = House()
    house.has("a")
    waiting = house.ask("b")
    loading = House()
    unfinished = loading.ask("c")
    loading.residents.close(1.0)
    house.residents.close(1.0)
    house.residents.kill_all()
    house.run()
    loading.run()

    for waiter in (waiting, unfinished, house.ask("d")):
        with pytest.raises(Interrupted):
            waiter.result()
    assert house.residents.closed
    assert loading.residents.closed
    assert house.engines[0].calls == ["start", "kill", "stop"]


def test_the_person_is_told_what_is_waited_for():
    """Waiting for room, making room and loading are said once each."""
    said = []
    house = House()
    lease = house.has("a")
    house.ask("b", say=said.append)
    house.settle()
    lease.release()
    house.run()
    assert said == ["waiting for room for b", "making room for b", "loading b"]


def test_a_reload_changes_pins_and_budget():
    """New settings reach resident models by their key; an explicit pin too."""
    house = House()
    house.has("a", keep_alive_s=5.0).release()
    house.settle()
    (model,) = house.residents.models.values()
    house.residents.renew(
        50, {model.resolved.key: type(model.resolved)(ref="a", runtime="lm", path=model.resolved.path, pin=True)}
    )
    assert (model.pinned, model.keep_alive) == (True, 300.0)
    house.residents.pin(model.resolved.key, pin=False)
    house.residents.pin("unknown", pin=False)
    assert model.pinned is False
    with pytest.raises(ModelTooLarge):
        house.ask("b", 60).result()
