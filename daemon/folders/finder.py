"""Which files of one watched folder are inputs: its rules, and what they find on disk."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.access import Access
from daemon.folders.complaints import Complaints
from daemon.folders.identity import Facts, is_dataless, is_regular
from daemon.folders.ignored import is_ignored_file, is_ignored_folder
from daemon.folders.intake import describe
from daemon.folders.obstacles import Obstacle, denied, hanging, missing, unmounted
from daemon.folders.recipes import Recipes
from daemon.folders.rules import choose, patience
from daemon.folders.scan import walk
from daemon.views import FolderState


class Candidate(NamedTuple):
    """A file that a rule takes."""

    #: Relative to the watched folder, as the system spells it.
    relative: str
    facts: Facts
    #: Seconds until it is old enough for its rule.
    wait: float = 0.0


class Finder:
    """Looks into one folder. Not thread-safe: used by the watcher's thread alone."""

    def __init__(
        self,
        folder: FolderConfig,
        *,
        complaints: Complaints,
        excluded: frozenset[Path] = frozenset(),
        dataless: Callable[[os.stat_result], bool] = is_dataless,
        access: Access | None = None,
        wall: Callable[[], float] = time.time,
        platform: str = sys.platform,
    ) -> None:
        """*excluded* are other watched folders: those that lie in this one are left to their own rules.

        *wall* gives seconds since 1970, for the files' age.
        """
        self._folder = folder
        self._root = str(folder.path)
        self._complaints = complaints
        self._excluded = frozenset(
            path.relative_to(folder.path).as_posix() for path in excluded if folder.path in path.parents
        )
        self._dataless = dataless
        self._access = access or Access(partial(_peek, folder.path))
        self._wall = wall
        self._platform = platform
        self.recipes = Recipes(folder, dataless)
        #: Whether the folder can be used, as it was found last.
        self.state = FolderState.WATCHING
        #: (device, inode) of the folder, None while it cannot be used.
        self.root_identity: tuple[int, int] | None = None
        #: Grows when other rules come into force.
        self.generation = 0

    def ready(self) -> bool:
        """Return whether the folder can be looked into now, and complain if not. Reads its recipe if that changed."""
        self.state = FolderState.WATCHING
        self.root_identity = self._reach()
        if self.root_identity is None:
            return False
        self.enter("")
        problem = self.recipes.standing("").problem
        if problem:
            self._complaints.add(problem)
        return problem is None

    @property
    def rules(self) -> tuple[RuleConfig, ...]:
        """Return the rules in force in the watched folder itself."""
        return self.recipes.standing("").rules

    def all(self) -> Iterator[Candidate]:
        """Yield every candidate in the folder."""
        return self._below("")

    def at(self, relative: str) -> Iterator[Candidate]:
        """Yield the candidate at this place, or those below it if it is a folder; nothing if it is gone."""
        if self._is_pruned(relative) or self._leads_out(relative):
            return
        self.enter_above(relative)
        path = f"{self._root}/{relative}"
        try:
            status = os.lstat(path)
        except OSError:
            return
        name = relative.rpartition("/")[2]
        if stat.S_ISDIR(status.st_mode):
            if self._folder.recursive and not is_ignored_folder(name) and not self.prunes(relative):
                yield from self._below(relative)
        elif not is_ignored_file(name):
            yield from self._judge(relative, lambda: status)

    def rule(self, relative: str, facts: Facts) -> RuleConfig | None:
        """Return the rule that takes this file as it is now."""
        rules, age = self.recipes.rules_for(relative), self.age(facts)
        return choose(rules, relative, size=facts.size, age=age)

    def age(self, facts: Facts) -> float:
        """Return the seconds since the file's last change; a time in the future counts as now."""
        return max(0.0, self._wall() - facts.mtime_ns / 1e9)

    def _reach(self) -> tuple[int, int] | None:
        path = self._folder.path
        if self._folder.create:
            self._create()
        if not self._access.granted():
            self._refuse(hanging(path, self._platform))
            return None
        try:
            status = path.stat()
        except FileNotFoundError:
            self._refuse(missing(path))
            return None
        except OSError as error:
            self._refuse(denied(path, error, self._platform))
            return None
        if not stat.S_ISDIR(status.st_mode):
            self._refuse(Obstacle(FolderState.BROKEN, "this is no folder"))
            return None
        return status.st_dev, status.st_ino

    def _refuse(self, obstacle: Obstacle) -> None:
        self.state = obstacle.state
        self._complaints.add(obstacle.sentence)

    def _create(self) -> None:
        try:
            if unmounted(self._folder.path) is None:
                self._folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._complaints.add(f"the folder cannot be made: {describe(error)}")

    def enter(self, at: str, *, present: bool = True) -> None:
        """Read the recipe of the sub-folder *at* if it changed, and complain if it is wrong."""
        if self.recipes.look(at, present=present):
            self.generation += 1
        problem = self.recipes.problems().get(at)
        if problem and at:
            self._complaints.at(at, problem)

    def _below(self, start: str) -> Iterator[Candidate]:
        found = walk(
            self._root,
            start,
            recursive=self._folder.recursive,
            pruned=self.prunes,
            on_error=self._cannot_list,
            on_folder=lambda at, has_recipe: self.enter(at, present=has_recipe),
        )
        for relative, entry in found:
            yield from self._judge(relative, partial(entry.stat, follow_symlinks=False))

    def _judge(self, relative: str, look: Callable[[], os.stat_result]) -> Iterator[Candidate]:
        # The rules first: a name costs less than a stat.
        rules = self.recipes.rules_for(relative)
        if choose(rules, relative) is None:
            return
        try:
            status = look()
        except OSError:
            return  # gone since it was listed
        if not is_regular(status):
            return
        if self._dataless(status):
            self._complaints.in_cloud(relative)
            return
        facts = Facts.of(status)
        if self.rule(relative, facts) is not None:
            yield Candidate(relative, facts)
        elif wait := patience(rules, relative, size=facts.size, age=self.age(facts)):
            yield Candidate(relative, facts, wait)

    def enter_above(self, relative: str) -> None:
        """Read the recipes of all folders above *relative* that changed."""
        self.recipes.look_above(relative)

    def prunes(self, relative: str) -> bool:
        """Tell whether the sub-folder *relative* holds outputs or is watched by itself."""
        return relative in self._excluded or relative in self.recipes.outputs

    def _is_pruned(self, relative: str) -> bool:
        """Tell whether some folder above *relative* is not looked into."""
        parts = relative.split("/")[:-1]
        if parts and not self._folder.recursive:
            return True
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return any(is_ignored_folder(part) for part in parts) or any(map(self.prunes, above))

    def _leads_out(self, relative: str) -> bool:
        """Tell whether some folder on the way to *relative* is a link; a scan does not follow one either."""
        above = relative.rpartition("/")[0]
        if not above:
            return False
        try:
            return os.path.realpath(f"{self._root}/{above}") != f"{os.path.realpath(self._root)}/{above}"
        except OSError:  # it changes from a link to a folder while it is looked at
            return True

    def _cannot_list(self, relative: str, error: OSError) -> None:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) and relative:
            return  # gone since it was listed
        sentence = f"cannot be listed: {describe(error)}"
        if relative:
            self._complaints.at(relative, f"{relative} {sentence}")
        else:
            self._refuse(denied(self._folder.path, error, self._platform, what="listed"))


def _peek(folder: Path) -> None:
    with os.scandir(folder) as entries:
        next(entries, None)
