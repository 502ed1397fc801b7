"""Which rule takes a file, and what the job of it says. Names and configuration in, values out; nothing is read."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from daemon.config.folders import FolderConfig, RuleConfig
from jobs.model import NewJob, Placement, Source

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


def rules_of(folder: FolderConfig, recipe: Sequence[RuleConfig] | None) -> tuple[RuleConfig, ...]:
    """Return the rules in force: the folder's own recipe, else the configuration's, else the usual ones."""
    return tuple(recipe) if recipe else folder.rules or DEFAULT_RULES


def choose(rules: Iterable[RuleConfig], relative: str) -> RuleConfig | None:
    """Return the first rule that takes the file *relative* (to the watched folder, with ``/``), if any."""
    name = _comparable(relative)
    return next((rule for rule in rules if _takes(rule, name)), None)


def new_job(folder: FolderConfig, rule: RuleConfig, path: Path) -> NewJob:
    """Return the job that *rule* makes of the file *path* in *folder*."""
    return NewJob(
        task=rule.task,
        params={**rule.params, "file": str(path)},
        lane=rule.lane,
        priority=rule.priority,
        source=Source(kind="folder", detail=str(path), rule=rule.name),
        placement=Placement(
            directory=output_folder(folder, rule, path), stem=stem_of(rule, path), input=path, after=rule.after
        ),
    )


def output_folder(folder: FolderConfig, rule: RuleConfig, path: Path) -> Path:
    """Return where the outputs go: beside the input, or into the rule's folder with the sub-folders mirrored."""
    if rule.output is None:
        return path.parent
    return folder.path / rule.output / path.parent.relative_to(folder.path)


def stem_of(rule: RuleConfig, path: Path) -> str:
    """Return the name without suffix that the outputs get; whoever writes them makes it a safe one."""
    template = rule.stem or "{stem}"
    return template.format(stem=path.stem, name=path.name, suffix=path.suffix[1:], rule=rule.name, task=rule.task)


def output_folders(folder: FolderConfig, rules: Iterable[RuleConfig]) -> frozenset[str]:
    """Return the folders below *folder*, relative to it, that hold outputs and are therefore not looked into."""
    found = set()
    for rule in rules:
        if rule.output is not None:
            path = folder.path / rule.output
            if path != folder.path and path.is_relative_to(folder.path):
                found.add(path.relative_to(folder.path).as_posix())
    return frozenset(found)


def fingerprint(rule: RuleConfig) -> str:
    """Return a short text that is the same for rules that do the same with a content."""
    what = json.dumps([rule.task, rule.params], sort_keys=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _takes(rule: RuleConfig, name: str) -> bool:
    taken = rule.match or DEFAULT_MATCH.get(rule.task, ("*",))
    return bool(_pattern(taken).fullmatch(name)) and not (rule.exclude and _pattern(rule.exclude).fullmatch(name))


@lru_cache(maxsize=1024)
def _pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Return one pattern for all *globs*: ten thousand names are matched at every rescan."""
    return re.compile("|".join(_translate(_comparable(glob)) for glob in globs), re.DOTALL)


def _translate(glob: str) -> str:
    """Return *glob* as a regular expression for relative paths; without a slash it is for the name at any depth."""
    if "/" not in glob:
        return f"(?:.*/)?{_segment(glob)}"
    parts = PurePosixPath(glob.lstrip("/")).parts
    text = "".join("(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/" for part in parts[:-1])
    return text + (".*" if parts[-1] == "**" else _segment(parts[-1]))


def _segment(glob: str) -> str:
    """Translate what stands between two slashes; ``fnmatch`` knows ``[...]``, but lets ``*`` and ``?`` pass slashes."""
    pieces = re.split(r"([*?]|\[[^\]]+\])", glob)
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(piece) or _literal(piece) for piece in pieces)


def _literal(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        # (?s:X)\Z in every supported version: only X is wanted.
        return fnmatch.translate(piece)[4:-3]
    return re.escape(piece)


def _comparable(name: str) -> str:
    """Return *name* as it is compared: composed, without regard to case, as on a Mac's disk."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
