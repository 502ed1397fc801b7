"""Runner processes and the machine's memory: what a death for lack of it costs, and that unloading gives all back."""

import threading
import time
from pathlib import Path

import psutil
import pytest
from fakes_engine import stub_launch

from daemon.models.engine import Engine
from daemon.models.references import ResolvedModel
from daemon.models.scheduler import ModelScheduler
from daemon.models.spares import Spares
from daemon.models.watermarks import Level, Marks
from jobs.errors import RunnerDied
from jobs.model import Lane

#: Longest wait for anything, seconds.
PATIENCE_S = 120.0


def until(condition, what):
    """Wait until *condition* holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def deaths(launch, requests):
    """Return the errors of so many requests, all aboard when the last one makes the runner run out of memory."""
    engine = Engine(launch)
    engine.start()
    calls = [engine.submit({"do": "forever"}, holder=number) for number in range(requests - 1)]
    calls.append(engine.submit({"do": "run out"}, holder="last"))
    errors = []
    for call in calls:
        with pytest.raises(RunnerDied) as caught:
            call.result()
        errors.append(caught.value)
    assert engine.ran_out
    return errors


def test_too_much_at_once_is_nobodys_fault(tmp_path):
    """All who were aboard are innocent, and are told why; each of their jobs goes back into the queue at no cost."""
    for error in deaths(stub_launch(tmp_path), 3):
        assert error.innocent
        assert error.facts["out_of_memory"] is True
        assert error.facts["requests"] == 3
        assert "ran out of memory" in error.message


def test_one_alone_that_is_too_much_spends_its_own_budget(tmp_path):
    """Nobody else can be blamed, and the sentence says what to do."""
    (error,) = deaths(stub_launch(tmp_path), 1)
    assert not error.innocent
    assert not error.shared
    assert "smaller model" in error.message


def test_forgiveness_has_an_end(tmp_path):
    """When fewer at once did not help, a shared death makes suspects like any other."""
    for error in deaths(stub_launch(tmp_path, forgiving=False), 2):
        assert not error.innocent
        assert error.shared


def test_an_ordinary_death_is_not_taken_for_lack_of_memory(tmp_path):
    """SIGKILL by anybody else, or a crash, counts as it always did."""
    engine = Engine(stub_launch(tmp_path))
    engine.start()
    call = engine.submit({"do": "die"}, holder=1)
    with pytest.raises(RunnerDied) as caught:
        call.result()
    assert not engine.ran_out
    assert "out_of_memory" not in caught.value.facts


def children():
    """Return this process's children, theirs too; what other tests left behind is among them."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


class Vitals:
    """What this process has of the system."""

    def __init__(self):
        me = psutil.Process()
        self.descriptors = me.num_fds()
        self.threads = {thread.name for thread in threading.enumerate()}
        self.count = threading.active_count()


def model(ref, runtime="stub"):
    return ResolvedModel(ref=ref or "default", runtime=runtime or "stub", path=Path("/models") / (ref or "x"))


@pytest.fixture(name="house")
def _house(tmp_path):
    """Return a scheduler whose runners are stub processes, and what it looks at."""
    spares = Spares()
    launch = stub_launch(tmp_path / "plugin", log=tmp_path / "runner.log")
    made = []

    def spawn(resolved, *, on_exit, on_memory):
        made.append(Engine(launch, on_exit=lambda _: on_exit(), on_memory=on_memory, spares=spares))
        return made[-1]

    def scheduler(**more):
        given = {"budget": 10**9, "sizes": lambda _: 60} | more
        made_scheduler = ModelScheduler(resolve=model, runtimes={}, spawn=spawn, **given)
        made_scheduler.start()
        schedulers.append(made_scheduler)
        return made_scheduler

    schedulers = []
    scheduler.engines, scheduler.spares, scheduler.launch = made, spares, launch
    yield scheduler
    for one in schedulers:
        one.stop(10)
    spares.end()


def test_load_and_unload_leave_nothing_behind(house):
    """After some cycles there are no more processes, descriptors and threads than after the first one."""
    scheduler = house()

    def cycle():
        scheduler.acquire("a", "stub").release()
        assert scheduler.unload("a")
        until(lambda: not any(one.pid for one in scheduler.status()), "the model stays")

    before = children()
    cycle()
    until(lambda: children() <= before, "a runner stays")
    first = Vitals()
    for _ in range(3):
        cycle()
    until(lambda: children() <= before, "a runner stays")
    until(lambda: threading.active_count() <= first.count, "threads stay")
    last = Vitals()
    assert last.descriptors <= first.descriptors


def test_pressure_unloads_what_is_idle_and_goes_by(house):
    """The real scheduler looks by itself while something is loaded: critical empties it, and then it sleeps again."""
    level, seen = [Level.NORMAL], []
    scheduler = house(
        marks=lambda: Marks(soft=1 << 60, hard=1 << 60), kernel=lambda: level[0], footprint=lambda pids, *, beyond: 1
    )
    scheduler.on_strain = lambda strain: seen.append(strain.level)
    scheduler.acquire("a", "stub").release()
    level[0] = Level.CRITICAL
    until(lambda: not any(one.pid for one in scheduler.status()), "the idle model stays")
    assert seen == [Level.CRITICAL]
    assert scheduler.stops(Lane.BATCH)
    assert "critical" in scheduler.holds(Lane.BATCH)
    level[0] = Level.NORMAL
    until(lambda: scheduler.strain.level is Level.NORMAL, "the strain stays")
    assert scheduler.holds(Lane.BATCH) is None
