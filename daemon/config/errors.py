"""What is wrong with a configuration, said so that a person can put it right."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.config.withheld import secretive
from jobs.errors import ConfigError

_LONGEST: Final = 60
_UNKNOWN: Final = "no such key"

#: pydantic's error types -> what was wanted, with the error's own context filled in.
_WANTED: Final = {
    "missing": "a value: this key is required",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "enum": "{expected}",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' only",
    "value_error": "{error}",
}


class Problem(NamedTuple):
    """One mistake."""

    #: ``folders[1].rules[0].task``.
    key: str
    #: What stands there, shortened; empty if nothing does.
    got: str
    #: What should stand there.
    wanted: str

    def __str__(self) -> str:
        if self.wanted.startswith(_UNKNOWN):
            return f"{self.key}: {self.wanted}"
        return f"{self.key}: {f'got {self.got}, ' if self.got else ''}wanted {self.wanted}"


def explain(
    error: ValidationError,
    *,
    file: Path,
    raw: Mapping[str, Any],
    model: type[BaseModel],
    names: Mapping[str, str] | None = None,
) -> ConfigError:
    """Return the `ConfigError` that tells every mistake in *error* at once.

    *raw* is what was validated as *model*; *names* says which keys came from elsewhere than the file, and whence.
    """
    problems = _once(_problem(details, raw=raw, model=model, names=names or {}) for details in error.errors())
    lines = [str(problem) for problem in problems]
    text = f"{file}: {lines[0]}" if len(lines) == 1 else f"{file} has {len(lines)} mistakes:\n  " + "\n  ".join(lines)
    return ConfigError(text, file=str(file), problems=[problem._asdict() for problem in problems])


def _once(problems: Any) -> list[Problem]:
    """Keep one problem of each key: the branches of a union each complain of the same value."""
    first: dict[str, Problem] = {}
    for problem in problems:
        seen = first.setdefault(problem.key, problem)
        if seen is not problem and problem.wanted not in seen.wanted:
            first[problem.key] = seen._replace(wanted=f"{seen.wanted} or {problem.wanted}")
    return list(first.values())


def _problem(
    details: ErrorDetails, *, raw: Mapping[str, Any], model: type[BaseModel], names: Mapping[str, str]
) -> Problem:
    location = _as_written(details["loc"], raw)
    key = dotted(location)
    if details["type"] == "extra_forbidden":
        return Problem(key=key, got="", wanted=f"{_UNKNOWN}{_suggest(details['loc'], model)}")
    wanted = _WANTED.get(details["type"], details["msg"]).format_map(_Facts(details.get("ctx", {})))
    hidden = details["type"] == "missing" or secretive(details["loc"])
    got = "" if hidden else _short(details["input"])
    return Problem(key=f"{key} (from {names[key]})" if key in names else key or "the file", got=got, wanted=wanted)


class _Facts(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return key


def _as_written(location: Sequence[str | int], raw: Any) -> list[str | int]:
    """Drop the parts of *location* that the file does not have: union branches, and the rule made of a shorthand."""
    kept: list[str | int] = []
    here = raw
    for index, part in enumerate(location):
        last = index == len(location) - 1
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            # Only the last part may be missing from the file: a required key.
            if last and isinstance(part, str) and isinstance(here, Mapping) and not _is_branch(part):
                kept.append(part)
            continue
        kept.append(part)
    return kept


def _is_branch(part: str) -> bool:
    return "[" in part or part in {"bool", "int", "str"}


def dotted(location: Sequence[str | int]) -> str:
    """Return *location* as ``folders[1].rules[0].task``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _short(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _suggest(location: Sequence[str | int], model: type[BaseModel]) -> str:
    known = known_keys(model, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f" (there are: {', '.join(sorted(known))})" if known else ""


def known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys that the table at *location* of *model* may have."""
    here: Any = model
    for part in location:
        here = _below(here, part)
    keys = list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
    # A folder takes one rule's keys as well, as a shorthand: the rules' own model knows them.
    return keys + [key for key in known_keys(here, ("rules", 0)) if key not in keys] if "rules" in keys else keys


def _below(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = [item for item in get_args(annotation) if item not in (..., type(None))]
    if get_origin(annotation) in (Union, UnionType):
        return next((found for item in arguments if (found := _below(item, part)) is not None), None)
    return arguments[-1] if arguments else None
