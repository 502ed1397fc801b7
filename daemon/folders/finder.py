"""Which files of one watched folder are inputs: its rules, and what they find on disk."""

from __future__ import annotations

import os
import stat
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
from daemon.folders.recipe import folder_recipe, recipe_facts
from daemon.folders.rules import choose, output_folders, rules_of
from daemon.folders.scan import walk
from jobs.errors import ConfigError


class Candidate(NamedTuple):
    """A file that a rule takes."""

    #: Relative to the watched folder, as the system spells it.
    relative: str
    facts: Facts


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
    ) -> None:
        """*excluded* are other watched folders: those that lie in this one are left to their own rules."""
        self._folder = folder
        self._root = str(folder.path)
        self._complaints = complaints
        self._excluded = frozenset(
            path.relative_to(folder.path).as_posix() for path in excluded if folder.path in path.parents
        )
        self._dataless = dataless
        self._access = access or Access(partial(_peek, folder.path))
        self._recipe: tuple[Facts | None] | None = None
        self._recipe_problem: str | None = None
        self._outputs: frozenset[str] = frozenset()
        #: The rules in force.
        self.rules: tuple[RuleConfig, ...] = rules_of(folder, None)
        #: (device, inode) of the folder, None while it cannot be used.
        self.root_identity: tuple[int, int] | None = None
        #: Grows when other rules come into force.
        self.generation = 0

    def ready(self) -> bool:
        """Return whether the folder can be looked into now, and complain if not. Reads its recipe if that changed."""
        self.root_identity = self._reach()
        if self.root_identity is None:
            return False
        self._read_recipe()
        if self._recipe_problem:
            self._complaints.add(self._recipe_problem)
        return self._recipe_problem is None

    def all(self) -> Iterator[Candidate]:
        """Yield every candidate in the folder."""
        return self._below("")

    def at(self, relative: str) -> Iterator[Candidate]:
        """Yield the candidate at this place, or those below it if it is a folder; nothing if it is gone."""
        if self._is_pruned(relative) or self._leads_out(relative):
            return
        path = f"{self._root}/{relative}"
        try:
            status = os.lstat(path)
        except OSError:
            return
        name = relative.rpartition("/")[2]
        if stat.S_ISDIR(status.st_mode):
            if self._folder.recursive and not is_ignored_folder(name) and not self._prunes(relative):
                yield from self._below(relative)
        elif not is_ignored_file(name):
            yield from self._judge(relative, lambda: status)

    def rule(self, relative: str) -> RuleConfig | None:
        """Return the rule that takes this file."""
        return choose(self.rules, relative)

    def _reach(self) -> tuple[int, int] | None:
        if self._folder.create:
            self._create()
        if not self._access.granted():
            self._complaints.add("the folder does not answer: grant access if the system asks, or check the server")
            return None
        try:
            status = self._folder.path.stat()
        except FileNotFoundError:
            self._complaints.add("the folder does not exist; it is watched as soon as it appears")
            return None
        except OSError as error:
            self._complaints.add(f"the folder cannot be reached: {describe(error)}")
            return None
        if not stat.S_ISDIR(status.st_mode):
            self._complaints.add("this is no folder")
            return None
        return status.st_dev, status.st_ino

    def _create(self) -> None:
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._complaints.add(f"the folder cannot be made: {describe(error)}")

    def _read_recipe(self) -> None:
        facts = recipe_facts(self._folder.path) if self._folder.recipe else None
        if self._recipe == (facts,):
            return
        self._recipe, self._recipe_problem = (facts,), None
        try:
            own = folder_recipe(self._folder.path) if facts else None
        except ConfigError as error:
            self._recipe_problem = error.message
            return
        self.rules = rules_of(self._folder, own)
        self._outputs = output_folders(self._folder, self.rules)
        self.generation += 1

    def _below(self, start: str) -> Iterator[Candidate]:
        found = walk(
            self._root, start, recursive=self._folder.recursive, pruned=self._prunes, on_error=self._cannot_list
        )
        for relative, entry in found:
            yield from self._judge(relative, partial(entry.stat, follow_symlinks=False))

    def _judge(self, relative: str, look: Callable[[], os.stat_result]) -> Iterator[Candidate]:
        # The rules first: a name costs less than a stat.
        if choose(self.rules, relative) is None:
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
        yield Candidate(relative, Facts.of(status))

    def _prunes(self, relative: str) -> bool:
        return relative in self._excluded or relative in self._outputs

    def _is_pruned(self, relative: str) -> bool:
        """Tell whether some folder above *relative* is not looked into."""
        parts = relative.split("/")[:-1]
        if parts and not self._folder.recursive:
            return True
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return any(is_ignored_folder(part) for part in parts) or any(map(self._prunes, above))

    def _leads_out(self, relative: str) -> bool:
        """Tell whether some folder on the way to *relative* is a link; a scan does not follow one either."""
        above = relative.rpartition("/")[0]
        return bool(above) and os.path.realpath(f"{self._root}/{above}") != f"{os.path.realpath(self._root)}/{above}"

    def _cannot_list(self, relative: str, error: OSError) -> None:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) and relative:
            return  # gone since it was listed
        sentence = f"cannot be listed: {describe(error)}"
        if relative:
            self._complaints.at(relative, f"{relative} {sentence}")
        else:
            self._complaints.add(f"the folder {sentence}")


def _peek(folder: Path) -> None:
    with os.scandir(folder) as entries:
        next(entries, None)
