"""What the types of the configuration cannot see: names that nobody knows, and where a value came from."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon.config.model import OVERRIDES, Config, read


def unknown_names(config: Config, *, tasks: Collection[str], runtimes: Collection[str]) -> list[str]:
    """Return a sentence for each task or runtime in *config* that no plugin offers.

    Warnings, not errors: the plugin may come later, until then the jobs wait.
    """
    return [
        f"{key}: no plugin offers the {kind} {name!r}{_near(name, known)}"
        for kind, known, named in (("task", tasks, _tasks(config)), ("runtime", runtimes, _runtimes(config)))
        for key, name in named
        if name not in known
    ]


def origins(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return for every key that does not have its default where its value comes from: *path* or a variable's name.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.

    """
    found = dict.fromkeys(_keys(read(path)), str(path))
    found.update({".".join(key): variable for variable, key in OVERRIDES.items() if environ.get(variable)})
    return found


def _tasks(config: Config) -> Iterator[tuple[str, str]]:
    for number, folder in enumerate(config.folders):
        for position, rule in enumerate(folder.rules):
            yield f"folders[{number}].rules[{position}].task", rule.task
    for number, schedule in enumerate(config.schedules):
        yield f"schedules[{number}].task", schedule.task
    for name in config.tasks:
        yield f"tasks.{name}", name


def _runtimes(config: Config) -> Iterator[tuple[str, str]]:
    for name in config.defaults.refs():
        yield f"defaults.{name}", name
    for alias, model in config.models.items():
        if model.runtime:
            yield f"models.{alias}.runtime", model.runtime


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _keys(value: Any, at: str = "") -> Iterator[str]:
    """Yield the dotted keys of a table; a list is one value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _keys(inner, f"{at}.{key}" if at else str(key))
    else:
        yield at
