"""Watched folders in the configuration: ``[[folders]]``, their rules, and the recipe a folder carries itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from daemon.config.units import Seconds, Size
from jobs.model import After, Frozen, Lane

#: Name of the file in a watched folder that holds its own rules.
RECIPE: Final = ".mlxd.toml"
#: What a rule's ``stem`` may fill in.
STEM_WORDS: Final = ("stem", "name", "suffix", "folder", "date", "time", "rule", "task")


def expand(value: str, info: ValidationInfo) -> Path:
    """Expand ``~``; a relative path counts from the configuration file's folder when one is being read."""
    context = info.context or {}
    if value == "~" or value.startswith("~/"):
        value = str(context.get("user") or Path.home()) + value[1:]
    path = Path(value)
    return path if path.is_absolute() or "base" not in context else context["base"] / path


def _place(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and value:
        return Path(os.path.normpath(expand(value, info)))
    if isinstance(value, Path):
        return value
    raise ValueError("a path")


def _tilde(value: Any, info: ValidationInfo) -> Any:
    """Expand ``~`` alone: a relative output folder counts from the watched folder, not from the file."""
    if isinstance(value, str) and value.startswith("~"):
        return expand(value, info)
    return None if value == "beside" else value


def listed(value: Any) -> Any:
    """Let one string stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Globs = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(listed)]
Switch = Annotated[bool, Field(strict=True)]
#: Sub-folder -> parameters.
Subfolders = dict[Annotated[str, Field(min_length=1)], dict[str, Any]]


class RuleConfig(Frozen):
    """``[[folders.rules]]``: which files of a folder become which jobs."""

    #: Shown in listings and kept with the job. Default: the task's name.
    name: str = ""
    #: The task to run.
    task: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: File patterns taken; without a slash they match the name at any depth. Default: what suits the task.
    match: Globs = ()
    #: File patterns left alone although they match.
    exclude: Globs = ()
    #: Smallest and largest file taken, bytes.
    min_size: Size | None = None
    max_size: Size | None = None
    #: Seconds since the file's last change: a younger one waits, an older one is left alone.
    min_age: Seconds | None = None
    max_age: Seconds | None = None
    #: The task's parameters; ``file`` is set to the input.
    params: dict[str, Any] = Field(default_factory=dict)
    #: Lane of the jobs.
    lane: Lane = Lane.NORMAL
    #: Within the lane higher runs first.
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0
    #: Folder of the outputs, relative to the watched folder; None ("beside"): beside the input.
    output: Annotated[Path | None, BeforeValidator(_tilde)] = None
    #: What becomes of an input whose job succeeded.
    after: After = After.LEAVE
    #: Whether a recorded result may stand for doing the same content again; None: as ``[outputs]`` says.
    reuse: Switch | None = None
    #: Whether the outputs get a ``.mlxd.json``; None: as ``[outputs]`` says.
    provenance: Switch | None = None
    #: Name of the outputs without suffix, perhaps with folders in it; the words of `STEM_WORDS` are filled in.
    stem: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and not raw.get("name") and isinstance(raw.get("task"), str):
            return {**raw, "name": raw["task"]}
        return raw

    @field_validator("stem", mode="after")
    @classmethod
    def _fits(cls, value: str) -> str:
        try:
            value.format(**dict.fromkeys(STEM_WORDS, ""))
        except (KeyError, IndexError, ValueError, AttributeError):
            *words, last = (f"{{{word}}}" for word in STEM_WORDS)
            raise ValueError(f"a name with only {', '.join(words)} and {last} filled in") from None
        return value

    @model_validator(mode="after")
    def _limits(self) -> Self:
        for least, most, what in ((self.min_size, self.max_size, "size"), (self.min_age, self.max_age, "age")):
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{what} of at most max_{what}: this rule takes nothing")
        return self


#: Keys of a rule that may stand directly in the folder: it then has this one rule.
_SHORTHAND: Final = frozenset(RuleConfig.model_fields)


class FolderConfig(Frozen):
    """``[[folders]]``: a folder whose files become jobs."""

    #: The folder; relative paths count from the configuration file's folder.
    path: Annotated[Path, BeforeValidator(_place)]
    #: The first rule that matches a file takes it. Default: recordings are transcribed, text files answered.
    rules: tuple[RuleConfig, ...] = ()
    #: How long a file must hold still before it is taken.
    settle_seconds: Seconds = 2.0
    #: Whether files in folders below count too.
    recursive: Switch = True
    #: Whether the same content is done again when it comes under another name or a second time.
    again: Switch = False
    #: Whether the folder is watched at all.
    enabled: Switch = True
    #: Whether the folder is made when it is missing.
    create: Switch = False
    #: Whether a ``.mlxd.toml`` in the folder may replace the rules.
    recipe: Switch = True
    #: Sub-folder (name, pattern or relative path) -> parameters for the files in it and below; ``{folder}`` in a text
    #: is the sub-folder's name.
    subfolders: Subfolders = Field(default_factory=dict)
    #: How changes are noticed between two rescans: by the system, by comparing listings, or not at all.
    events: Literal["auto", "native", "polling", "off"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        return one_rule(raw) if isinstance(raw, Mapping) else raw


def one_rule(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *raw* with the keys of one rule, if they stand in it directly, as its only rule."""
    loose = {key: raw[key] for key in raw if key in _SHORTHAND}
    if not loose:
        return raw
    if "rules" in raw:
        keys = ", ".join(sorted(loose))
        raise ValueError(f"either rules, or one rule's keys directly beside them ({keys}), not both")
    return {**{key: raw[key] for key in raw if key not in loose}, "rules": [loose]}


def inbox(path: Path) -> FolderConfig:
    """Return the folder that is watched when the configuration names none."""
    return FolderConfig(path=path, create=True)
