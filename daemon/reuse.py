"""The same work twice: whether a recorded result may stand for a new job's, and what becomes of its names. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from jobs.model import Job

#: Largest sum of a recorded job's outputs that is copied, bytes.
MOST_BYTES: Final = 64_000_000
#: Changes when the meaning of a key does.
_VERSION: Final = 1


class Work(NamedTuple):
    """What makes two jobs the same work."""

    task: str
    #: Parameters in force; every path in them is replaced by the hash of what is there.
    params: Mapping[str, Any]
    #: Distribution -> version of everything that has a say in the result.
    versions: Mapping[str, str]
    #: Whether the outputs lie beside the input, which changes their names.
    beside: bool


class Layout(NamedTuple):
    """What the outputs of a job are called after."""

    directory: Path
    #: The stem that the outputs' names begin with.
    stem: str


def wanted(job: Job, policy: str) -> bool:
    """Tell whether *job* may take a recorded result; *policy* is the configuration's ``outputs.reuse``."""
    if job.reuse is not None:
        return job.reuse
    return policy == "always" or (policy == "folders" and job.source.kind == "folder")


def key(work: Work) -> str:
    """Return the same short text for the same work."""
    what = json.dumps([_VERSION, *work], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()


def layout(job: Job, directory: Path) -> Layout:
    """Return what *job* names its outputs after: its stem, or its input."""
    file = job.params.get("file")
    return Layout(directory, job.placement.stem or (PurePosixPath(file).stem if isinstance(file, str) else ""))


def renamed(name: str, before: Layout, after: Layout) -> str:
    """Return what the output *name* (relative) is called in the new job: a name that began with the stem still does."""
    stem, rest = before.stem, name[len(before.stem) :]
    if stem and name.startswith(stem) and (not rest or rest[0] in ".-_/"):
        return after.stem + rest
    return name


def retold(result: Any, paths: Mapping[str, str]) -> Any:
    """Return *result* with every path in it that *paths* knows replaced."""
    if isinstance(result, str):
        return paths.get(result, result)
    if isinstance(result, Mapping):
        return {name: retold(value, paths) for name, value in result.items()}
    if isinstance(result, list):
        return [retold(value, paths) for value in result]
    return result
