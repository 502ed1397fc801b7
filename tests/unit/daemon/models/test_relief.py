"""What is done when memory gets short: driven by hand, with a clock, a footprint and a kernel of our own."""

import pytest

from daemon.models.relief import PATIENCE_S, RESTING_S, WORKING_S, Relief
from daemon.models.watermarks import CALM_S, Level, Marks
from jobs.model import Lane


class Loaded:
    """Residents that note what they are told."""

    def __init__(self):
        self.running, self.working, self.told = [1], False, []

    def pids(self):
        return self.running

    def in_use(self):
        return self.working

    def trim(self):
        self.told.append("trim")

    def pause(self, lanes):
        self.told.append(("pause", list(lanes)))

    def unload_idle(self, *, excess):
        self.told.append(("unload", excess))
        return 1


class Scene:
    """A relief and everything it looks at."""

    def __init__(self):
        self.now, self.footprint, self.kernel, self.changes = 0.0, 0, Level.NORMAL, []
        self.loaded = Loaded()
        self.relief = Relief(
            self.loaded,
            marks=lambda: Marks(soft=100, hard=200),
            clock=lambda: self.now,
            on_change=lambda strain: self.changes.append(strain.level),
            footprint=lambda pids, *, beyond: self.footprint,
            kernel=lambda: self.kernel,
        )

    def at(self, now, footprint=0, kernel=Level.NORMAL):
        """Look at *now*; return what was told to the residents."""
        self.now, self.footprint, self.kernel = now, footprint, kernel
        before = len(self.loaded.told)
        self.relief.look()
        return self.loaded.told[before:]


@pytest.fixture(name="scene")
def _scene():
    return Scene()


def test_nobody_looks_while_nothing_is_loaded(scene):
    """Without runners there is no next look; with them it comes soon, sooner while they work."""
    scene.loaded.running = []
    assert scene.relief.due() is None
    assert scene.at(1, footprint=999) == []
    scene.loaded.running = [1]
    scene.at(2)
    assert scene.relief.due() == 2 + RESTING_S
    scene.loaded.working = True
    assert scene.relief.due() == 2 + WORKING_S
    assert scene.at(2.5, footprint=999) == [], "not due yet"


def test_a_warning_trims_pauses_and_holds_the_batch_lane(scene):
    """Only the batch lane is held, with the reason; nothing steps aside; what is too much is unloaded if it is idle."""
    assert scene.at(10, footprint=130) == ["trim", ("pause", [Lane.BATCH]), ("unload", 30)]
    assert "mlxd and its models occupy" in scene.relief.holds(Lane.BATCH)
    assert scene.relief.holds(Lane.INTERACTIVE) is scene.relief.holds(Lane.NORMAL) is None
    assert not scene.relief.stops(Lane.BATCH)
    assert scene.changes == [Level.WARN]


def test_a_kernels_warning_unloads_nothing(scene):
    """What others occupy is no reason to give up what is within the budget."""
    assert scene.at(10, footprint=50, kernel=Level.WARN) == ["trim", ("pause", [Lane.BATCH])]
    assert scene.at(20, footprint=50, kernel=Level.WARN) == []


def test_critical_unloads_what_is_idle_and_stops_the_batch_lane(scene):
    """Everything idle goes, the batch lane's jobs step aside; after a calm time all is as before."""
    assert scene.at(10, kernel=Level.CRITICAL) == ["trim", ("pause", [Lane.BATCH]), ("unload", None)]
    assert scene.relief.stops(Lane.BATCH)
    assert not scene.relief.stops(Lane.NORMAL)
    scene.loaded.running = []
    assert scene.relief.due() is not None, "nothing is loaded, but somebody has to see that it is over"
    assert scene.at(10 + CALM_S) == [("pause", [])]
    assert scene.relief.holds(Lane.BATCH) is None
    assert scene.relief.due() is None
    assert scene.changes == [Level.CRITICAL, Level.NORMAL]


def test_a_lasting_warning_holds_nobody_for_ever(scene):
    """After `PATIENCE_S` the batch lane goes on under a warning, but never while it is critical."""
    scene.at(10, kernel=Level.WARN)
    scene.now = 10 + PATIENCE_S
    assert scene.relief.holds(Lane.BATCH) is not None
    scene.now += 1
    assert scene.relief.holds(Lane.BATCH) is None
    scene.at(scene.now, kernel=Level.CRITICAL)
    assert scene.relief.holds(Lane.BATCH) is not None
