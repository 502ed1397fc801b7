"""One watched folder on its way to jobs: what is settling, what is taken, what is in the way."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Final

from daemon.config.folders import RECIPE, FolderConfig, RuleConfig
from daemon.folders.complaints import Complaints
from daemon.folders.file_events import EXACT_NAMES
from daemon.folders.finder import Candidate, Finder
from daemon.folders.following import Following
from daemon.folders.identity import Facts
from daemon.folders.intake import Intake, Outcome, Verdict
from daemon.folders.settling import Settling
from daemon.views import FolderState, FolderStatus

log: Final = logging.getLogger(__name__)

#: Larger files are read on another thread, so that a film does not hold up a memo; bytes.
LARGE: Final = 32 * 1024 * 1024
#: Files taken before the watcher looks whether something else is asked of it.
_BATCH: Final = 100
#: Seconds to wait after the queue was full or the ledger unavailable; doubled each time, up to the longest.
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: Seconds after which something suspicious leads to a full scan: suspicions come in swarms.
_SUSPICION: Final = 1.0
#: Files that a scan looks at in a second, at worst and with the machine left to others most of the time.
_FILES_A_SECOND: Final = 10_000


class Patrol:
    """Knows one folder. Not thread-safe: used by the watcher's thread alone.

    1. `scan` (everything) and `hint` (one place) find files that a rule takes, and let them settle.
    2. `turn` looks at those that held still once more, and hands them to intake.
    3. What cannot be taken is a complaint, told in `status`, and tried again: when the file changes; at the next scan
       if it is about this file or rule; after a growing pause if nothing can be taken at all.
    """

    def __init__(
        self,
        folder: FolderConfig,
        *,
        finder: Finder,
        following: Following,
        complaints: Complaints,
        intake: Intake,
        background: Executor,
        wake: Callable[[], None],
        clock: Callable[[], float],
        rescan_seconds: float,
        exact_names: bool = EXACT_NAMES,
        large: int = LARGE,
        paused: bool = False,
    ) -> None:
        """*wake* is called from *background*'s threads when a turn is due; *clock* gives seconds, as for `turn`.

        *paused*: look at nothing until `pause`.
        """
        self.folder = folder
        self._finder = finder
        self._following = following
        self._complaints = complaints
        self._intake = intake
        self._background = background
        self._wake = wake
        self._clock = clock
        self._rescan_seconds = rescan_seconds
        self._exact_names = exact_names
        self._large = large
        self._settling = Settling(folder.settle_seconds)
        self._reading: dict[str, tuple[Facts, RuleConfig, Future[Outcome]]] = {}
        # Hashes of (path, facts) that need no second thought while they stay as they are: 60 bytes for each of a
        # hundred thousand files instead of 400. What counts is in the ledger.
        self._judged: set[int] = set()
        # Files that are to be judged once more when they have been read.
        self._doubted: set[str] = set()
        self._generation = 0
        self._blocked: set[int] = set()
        self._usable = False
        self._paused = paused
        self._scan_at = float("-inf")
        self._paused_until = float("-inf")
        self._pause = 0.0
        self._pause_reason: str | None = None
        #: Files that became jobs since the daemon started.
        self.taken = 0

    def scan(self, now: float) -> None:
        """Look at everything in the folder."""
        self._scan_at = now + self._rescan_seconds
        self._complaints.renew()
        self._blocked.clear()
        self._usable = self._finder.ready()
        self._following.follow(self._finder.root_identity)
        if self._following.problem:
            self._complaints.add(self._following.problem)
        if not self._usable:
            self._settling = Settling(self.folder.settle_seconds)
            return
        judged = self._judged if self._generation == self._finder.generation else set()
        self._generation = self._finder.generation
        self._judged = set()
        for found in self._finder.all():
            if (key := hash((found.relative, found.facts))) in judged:
                self._judged.add(key)
            else:
                self._track(found)

    def suspect(self, now: float) -> None:
        """Scan soon: something happened that no hint describes. The more there is to look at, the less soon."""
        self._scan_at = min(self._scan_at, now + _SUSPICION + len(self._judged) / _FILES_A_SECOND)

    def expedite(self) -> None:
        """Scan at the next turn."""
        self._scan_at = float("-inf")

    def hint(self, relative: str | None, now: float) -> None:
        """Look at a place where something may have changed; None or the folder itself: at everything, soon."""
        if not relative or relative.rpartition("/")[2] == RECIPE or not (self._exact_names or relative.isascii()):
            self.suspect(now)
        elif self._usable and not self._paused:
            for found in self._finder.at(relative):
                if hash((found.relative, found.facts)) not in self._judged:
                    self._track(found)

    def reconsider(self, relative: str, now: float) -> None:
        """Look at the file *relative* as if it had never been judged."""
        if relative in self._reading:
            self._doubted.add(relative)
            return
        for found in self._finder.at(relative):
            self._judged.discard(hash((found.relative, found.facts)))
        self.hint(relative, now)

    def pause(self, *, paused: bool) -> None:
        """Take nothing from now on, or go on with a full look at the next turn."""
        if paused and not self._paused:
            self._following.stop()
            self._settling = Settling(self.folder.settle_seconds)
            self._complaints.renew()
            self._pause_reason = None
        elif not paused:
            self.expedite()
        self._paused = paused

    def turn(self, now: float) -> None:
        """Do what is due: a scan, and a handful of files."""
        if self._paused:
            self._collect(now)
            return
        if now >= self._scan_at:
            self.scan(now)
        self._collect(now)
        if now < self._paused_until:
            return
        if not self._settling:
            self._pause, self._pause_reason = 0.0, None
        for relative in self._settling.due(now, _BATCH):
            self._take(relative, now)
            if now < self._paused_until:
                return

    def next_deadline(self) -> float:
        """Return when the next turn is due, infinity if none is."""
        if self._paused:
            return float("inf")
        settled = self._settling.next_deadline()
        return self._scan_at if settled is None else min(self._scan_at, max(settled, self._paused_until))

    def status(self) -> FolderStatus:
        """Return how the folder does."""
        problems = [part for part in (self._pause_reason, self._complaints.text()) if part]
        return FolderStatus(
            path=self.folder.path,
            state=self._state(),
            events=self._following.kind,
            cloud_pending=self._complaints.cloud_pending,
            rules=self._finder.recipes.names,
            waiting=len(self._settling) + len(self._reading),
            taken=self.taken,
            problem="; ".join(problems) or None,
        )

    def _state(self) -> FolderState:
        if self._paused:
            return FolderState.PAUSED
        if self._finder.state is FolderState.WATCHING and self._finder.recipes.standing("").problem:
            return FolderState.BROKEN
        return self._finder.state

    def _track(self, found: Candidate) -> None:
        # Not the turn's time: what the end of a long scan found has held still since then, not since its beginning.
        now = self._clock()
        if found.relative not in self._reading:
            self._settling.track(found.relative, found.facts, now)
            if found.wait:
                self._settling.postpone(found.relative, now + found.wait)

    def _take(self, relative: str, now: float) -> None:
        """Hand in a file that held still, if it still is what it was."""
        found = next(iter(self._finder.at(relative)), None)
        if found is not None and found.relative == relative and found.wait:
            self._track(found)
        elif (
            found is None
            or found.relative != relative
            or (rule := self._finder.rule(relative, found.facts)) is None
            or id(rule) in self._blocked
        ):
            self._settling.forget(relative)
        elif self._settling.track(relative, found.facts, self._clock()):
            if found.facts.size > self._large:
                self._read(relative, found.facts, rule)
            else:
                self._conclude(relative, found.facts, rule, self._file(relative, found.facts, rule), now)

    def _file(self, relative: str, facts: Facts, rule: RuleConfig) -> Outcome:
        return self._intake.file(self.folder, self.folder.path / relative, rule=rule, facts=facts)

    def _read(self, relative: str, facts: Facts, rule: RuleConfig) -> None:
        self._settling.forget(relative)
        future = self._background.submit(self._file, relative, facts, rule)
        self._reading[relative] = (facts, rule, future)
        future.add_done_callback(lambda _future: self._wake())

    def _collect(self, now: float) -> None:
        """Take in what became of files that were read in the background."""
        for relative in [path for path, (_, _, future) in self._reading.items() if future.done()]:
            facts, rule, future = self._reading.pop(relative)
            if not future.cancelled():
                self._settling.track(relative, facts, now)
                self._conclude(relative, facts, rule, future.result(), now)
            if relative in self._doubted:
                self._doubted.discard(relative)
                self.reconsider(relative, now)

    def _conclude(self, relative: str, facts: Facts, rule: RuleConfig, outcome: Outcome, now: float) -> None:
        if outcome.verdict is Verdict.LATER:
            self.hold_back(outcome.reason, now)
            return
        self._settling.forget(relative)
        if outcome.verdict in (Verdict.TAKEN, Verdict.KNOWN, Verdict.OUTPUT):
            self._judged.add(hash((relative, facts)))
            self._complaints.settled(relative, _key(rule))
            self._pause, self._pause_reason = 0.0, None
            self.taken += outcome.verdict is Verdict.TAKEN
        elif outcome.verdict is Verdict.REFUSED:
            self._complaints.tried(relative, outcome.reason)
        elif outcome.verdict is Verdict.RULE:
            self._blocked.add(id(rule))
            self._complaints.tried(_key(rule), outcome.reason)
        elif outcome.verdict is Verdict.CHANGED:
            self.hint(relative, now)

    def close(self) -> None:
        """Stop following events; the patrol is not used again."""
        self._following.stop()

    def hold_back(self, reason: str, now: float) -> None:
        """Let all files wait a while: each would meet the same *reason*."""
        self._pause = min(max(self._pause * 2, _PAUSE), _LONGEST_PAUSE)
        self._paused_until = now + self._pause
        self._pause_reason = f"files wait: {reason}"
        log.warning("Files wait: %s", reason, extra={"action": "folder_paused", "path": os.fspath(self.folder.path)})


def _key(rule: RuleConfig) -> str:
    """Return what complaints of *rule* are kept under: no relative path begins so."""
    return f"/rule/{rule.name}"
