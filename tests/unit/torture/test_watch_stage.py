"""The stage of the watcher's row: time stands still until it is told, and broken watchers are seen through."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from torture.event_shapes import LikeFSEvents, Real, Silence
from torture.scenes import plain, slow_copy
from torture.watch_stage import Ears, Play
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from daemon.folders import file_events


@pytest.mark.parametrize("kind", ["native", "polling", "fsevents", "none"])
def test_scenes_end_well_however_the_watcher_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Two files, two jobs, in a fraction of the time that passes on the stage."""
    # The stage makes both quicker; afterwards they are as they were.
    monkeypatch.setattr(file_events, "_POLLING_SECONDS", file_events._POLLING_SECONDS)
    monkeypatch.setattr(InotifyMoveEventGrouper, "delay", InotifyMoveEventGrouper.delay)
    ears: dict[str, Ears] = {"fsevents": LikeFSEvents(random.Random(1)), "none": Silence()}
    with Play(tmp_path, ears.get(kind) or Real(tmp_path / "in", kind), random.Random(1)) as play:
        play.wave([plain, slow_copy])
        verdict = play.judge()
    assert (verdict.expected, verdict.lost, verdict.doubled, verdict.broken) == (2, [], [], [])


def test_a_watcher_that_does_not_settle_is_seen_through(tmp_path: Path) -> None:
    """It reads slow copies before they are complete."""
    with Play(tmp_path, Silence(), random.Random(1), hold=0.0, rescan=0.25) as play:
        play.wave([slow_copy])
        assert play.judge().partial
