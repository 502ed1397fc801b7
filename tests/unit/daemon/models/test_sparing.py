"""When a runner without a model is kept ready, and that it is taken over."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes_engine import stub_launch

from daemon.models.engine import Engine
from daemon.models.residency import Phase
from daemon.models.spares import Spares, spawn
from daemon.models.sparing import DELAY_S, LONELY_S, Sparing


class Keeper:
    """Notes what it is told."""

    def __init__(self):
        self.pid, self.kept = None, []

    def keep(self, model):
        self.kept.append(model)
        self.pid = 7

    def end(self):
        self.kept.append("end")
        self.pid = None


class Scene:
    """A sparing with a clock, models and a keeper of our own."""

    def __init__(self):
        self.now, self.models, self.keeper = 0.0, [], Keeper()
        self.sparing = Sparing(
            self.keeper, models=lambda: self.models, clock=lambda: self.now, background=lambda work: work()
        )

    def load(self, name):
        self.models.append(SimpleNamespace(resolved=name, phase=Phase.READY, since=self.now))

    def at(self, now, *, short=False, room=10**9):
        self.now = now
        self.sparing.look(short=short, room=room)
        return self.keeper.kept


def test_a_spare_is_started_a_while_after_each_load():
    """Not at once: the first request has the machine to itself; and once for each model that comes."""
    scene = Scene()
    assert scene.sparing.due() is None
    scene.load("a")
    assert scene.at(1) == []
    assert scene.sparing.due() == DELAY_S
    assert scene.at(DELAY_S) == ["a"]
    assert scene.at(DELAY_S + 1) == ["a"]
    assert scene.sparing.due() is None
    scene.load("b")
    assert scene.at(10) == ["a", "b"]


def test_an_idle_daemon_stands_alone():
    """When nothing has been loaded for a while the spare is ended, and nobody wakes up any more."""
    scene = Scene()
    scene.load("a")
    scene.at(5)
    scene.models.clear()
    scene.at(10)
    assert scene.sparing.due() == 10 + LONELY_S
    assert scene.at(10 + LONELY_S) == ["a", "end"]
    assert scene.sparing.due() is None


def test_no_spare_where_memory_is_short():
    """It is ended at once, and not started without room in the budget."""
    scene = Scene()
    scene.load("a")
    assert scene.at(5, room=10) == []
    scene.load("b")
    scene.at(10)
    assert scene.at(11, short=True) == ["b", "end"]
    scene.load("c")
    assert scene.at(20, short=True) == ["b", "end"]


@pytest.fixture(name="spares")
def _spares():
    spares = Spares()
    yield spares
    spares.end()


def test_a_spare_becomes_the_next_models_runner(tmp_path, spares):
    """The engine takes the process over, its output goes into the model's log, and it ends like any other."""
    launch = stub_launch(tmp_path / "plugin", log=tmp_path / "logs" / "runner.log")
    spares.keep(launch)
    waiting = spares.pid
    assert waiting is not None
    spares.keep(launch)
    assert spares.pid == waiting, "one is enough"
    engine = Engine(launch, spares=spares)
    engine.start()
    try:
        assert engine.info["pid"] == engine.pid == waiting
        assert spares.pid is None
        assert engine.submit({"do": "print"}).result()["text"] == "a"
    finally:
        engine.stop(10)
    log = (tmp_path / "logs" / "runner.log").read_bytes()
    assert b"garbage" in log
    assert b"closed" in log


def test_a_spare_of_another_kind_or_a_dead_one_is_not_taken(tmp_path, spares):
    """Other variables, other plugins, no log to redirect to, or a process that has ended: a new one is started."""
    launch = stub_launch(tmp_path / "plugin", log=tmp_path / "runner.log")
    spares.keep(launch)
    assert spares.take(stub_launch(tmp_path / "plugin")) is None
    assert spares.take(stub_launch(tmp_path / "plugin", log=tmp_path / "x", env={"A": "b"})) is None
    assert spares.take(stub_launch(tmp_path / "other", log=tmp_path / "x")) is None
    child = spares.take(launch)
    assert child is not None
    child.socket.close()
    assert child.process.wait(20) == 1
    spares.keep(launch)
    again = spares.pid
    assert again != child.process.pid


def test_a_spare_that_cannot_be_started_is_no_error(tmp_path):
    """The next model starts a process of its own."""

    def fail(launch, output):
        raise OSError("no more processes")

    spares = Spares(start=fail)
    launch = stub_launch(tmp_path / "plugin", log=Path(tmp_path / "runner.log"))
    spares.keep(launch)
    assert spares.pid is None
    assert spares.take(launch) is None


@pytest.mark.parametrize("late", [False, True], ids=["before", "while it is started"])
def test_a_daemon_that_stops_leaves_no_spare_behind(tmp_path, late):
    """One that imports does not hear that its daemon goes: it is dead when `close` returns, and there is no other."""
    started = []

    def start(launch, output):
        started.append(spawn(launch, output))
        if late:
            spares.close()
        return started[-1]

    spares = Spares(start=start)
    launch = stub_launch(tmp_path / "plugin", log=tmp_path / "runner.log")
    spares.keep(launch)
    spares.close()
    spares.keep(launch)

    assert [child.process.returncode for child in started] == [-signal.SIGKILL]
    assert spares.pid is None
