"""Which rules are in force in which sub-folder: the configuration's, changed by each folder's word on the way down.

Closer counts more, key by key. On the way from the watched folder to a file, for each folder: first what the folders
above say of it by its name (``subfolders``), then its own ``.mlxd.toml``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daemon.config.folders import RECIPE, FolderConfig, RuleConfig
from daemon.folders.identity import Facts, is_dataless
from daemon.folders.patterns import matches
from daemon.folders.recipe import OwnRecipe, folder_recipe, recipe_status
from daemon.folders.rules import Placed, output_folders, rules_of
from jobs.errors import ConfigError


class Standing(NamedTuple):
    """What counts in one folder."""

    rules: tuple[RuleConfig, ...]
    #: (folder that says it, sub-folder -> parameters), outermost first.
    tables: tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...]
    #: What is wrong with its recipe or one above; its files are left alone meanwhile.
    problem: str | None = None


class _Known(NamedTuple):
    facts: Facts
    #: Its content is still in a cloud: opening it would wait for the download.
    in_cloud: bool
    recipe: OwnRecipe | None
    problem: str | None


class Recipes:
    """The recipes of one watched folder and those below, as they were when `look` was last called for each."""

    def __init__(self, folder: FolderConfig, dataless: Callable[[os.stat_result], bool] = is_dataless) -> None:
        self._folder = folder
        self._dataless = dataless
        #: Relative path of a folder ("" for the watched one) -> its recipe; only of folders that have one.
        self._known: dict[str, _Known] = {}
        self._standing: dict[str, Standing] = {}
        #: Folders below that hold outputs, relative.
        self.outputs: frozenset[str] = frozenset()
        self._gather()

    def look(self, at: str, *, present: bool = True) -> bool:
        """Read the recipe of the folder *at* again if it changed; return whether it did. *present*: it may have one."""
        status = recipe_status(self._folder.path / at) if present and self._folder.recipe else None
        now = None if status is None else (Facts.of(status), self._dataless(status))
        known = self._known.get(at)
        if (known and known[:2]) == now:
            return False
        if now is None:
            del self._known[at]
        else:
            self._known[at] = _read(self._folder.path / at, *now)
        self._standing.clear()
        self._gather()
        return True

    def look_above(self, relative: str) -> None:
        """Look at every folder above the file *relative*."""
        parts = relative.split("/")[:-1]
        for depth in range(len(parts) + 1):
            self.look("/".join(parts[:depth]))

    def standing(self, at: str) -> Standing:
        """Return what counts in the folder *at*."""
        found = self._standing.get(at)
        if found is None:
            found = self._standing[at] = self._work_out(at)
        return found

    def rules_for(self, relative: str) -> tuple[RuleConfig, ...]:
        """Return the rules for the file *relative*."""
        return self.standing(relative.rpartition("/")[0]).rules

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all rules, the watched folder's first."""
        folders = ("", *sorted(self._known.keys() - {""}))
        return tuple(dict.fromkeys(rule.name for at in folders for rule in self.standing(at).rules))

    def problems(self) -> dict[str, str]:
        """Return folder -> what is wrong with its own recipe."""
        return {at: known.problem for at, known in self._known.items() if known.problem}

    def _work_out(self, at: str) -> Standing:
        if at:
            above, name = at.rpartition("/")[::2]
            found = self._named(self.standing(above), at, name)
        else:
            tables = (("", self._folder.subfolders),) if self._folder.subfolders else ()
            found = Standing(rules_of(self._folder, None), tables)
        known = self._known.get(at)
        if known is None or found.problem:
            return found
        if known.recipe is None:
            return Standing((), found.tables, known.problem)
        own = ((at, known.recipe.subfolders),) if known.recipe.subfolders else ()
        return Standing(known.recipe.applied(found.rules, at), (*found.tables, *own))

    def _named(self, above: Standing, at: str, name: str) -> Standing:
        """Return what *above* becomes in its sub-folder *at* by that folder's *name*."""
        wishes: dict[str, Any] = {}
        for base, table in above.tables:
            inner = at.removeprefix(f"{base}/") if base else at
            for pattern, params in table.items():
                if matches((pattern,), inner):
                    wishes |= {key: _filled(value, name) for key, value in params.items()}
        return above._replace(rules=tuple(_wishing(rule, wishes) for rule in above.rules)) if wishes else above

    def _gather(self) -> None:
        rules = [rule for at in ("", *self._known) for rule in self.standing(at).rules]
        self.outputs = output_folders(self._folder, rules)


def _read(folder: Path, facts: Facts, in_cloud: bool) -> _Known:
    if in_cloud:
        return _Known(facts, in_cloud, None, f"{folder / RECIPE} is still in the cloud; its folder waits for it")
    try:
        return _Known(facts, in_cloud, folder_recipe(folder), None)
    except ConfigError as error:
        return _Known(facts, in_cloud, None, error.message)


def _filled(value: Any, name: str) -> Any:
    return value.replace("{folder}", name) if isinstance(value, str) else value


def _wishing(rule: RuleConfig, wishes: Mapping[str, Any]) -> Placed:
    before = rule.wishes if isinstance(rule, Placed) else {}
    return Placed.model_validate({**rule.model_dump(), "wishes": {**before, **wishes}})
