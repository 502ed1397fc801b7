"""The rules a watched folder carries itself, in a file ``.mlxd.toml``.

It has what one ``[[folders]]`` entry says of rules: ``[[rules]]`` tables, or one rule's keys directly. It comes with
the folder, perhaps from elsewhere, so it may do less than the configuration: outputs stay in the folder.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError, field_validator, model_validator

from daemon.config.errors import explain
from daemon.config.folders import RECIPE, RuleConfig, one_rule
from daemon.folders.identity import Facts, FileChanged, is_regular, open_still
from jobs.errors import ConfigError
from jobs.model import Frozen

_LARGEST: Final = 64 * 1024


class RecipeRule(RuleConfig):
    """A rule that stays in its folder."""

    @field_validator("output", mode="after")
    @classmethod
    def _inside(cls, value: Path | None) -> Path | None:
        if value is not None and (value.is_absolute() or os.path.normpath(value).startswith("..")):
            raise ValueError(f"a folder inside this one ({RECIPE} may not write elsewhere; the configuration may)")
        return value


class Recipe(Frozen):
    """A whole ``.mlxd.toml``."""

    rules: tuple[RecipeRule, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        return one_rule(raw) if isinstance(raw, Mapping) else raw


def recipe_facts(folder: Path) -> Facts | None:
    """Return the state of the recipe file in *folder*, None if there is none; cheap enough for every rescan."""
    try:
        status = (folder / RECIPE).lstat()
    except OSError:
        return None
    return Facts.of(status) if is_regular(status) else None


def folder_recipe(folder: Path) -> tuple[RuleConfig, ...] | None:
    """Return the rules that *folder* carries itself, None if it has no recipe file.

    Raises:
        ConfigError: the file is wrong, or cannot be read.

    """
    path = folder / RECIPE
    facts = recipe_facts(folder)
    if facts is None:
        return None
    if facts.size > _LARGEST:
        raise ConfigError(f"{path}: too large for a recipe ({facts.size} bytes)", file=str(path))
    raw = _parse(path, facts)
    try:
        return Recipe.model_validate(raw).rules
    except ValidationError as error:
        raise explain(error, file=path, raw=raw, model=Recipe) from None


def _parse(path: Path, facts: Facts) -> dict[str, Any]:
    try:
        with os.fdopen(open_still(path, facts), "rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", file=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", file=str(path)) from None
    except (OSError, FileChanged) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", file=str(path)) from None
