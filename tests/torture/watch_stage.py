"""A real watcher on a real folder and a real ledger, under a clock turned by hand, while scenes are played."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from daemon.config.folders import FolderConfig
from daemon.folders.finder import Finder
from daemon.folders.intake import Intake
from daemon.folders.patrol import Patrol
from daemon.folders.watcher import Watcher
from jobs.accepting import SeenFile
from jobs.ledger import Ledger
from jobs.model import Job, NewJob
from torture.event_shapes import LikeFSEvents, Real, Silence
from torture.scenes import Scene, Stage
from torture.watch_verdict import Taken, WatchVerdict, judge
from torture.watched_disk import WatchedDisk, wall_stamp

#: Seconds by the hand-turned clock: settling, between rescans, of one step.
HOLD: Final = 1.0
RESCAN: Final = 5.0
TICK: Final = 0.25
#: What must be taken is taken within this time after it settled: a rescan, and a step on either side of it.
GRACE: Final = RESCAN + 3 * TICK
#: Files of this many bytes and more are read on the second thread, so that both ways are walked.
LARGE: Final = 6000

Ears = Silence | Real | LikeFSEvents


class Clock:
    """Seconds that pass when the campaign says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Recording:
    """The ledger as intake sees it, and a list of what became jobs, each with the content that the job would read."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.ledger = Ledger(path)
        self.taken: list[Taken] = []
        self._clock = clock
        self.seen, self.remember = self.ledger.seen, self.ledger.remember
        self.get, self.is_output = self.ledger.get, self.ledger.is_output

    def submit(self, new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        """Write the job down, and look at its input."""
        job, created = self.ledger.add(new, limit=None, seen=seen)
        if created:
            path, kind = str(new.params["file"]), (seen or (None, ""))[1].split(":")
            read = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            self.taken.append(Taken(path, kind[1] if kind[0] == "content" else None, read, self._clock()))
        return job, created


class Opened:
    """Which of the *closed* paths this process ever opened. There is one for each process: hooks cannot be removed."""

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self.touched: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)) and os.fsdecode(args[0]) in self.closed:
            self.touched.append(os.fsdecode(args[0]))


class Play:
    """Plays scenes before a watcher that hears by *ears*; `judge` says what came of it."""

    def __init__(
        self,
        folder: Path,
        ears: Ears,
        chance: random.Random,
        *,
        opened: Opened | None = None,
        hold: float = HOLD,
        rescan: float = RESCAN,
    ) -> None:
        """*hold* and *rescan* are the watcher's: controls have others than the promise."""
        self.root = folder / "in"
        self.clock = Clock()
        self.ears = ears
        self.disk = WatchedDisk(
            self.root, folder / "out", clock=self.clock, chance=chance, stamp=wall_stamp(self.clock)
        )
        self.disk.outside.mkdir(parents=True)
        self.root.mkdir()
        if opened is not None:
            opened.closed = self.disk.closed
        self.recording = Recording(folder / "ledger.sqlite3", self.clock)
        self.watcher = Watcher(
            intake=Intake(submit=self.recording.submit, ledger=self.recording),
            clock=self.clock,
            observer_factory=ears.factory,
            rescan_seconds=rescan,
            finder=partial(Finder, dataless=lambda status: status.st_ino in self.disk.dataless),
        )
        self._config = FolderConfig(path=self.root, task="stub", settle_seconds=hold, events=ears.kind)
        self._waves = itertools.count()
        self.scenes = 0

    def __enter__(self) -> Self:
        self.watcher.start([self._config])
        self._settle_down()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.watcher.stop()
        self.recording.ledger.close()

    def wave(self, scenes: Sequence[Scene]) -> None:
        """Play *scenes* at once, begun within a few seconds of each other, to their end, and let all of it settle."""
        folder = self.root / f"wave{next(self._waves)}"
        stages = (Stage(self.disk, folder, hold=HOLD, long=HOLD + GRACE + TICK) for _ in scenes)
        plays = [scene(stage) for scene, stage in zip(scenes, stages, strict=True)]
        queue = [(self.clock() + self.disk.chance.uniform(0, 4), number) for number in range(len(plays))]
        heapq.heapify(queue)
        self.scenes += len(plays)
        while queue:
            while queue and queue[0][0] <= self.clock():
                due, number = heapq.heappop(queue)
                if (pause := next(plays[number], None)) is not None:
                    heapq.heappush(queue, (due + pause, number))
            self.step()
        self.rest()

    def rest(self) -> None:
        """Let what lies there settle: also what is empty."""
        for _ in range(int((HOLD * 10 + GRACE) / TICK) + 2):
            self.step()

    def step(self) -> None:
        """Tell the watcher what has changed, as far as it hears, and let a quarter of a second pass."""
        self.ears.deliver(self.disk.told())
        self.clock.now += TICK
        self.watcher.wake()
        self._settle_down()

    def rename_away_and_back(self) -> None:
        """The watched folder itself is away for a while: for an emitter of FSEvents that is the end."""
        away = self.root.with_name("away")
        self.root.rename(away)
        if isinstance(self.ears, LikeFSEvents):
            self.ears.end()
        for _ in range(self.disk.chance.randrange(1, 9)):
            self.step()
        away.rename(self.root)

    def judge(self, *, hold: float = HOLD) -> WatchVerdict:
        """Return the verdict, by the promise's times."""
        verdict = judge(self.disk.rests, self.recording.taken, hold=hold, grace=GRACE)
        if "files wait" in (problem := self.watcher.status()[0].problem or ""):
            verdict.late.append(f"in the end the folder is held back: {problem}")
        return verdict

    def _settle_down(self) -> None:
        """Return when the watcher's thread has nothing more to do at this time."""
        while not self.watcher._ask(self._idle):
            if not self.watcher._thread.is_alive():
                raise RuntimeError("the watcher's thread has ended")

    def _idle(self) -> bool:
        patrols = self.watcher._patrols.values()
        return all(patrol.next_deadline() > self.clock() and not patrol._reading for patrol in patrols)


@contextmanager
def as_on_a_mac(*, exact_names: bool, large: int = LARGE) -> Iterator[None]:
    """Let patrols trust the spelling of names in events or not, and read small files on their second thread too."""
    defaults = Patrol.__init__.__kwdefaults__
    kept = dict(defaults)
    defaults.update(exact_names=exact_names, large=large)
    try:
        yield
    finally:
        defaults.update(kept)
