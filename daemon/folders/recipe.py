"""What a watched folder, or one below it, says of itself in a file ``.mlxd.toml``.

It has what one ``[[folders]]`` entry says of rules: ``[[rules]]`` tables, or one rule's keys directly. It comes with
the folder, perhaps from elsewhere, so it may do less than the configuration: outputs stay in the folder, parameters
name no files elsewhere, and no task that reaches out of the machine is run.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from daemon.config.errors import explain
from daemon.config.folders import RECIPE, RuleConfig, Subfolders, one_rule
from daemon.folders.identity import Facts, FileChanged, is_regular, open_still
from daemon.folders.patterns import inside
from daemon.folders.rules import Placed
from jobs import toml
from jobs.errors import ConfigError
from jobs.model import Frozen

_LARGEST: Final = 64 * 1024
#: Stands for the task while the keys of a recipe are checked that names none.
_ANY_TASK: Final = "inherited"
#: Tasks that reach out of this machine.
_NOT_HERE: Final = frozenset({"deliver", "pull"})
#: Parameters that are text for a model, where a slash at the beginning is no path.
_TEXTS: Final = frozenset({"prompt", "text", "system", "template", "instruction", "content", "stop"})
#: What a recipe may say without naming a task.
_INHERITING: Final = frozenset(RuleConfig.model_fields) | {"subfolders"}


class RecipeRule(RuleConfig):
    """A rule that stays in its folder."""

    @field_validator("output", mode="after")
    @classmethod
    def _inside(cls, value: Path | None) -> Path | None:
        if value is not None and (value.is_absolute() or os.path.normpath(value).startswith("..")):
            raise ValueError(f"a folder inside this one ({RECIPE} may not write elsewhere; the configuration may)")
        return value

    @field_validator("task", mode="after")
    @classmethod
    def _local_task(cls, value: str) -> str:
        if value in _NOT_HERE:
            raise ValueError(f"another task ({RECIPE} may not use the network; the configuration may)")
        return value

    @field_validator("params", mode="after")
    @classmethod
    def _no_paths(cls, value: dict[str, Any]) -> dict[str, Any]:
        _refuse_elsewhere(value)
        return value


def _refuse_elsewhere(value: Any, key: str = "") -> None:
    """Raise ValueError if *value* names a file elsewhere or a task that goes out: others may read the results."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            _refuse_elsewhere(one, str(name))
    elif isinstance(value, (list, tuple)):
        for one in value:
            _refuse_elsewhere(one, key)
    elif isinstance(value, str) and key not in _TEXTS and value.startswith(("/", "~")):
        raise ValueError(f"no path in {key!r} ({RECIPE} may not read elsewhere; the configuration may)")
    elif key == "task" and value in _NOT_HERE:
        raise ValueError(f"no step {value!r} ({RECIPE} may not use the network; the configuration may)")


class Recipe(Frozen):
    """A whole ``.mlxd.toml``."""

    rules: tuple[RecipeRule, ...] = Field(min_length=1)
    subfolders: Subfolders = Field(default_factory=dict)

    @field_validator("subfolders", mode="after")
    @classmethod
    def _no_paths(cls, value: Subfolders) -> Subfolders:
        _refuse_elsewhere(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        return one_rule(raw) if isinstance(raw, Mapping) else raw


class OwnRecipe(NamedTuple):
    """What a folder says of itself and of those below."""

    #: Rules that stand on their own; none if it only changes some keys of those it inherits.
    rules: tuple[RuleConfig, ...]
    #: The keys of a rule that stand in it directly, checked.
    said: Mapping[str, Any]
    subfolders: Mapping[str, Mapping[str, Any]]

    def applied(self, inherited: Sequence[RuleConfig], folder: str) -> tuple[RuleConfig, ...]:
        """Return the rules in force in the sub-folder *folder* ("" for the watched one), which *inherited* those.

        1. ``[[rules]]`` take the place of the inherited ones. 2. Keys with a ``task`` are one rule, which has from the
        first inherited rule of that task whatever they do not say. 3. Keys without change every inherited rule.
        """
        wishes = next((rule.wishes for rule in inherited if isinstance(rule, Placed)), {})
        if not self.rules:
            return tuple(_changed(rule, self.said, folder) for rule in inherited)
        if not self.said:
            return tuple(
                _changed(_fresh(rule, wishes), rule.model_dump(exclude_unset=True), folder) for rule in self.rules
            )
        task = self.said["task"]
        base = next((rule for rule in inherited if rule.task == task), None) or _fresh(RuleConfig(task=task), wishes)
        return (_changed(base, self.said, folder),)


def _fresh(rule: RuleConfig, wishes: Mapping[str, Any]) -> Placed:
    return Placed(task=rule.task, wishes=dict(wishes))


def _changed(rule: RuleConfig, said: Mapping[str, Any], folder: str) -> Placed:
    """Return *rule* with the keys *said* in *folder* in place of its own; parameters are replaced one by one."""
    values = rule.model_dump() | dict(said)
    values["params"] = {**rule.params, **said.get("params", {})}
    if isinstance(rule, Placed):
        values["wishes"] = {key: value for key, value in rule.wishes.items() if key not in said.get("params", {})}
    for key in ("match", "exclude"):
        if key in said:
            values[key] = tuple(inside(pattern, folder) for pattern in said[key])
    if "output" in said:
        values["output_at"] = folder
    return Placed.model_validate(values)


def recipe_status(folder: Path) -> os.stat_result | None:
    """Return the state of the recipe file in *folder*, None if there is none; cheap enough for every rescan."""
    try:
        status = (folder / RECIPE).lstat()
    except OSError:
        return None
    return status if is_regular(status) else None


def folder_recipe(folder: Path) -> OwnRecipe | None:
    """Return what *folder* says of itself, None if it has no recipe file.

    Raises:
        ConfigError: the file is wrong, or cannot be read.

    """
    path = folder / RECIPE
    status = recipe_status(folder)
    if status is None:
        return None
    facts = Facts.of(status)
    if facts.size > _LARGEST:
        raise ConfigError(f"{path}: too large for a recipe ({facts.size} bytes)", file=str(path))
    raw = _parse(path, facts)
    loose = raw.keys() & RuleConfig.model_fields.keys()
    inherits = "rules" not in raw and "task" not in raw and bool(raw.keys() & _INHERITING)
    try:
        recipe = Recipe.model_validate({**raw, "task": _ANY_TASK} if inherits else raw)
    except ValidationError as error:
        raise explain(error, file=path, raw=raw, model=Recipe) from None
    said = {key: getattr(recipe.rules[0], key) for key in loose} if loose and "rules" not in raw else {}
    return OwnRecipe(() if inherits else recipe.rules, said, recipe.subfolders)


def _parse(path: Path, facts: Facts) -> dict[str, Any]:
    try:
        with os.fdopen(open_still(path, facts), "rb") as file:
            return toml.parse(file.read().decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", file=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", file=str(path)) from None
    except (OSError, FileChanged) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", file=str(path)) from None
