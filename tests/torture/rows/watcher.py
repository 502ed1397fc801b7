"""Row 11: whatever happens to files in a watched folder, and however it is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from torture.event_shapes import LikeFSEvents, Real, Silence
from torture.privileges import obey_permissions
from torture.row import Control, Outcome, Say, Tier, percentile
from torture.scenes import SCENES, Scene
from torture.watch_daemon import KilledDaemon, recoveries
from torture.watch_lives import Burst, killed
from torture.watch_stage import Ears, Opened, Play, as_on_a_mac
from torture.watch_verdict import WatchVerdict, judge

#: How the watcher hears of changes.
EARS: Final[dict[str, Callable[[Path, str], Ears]]] = {
    "inotify": lambda root, _seed: Real(root, "native"),
    "fsevents-shaped": lambda _root, seed: LikeFSEvents(random.Random(f"{seed}-told")),
    "polling": lambda root, _seed: Real(root, "polling"),
    "no-events": lambda _root, _seed: Silence(),
}
#: Where watchers are killed, what is taken late is not counted, only what is never taken; seconds.
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    files: int
    #: Scenes played at once.
    wave: int
    burst: int
    #: Kills of the whole daemon, of the bare watcher, and of the control that forgets.
    daemon: int
    watcher: int
    forgetful: int


SIZES: Final = {Tier.SHORT: Size(60, 31, 300, 2, 0, 1), Tier.LONG: Size(2000, 93, 10_000, 40, 60, 3)}


@dataclass
class _Found:
    """What has come out so far."""

    tries: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def add(self, part: str, verdict: WatchVerdict, *, files: int, taken: int) -> None:
        self.tries += files
        self.acknowledged += taken
        for mine, wrong in ((self.lost, verdict.lost), (self.doubled, verdict.doubled), (self.broken, verdict.broken)):
            mine += [f"{part}: {one}" for one in wrong]
        self.measured |= {f"{part}_files": files, f"{part}_jobs": taken, f"{part}_partial_reads": len(verdict.partial)}


class Watcher:
    """Row 11."""

    number = 11
    name = "watcher"
    fault = "watched folders: slow copies, renames, truncation, links, twins, pipes, no permission, bursts, kill -9"
    promise = "each settled regular file exactly one job, within settling and rescan; partial reads 0; the rest no job"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Play every scene before watchers that hear in four ways; kill them in between; let bursts come."""
        size, found = SIZES[tier], _Found()
        how = obey_permissions()
        self._volume(found, size, f"{seed}-watcher", folder, say)
        controls = [*_controls(f"{seed}-watcher", folder)]
        with ThreadPoolExecutor(4) as pool:
            forgetful = pool.submit(_forgetful, folder / "f", f"{seed}-watcher", size.forgetful)
            parts: list[Callable[[_Found, Size, str, Path], None]] = [_burst, _daemon, _lives]
            for part in [pool.submit(one, found, size, f"{seed}-watcher", folder) for one in parts]:
                part.result()
            controls.append(forgetful.result())
        return Outcome(
            tries=found.tries,
            acknowledged=found.acknowledged,
            lost=len(found.lost),
            doubled=len(found.doubled),
            recoveries=found.recoveries,
            broken=[*found.lost, *found.doubled, *found.broken],
            controls=controls,
            measured=found.measured,
            notes=[
                f"Files without permission: {how}.",
                "iCloud's flag is injected: only macOS has st_flags.",
                "A job whose file was written anew before it was read ends unread; the new content is another job.",
            ],
        )

    def _volume(self, found: _Found, size: Size, seed: str, folder: Path, say: Say) -> None:
        opened = Opened()
        for name, ears in EARS.items():
            play, verdict = _play(folder / name, ears(folder / name / "in", seed), f"{seed}-{name}", size, opened)
            files = len({rest.path for rest in play.disk.rests}) + len(play.disk.closed)
            found.add(name, verdict, files=files, taken=len(play.recording.taken))
            found.measured[f"{name}_wait_p99_s"] = round(percentile(verdict.waits, 0.99), 2)
            found.broken += [f"{name}: opened {path!r}" for path in opened.touched]
            opened.touched.clear()
            say(f"{name}: {files} files, {len(play.recording.taken)} jobs")


def _play(
    folder: Path, ears: Ears, seed: str, size: Size, opened: Opened | None = None, **broken: float
) -> tuple[Play, WatchVerdict]:
    """Play waves of scenes until there were enough files; *broken* is what a control sets wrong."""
    chance = random.Random(seed)
    exact = not isinstance(ears, LikeFSEvents)
    with as_on_a_mac(exact_names=exact), Play(folder, ears, chance, opened=opened, **broken) as play:
        while len({rest.path for rest in play.disk.rests}) < size.files:
            play.wave(_dealt(chance, size.wave))
            if not broken:
                play.rename_away_and_back()
        play.rest()
        return play, play.judge()


def _dealt(chance: random.Random, count: int) -> Iterable[Scene]:
    """Return *count* scenes: every one before any comes again."""
    dealt: list[Scene] = []
    while len(dealt) < count:
        dealt += chance.sample(SCENES, len(SCENES))
    return dealt[:count]


#: How often a control is attacked anew until it is caught: a kill may come when there is nothing to forget.
_CHANCES = 4


def _controls(seed: str, folder: Path) -> Iterable[Control]:
    size = SIZES[Tier.SHORT]
    lost = expected = 0
    for number in range(_CHANCES):
        deaf = LikeFSEvents(random.Random(f"{seed}-deaf-{number}"), drops=0.3)
        _, verdict = _play(
            folder / f"deaf{number}", deaf, f"{seed}-deaf-{number}", replace(size, files=200), rescan=1e9
        )
        lost, expected = lost + len(verdict.lost), expected + verdict.expected
        if lost:
            break
    yield Control(
        name="events alone, no rescan", caught=bool(lost), evidence=f"{lost} of {expected} files never became a job"
    )
    play, verdict = _play(folder / "hasty", Silence(), f"{seed}-hasty", size, hold=0.0, rescan=0.25)
    evidence = f"{len(verdict.partial)} of {len(play.recording.taken)} jobs had read a file that was not complete"
    yield Control(name="taken at first sight, no settling", caught=bool(verdict.partial), evidence=evidence)


def _forgetful(folder: Path, seed: str, kills: int) -> Control:
    doubled = expected = number = 0
    while not doubled and number < _CHANCES:
        chance = random.Random(f"{seed}-forgetful-{number}")
        script, taken = killed(folder / str(number), chance, kills=kills, durable=False)
        verdict = judge(script.disk.rests, taken, hold=0.0, grace=_PATIENCE)
        doubled, expected, number = len(verdict.doubled), expected + verdict.expected, number + 1
    evidence = f"{doubled} of {expected} files done again after {number * kills} kill(s)"
    return Control(name="what was seen kept in memory", caught=bool(doubled), evidence=evidence)


def _burst(found: _Found, size: Size, _seed: str, folder: Path) -> None:
    burst = Burst(folder / "b", size.burst)
    burst.run()
    found.measured |= burst.measured
    found.broken += burst.broken
    found.tries += 2 * size.burst


def _daemon(found: _Found, size: Size, seed: str, folder: Path) -> None:
    daemon = KilledDaemon(folder, random.Random(f"{seed}-daemon"))
    daemon.run(size.daemon)
    taken = daemon.taken()
    # Its times are the wall clock's, to a millisecond or so.
    verdict = judge(daemon.script.disk.rests, taken, hold=0.99, grace=_PATIENCE)
    found.add("killed-daemon", verdict, files=len({rest.path for rest in daemon.script.disk.rests}), taken=len(taken))
    found.measured["killed-daemon_ended_unread"] = sum(one.aside is not None for one in taken)
    found.measured["killed-daemon_demo_prompts"] = daemon.demo()
    found.broken += daemon.broken
    found.recoveries += recoveries(daemon.kills, taken)
    found.measured["killed-daemon_kills"] = size.daemon


def _lives(found: _Found, size: Size, seed: str, folder: Path) -> None:
    if not size.watcher:
        return
    script, taken = killed(folder / "k", random.Random(f"{seed}-lives"), kills=size.watcher, durable=True)
    verdict = judge(script.disk.rests, taken, hold=0.99, grace=_PATIENCE)
    found.add("killed-watcher", verdict, files=len({rest.path for rest in script.disk.rests}), taken=len(taken))
    found.measured["killed-watcher_kills"] = size.watcher


ROW = Watcher()
