"""Which rule takes a file, and what the job of it says. Names and configuration in, values out; nothing is read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.patterns import comparable, pattern
from jobs.model import NewJob, Placement, Source
from jobs.names import safe_name

_AUDIO: Final = tuple(
    f"*.{suffix}"
    for suffix in (
        *("aac", "aif", "aiff", "amr", "caf", "flac", "m4a", "m4b", "mka", "mp3", "oga", "ogg", "opus", "wav", "wma"),
        *("3gp", "avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "webm"),
    )
)
_TEXT: Final = ("*.txt", "*.md")

#: What a rule takes that says no ``match``; tasks that are not listed take every file.
DEFAULT_MATCH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"transcribe": _AUDIO, "memo": _AUDIO, "generate": _TEXT, "batch": ("*.jsonl", "*.ndjson", "*.csv")}
)
#: The rules of a folder that has none.
DEFAULT_RULES: Final = (RuleConfig(task="transcribe"), RuleConfig(task="generate"))


#: Task -> names of its parameters, None when they are not known.
Takes = Callable[[str], Collection[str] | None]


class Placed(RuleConfig):
    """A rule as it stands in one sub-folder, after recipes and the sub-folders' names had their say."""

    #: The sub-folder that a relative ``output`` counts from.
    output_at: str = ""
    #: Parameters that sub-folders' names set, for those tasks that have them.
    wishes: dict[str, Any] = Field(default_factory=dict)


def anything(_task: str) -> None:
    """Know of no task's parameters."""


def rules_of(folder: FolderConfig, recipe: Sequence[RuleConfig] | None) -> tuple[RuleConfig, ...]:
    """Return the rules in force: the folder's own recipe, else the configuration's, else the usual ones."""
    return tuple(recipe) if recipe else folder.rules or DEFAULT_RULES


def choose(
    rules: Iterable[RuleConfig], relative: str, *, size: int | None = None, age: float | None = None
) -> RuleConfig | None:
    """Return the first rule that takes the file *relative* (to the watched folder, with ``/``), if any.

    With its *size* in bytes and its *age* in seconds the rules' limits count too.
    """
    name = comparable(relative)
    return next((rule for rule in rules if _takes(rule, name) and _limit(rule, size, age) is None), None)


def patience(rules: Iterable[RuleConfig], relative: str, *, size: int, age: float) -> float | None:
    """Return the seconds after which a file that no rule takes is old enough for one, None if it never will be."""
    name = comparable(relative)
    waits = [
        rule.min_age - age
        for rule in rules
        if rule.min_age is not None
        and age < rule.min_age
        and _takes(rule, name)
        and _limit(rule, size, rule.min_age) is None
    ]
    return min(waits, default=None)


def why_not(rule: RuleConfig, relative: str, *, size: int, age: float) -> str | None:
    """Return why *rule* leaves a file alone, in a few words; None if it takes it."""
    name = comparable(relative)
    if rule.exclude and pattern(rule.exclude).fullmatch(name):
        return "excluded by its name"
    if not _takes(rule, name):
        return f"the name does not match {', '.join(patterns_of(rule))}"
    return _limit(rule, size, age)


def patterns_of(rule: RuleConfig) -> tuple[str, ...]:
    """Return the patterns of the names that *rule* takes."""
    return rule.match or DEFAULT_MATCH.get(rule.task, ("*",))


def new_job(
    folder: FolderConfig,
    rule: RuleConfig,
    path: Path,
    *,
    changed: float = 0.0,
    said: Mapping[str, Any] = MappingProxyType({}),
    takes: Takes = anything,
) -> NewJob:
    """Return the job that *rule* makes of the file *path* in *folder*.

    *changed* is the file's last change, seconds since 1970; *said* is what the file says about itself.
    """
    return NewJob(
        task=rule.task,
        params={**params_of(rule, takes), **said, "file": str(path)},
        lane=rule.lane,
        priority=rule.priority,
        source=Source(kind="folder", detail=str(path), rule=rule.name),
        placement=Placement(
            directory=output_folder(folder, rule, path),
            stem=stem_of(rule, path, changed=changed),
            input=path,
            after=rule.after,
            root=folder.path,
        ),
        reuse=rule.reuse,
        provenance=rule.provenance,
    )


def params_of(rule: RuleConfig, takes: Takes = anything) -> dict[str, Any]:
    """Return the parameters that *rule* gives, with those that the sub-folder wishes for and the task has."""
    wishes = rule.wishes if isinstance(rule, Placed) else {}
    if not wishes:
        return dict(rule.params)
    own = {**rule.params, **_known(rule.task, wishes, takes)}
    steps = own.get("steps")
    if isinstance(steps, (list, tuple)):
        own["steps"] = [_step(step, wishes, takes) for step in steps]
    return own


def _step(step: Any, wishes: Mapping[str, Any], takes: Takes) -> Any:
    """Give a pipeline's step what it has of *wishes*."""
    if not isinstance(step, Mapping) or takes(str(step.get("task"))) is None:
        return step
    return {**step, "params": {**step.get("params", {}), **_known(str(step["task"]), wishes, takes)}}


def _known(task: str, wishes: Mapping[str, Any], takes: Takes) -> dict[str, Any]:
    names = takes(task)
    return {key: value for key, value in wishes.items() if names is None or key in names}


def output_folder(folder: FolderConfig, rule: RuleConfig, path: Path) -> Path:
    """Return where the outputs go: beside the input, or into the rule's folder with the sub-folders mirrored."""
    root = output_root(folder, rule)
    if root is None:
        return path.parent
    return root / path.parent.relative_to(folder.path / (rule.output_at if isinstance(rule, Placed) else ""))


def output_root(folder: FolderConfig, rule: RuleConfig) -> Path | None:
    """Return the folder that *rule* names for outputs, None if they lie beside the inputs."""
    if rule.output is None:
        return None
    return folder.path / (rule.output_at if isinstance(rule, Placed) else "") / rule.output


def stem_of(rule: RuleConfig, path: Path, *, changed: float = 0.0) -> str:
    """Return the name without suffix that the outputs get: folders may come before it, every part is a safe name.

    ``{date}`` and ``{time}`` are those of the file's last change, in the machine's time zone: a second attempt and a
    dry run see the same ones.
    """
    moment = time.localtime(changed)
    words = {
        "stem": path.stem,
        "name": path.name,
        "suffix": path.suffix[1:],
        "folder": path.parent.name,
        "date": time.strftime("%Y-%m-%d", moment),
        "time": time.strftime("%H-%M-%S", moment),
        "rule": rule.name,
        "task": rule.task,
    }
    filled = (rule.stem or "{stem}").format(**{key: value.replace("/", "_") for key, value in words.items()})
    parts = [safe_name(part) for part in filled.split("/") if part.strip(". ")]
    return "/".join(parts) or safe_name(path.stem)


def output_folders(folder: FolderConfig, rules: Iterable[RuleConfig]) -> frozenset[str]:
    """Return the folders below *folder*, relative to it, that hold outputs and are therefore not looked into."""
    roots = (output_root(folder, rule) for rule in rules)
    inside = (path for path in roots if path is not None and path != folder.path and path.is_relative_to(folder.path))
    return frozenset(path.relative_to(folder.path).as_posix() for path in inside)


def fingerprint(rule: RuleConfig, takes: Takes = anything) -> str:
    """Return a short text that is the same for rules that do the same with a content."""
    what = json.dumps([rule.task, params_of(rule, takes)], sort_keys=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _takes(rule: RuleConfig, name: str) -> bool:
    return bool(pattern(patterns_of(rule)).fullmatch(name)) and not (
        rule.exclude and pattern(rule.exclude).fullmatch(name)
    )


def _limit(rule: RuleConfig, size: int | None, age: float | None) -> str | None:
    """Return which limit of *rule* stands in the way of a file of *size* bytes and *age* seconds."""
    if size is not None:
        if rule.min_size is not None and size < rule.min_size:
            return f"smaller than min_size ({size} of {rule.min_size} bytes)"
        if rule.max_size is not None and size > rule.max_size:
            return f"larger than max_size ({size} of {rule.max_size} bytes)"
    if age is not None:
        if rule.min_age is not None and age < rule.min_age:
            return f"too young (changed {age:.0f} s ago, min_age is {rule.min_age:.0f} s)"
        if rule.max_age is not None and age > rule.max_age:
            return f"too old (changed {age:.0f} s ago, max_age is {rule.max_age:.0f} s)"
    return None
