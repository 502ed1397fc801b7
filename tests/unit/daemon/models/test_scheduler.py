"""The scheduler: its thread, and what others see of it."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes_engine import FakeEngine

from daemon.models.references import ResolvedModel
from daemon.models.scheduler import ModelScheduler
from daemon.views import Residency
from jobs.errors import Interrupted, JobCancelled, ModelBroken, ModelMissing, RunnerDied, UnknownRuntime
from plugins.runtime import Estimate


def model(ref, runtime="lm", **more):
    return ResolvedModel(ref=ref or "default", runtime=runtime or "lm", path=Path("/models") / (ref or "x"), **more)


class Engines:
    """Makes fake engines and remembers them; `gate` holds their loading back."""

    def __init__(self):
        self.made = []
        self.gate = threading.Event()
        self.gate.set()
        self.starting = threading.Event()
        self.failure = None

    def __call__(self, resolved, *, on_exit, on_memory):
        engine = FakeEngine(resolved, on_exit=on_exit, on_memory=on_memory)
        begin = engine.start

        def start():
            self.starting.set()
            self.gate.wait()
            engine.failure = self.failure
            begin()

        engine.start = start
        self.made.append(engine)
        return engine


@pytest.fixture(name="engines")
def _engines():
    return Engines()


@pytest.fixture(name="make")
def _make(engines):
    made = []

    def make(**more):
        settings = {"resolve": model, "runtimes": {}, "spawn": engines, "budget": 100, "sizes": lambda _: 60, **more}
        scheduler = ModelScheduler(**settings)
        made.append(scheduler)
        scheduler.start()
        return scheduler

    yield make
    engines.gate.set()
    for scheduler in made:
        scheduler.stop(5)


def test_a_lease_is_had_and_given_back(make, engines):
    """`acquire` loads, the lease is a context manager, and status tells the truth before and after."""
    changes = []
    scheduler = make(on_change=lambda: changes.append(1), configured=lambda: [model("a"), model("z")])
    with scheduler.acquire("a", "lm") as lease:
        (resident, absent) = scheduler.status()
        assert (resident.ref, resident.state, resident.leases, resident.pid) == ("a", Residency.READY, 1, 4242)
        assert (absent.ref, absent.state) == ("z", Residency.ABSENT)
        assert lease.info == {"model": "a"}
    lease.release()
    assert scheduler.status()[0].leases == 0
    assert changes


def test_status_and_stop_work_without_a_start(engines):
    """Before its start the scheduler answers and can be stopped."""
    scheduler = ModelScheduler(resolve=model, runtimes={}, spawn=engines, budget=1)
    assert scheduler.status() == []
    scheduler.stop(1)


def test_a_cancelled_job_stops_waiting(make, engines):
    """Setting the event ends the wait although the model is still being loaded."""
    scheduler = make()
    engines.gate.clear()
    cancelled = threading.Event()
    seen = []

    def wait():
        try:
            scheduler.acquire("a", "lm", cancelled=cancelled)
        except JobCancelled as error:
            seen.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engines.starting.wait()
    cancelled.set()
    waiting.join()
    assert len(seen) == 1


def test_a_job_cancelled_before_it_asked_holds_nothing(make, engines):
    """A lease that was granted to a cancelled job is given back."""
    scheduler = make()
    with scheduler.acquire("a", "lm"):
        pass
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(JobCancelled):
        scheduler.acquire("a", "lm", cancelled=cancelled)
    assert scheduler.status()[0].leases == 0


def test_stop_interrupts_whoever_waits(make, engines):
    """A waiting job gets `Interrupted`, and so does one that comes too late."""
    scheduler = make()
    engines.gate.clear()
    seen = []

    def wait():
        try:
            scheduler.acquire("a", "lm")
        except Interrupted as error:
            seen.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engines.starting.wait()
    engines.gate.set()
    scheduler.stop(5)
    waiting.join()
    assert len(seen) <= 1  # it may have been served in the very last moment
    assert ["stop" in engine.calls for engine in engines.made] == [True]


def test_load_and_unload_by_name(make, engines):
    """`load` returns when the model is ready, `unload` takes it away, and `on_change` may ask for the status."""
    gone = threading.Event()

    def changed():
        if engines.made and not scheduler.status():
            gone.set()

    scheduler = make(on_change=changed)
    loaded = scheduler.load("a", "lm", pin=True)
    assert (loaded.state, loaded.pinned) == (Residency.READY, True)
    assert scheduler.load("a").pinned is True

    assert scheduler.unload("a") is True
    assert gone.wait(5)
    assert scheduler.unload("a") is False


def test_a_runner_that_dies_as_it_is_loaded_is_told(make, engines):
    """`load` raises when the runner did not live long enough to be seen."""
    scheduler = make()
    asked = scheduler.status
    scheduler.status = list
    with pytest.raises(RunnerDied):
        scheduler.load("a", "lm")
    scheduler.status = asked


def test_pinned_models_are_loaded_at_the_start_and_at_a_reload(make, engines):
    """Configured pins need nobody to ask for them; one that fails is logged and shown, and stops nothing."""
    ready = threading.Event()

    def changed():
        if engines.made and engines.made[-1].calls:
            ready.set()

    scheduler = make(configured=lambda: [model("a", pin=True)], on_change=changed)
    assert ready.wait(5)
    ready.clear()
    engines.failure = ModelBroken("bad")
    pins = lambda ref, runtime: model(ref, pin=ref == "b")  # noqa: E731 - a resolver in a line
    scheduler.reconfigure(budget=1000, resolve=pins, configured=lambda: [model("a", pin=False), model("b", pin=True)])
    assert ready.wait(5)
    states = {one.ref: (one.state, one.problem, one.pinned) for one in scheduler.status()}
    assert states["a"][2] is False
    assert states["b"] == (Residency.FAILED, "bad", True)


def test_an_event_that_fails_leaves_the_scheduler_alive(make, engines):
    """A mistake in one event is logged, an error of a question goes to whoever asked."""
    scheduler = make()
    scheduler._post(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scheduler._ask(lambda: 1 / 0)
    with scheduler.acquire("a", "lm"):
        pass


def test_stop_kills_what_does_not_end(make, engines):
    """A runner that outlives the stop time is killed."""
    scheduler = make()
    scheduler.acquire("a", "lm")
    (engine,) = engines.made
    killed = threading.Event()
    engine.stop = lambda timeout: killed.wait(10)
    engine.kill = killed.set
    scheduler.stop(0.05)
    assert killed.is_set()


def test_sizes_are_checked_once_per_version(tmp_path, engines):
    """The folder check and the estimate run once until the folder changes; what they raise reaches the caller."""
    from daemon.models.sizes import Sizes

    checked, asked = [], []

    class Lm:
        def estimate(self, path, options):
            asked.append(path)
            if options:
                raise TypeError("odd option")
            return Estimate(1, 2)

    sizes = Sizes(lambda: {"lm": Lm()}, check=checked.append)
    found = ResolvedModel(ref="a", runtime="lm", path=tmp_path)
    assert (sizes(found), sizes(found)) == (3, 3)
    assert len(checked) == len(asked) == 1
    weights = tmp_path / "model.safetensors"
    weights.write_text("{}")
    sizes(found)
    assert len(checked) == 2
    before = weights.stat()
    weights.write_text("[]")  # in place, and with the old times: somebody hides it
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    sizes(found)
    assert len(checked) == 3

    with pytest.raises(UnknownRuntime):
        sizes(ResolvedModel(ref="a", runtime="none", path=tmp_path))
    with pytest.raises(ModelBroken, match="odd option"):
        sizes(ResolvedModel(ref="a", runtime="lm", path=tmp_path, options={"x": 1}))
    with pytest.raises(ModelMissing):
        Sizes(lambda: {"lm": Lm()})(ResolvedModel(ref="a", runtime="lm", path=tmp_path / "gone"))


@pytest.mark.parametrize("total", [-1, 1 << 60, 10**400, float("nan"), None])
def test_an_unbelievable_estimate_is_the_models_fault(tmp_path, total):
    """Numbers from a stranger's configuration, or a plugin's mistake, never reach the scheduler's arithmetic."""
    from daemon.models.sizes import Sizes

    class Lm:
        def estimate(self, path, options):
            return Estimate(1, total)

    with pytest.raises(ModelBroken, match="believable"):
        Sizes(lambda: {"lm": Lm()}, check=lambda _: None)(ResolvedModel(ref="a", runtime="lm", path=tmp_path))


def test_an_estimate_of_another_shape_is_the_models_fault(tmp_path):
    """A plugin that returns something else than an `Estimate` is told so by the job's error, not by a traceback."""
    from daemon.models.sizes import Sizes

    class Lm:
        def estimate(self, path, options):
            return SimpleNamespace(total=1000)

    with pytest.raises(ModelBroken, match="could not be estimated"):
        Sizes(lambda: {"lm": Lm()}, check=lambda _: None)(ResolvedModel(ref="a", runtime="lm", path=tmp_path))
