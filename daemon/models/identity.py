"""Which model exactly: the hub's commit of a folder, or a hash of what its files say of themselves. Imports no MLX."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from daemon.models.references import ResolvedModel
from jobs.provenance import UsedModel
from plugins.model_files import read_json
from plugins.weights import MAX_HEADER

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LENGTH_BYTES: Final = 8
#: Files that decide what a model answers.
_DECISIVE: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")

_Facts = tuple[tuple[str, int, int], ...]


def identify(model: ResolvedModel, ref: str | None, info: Mapping[str, Any] | None = None) -> UsedModel:
    """Return what *model* is, which a job called *ref*; *info* is what its runtime said.

    Reads the headers of the weights, not the weights: two fine-tunings of one size are told apart by ``stamp`` alone.

    Raises:
        OSError: its folder cannot be read.

    """
    facts = _facts(model.path)
    return UsedModel(
        ref=ref,
        name=model.ref,
        runtime=model.runtime,
        path=str(model.path),
        revision=_commit(model.path) or _content(model.path, facts),
        quantization=_quantization(model.path),
        options=json.loads(json.dumps(dict(model.options), default=str)),
        info=json.loads(json.dumps(dict(info or {}), default=str)),
        stamp=max((changed for _, _, changed in facts), default=0),
    )


def same(one: UsedModel, other: UsedModel) -> bool:
    """Tell whether two models answer alike, as far as can be told without reading all of their weights."""
    exact = {"revision", "options", "runtime", "stamp"}
    return one.model_dump(include=exact) == other.model_dump(include=exact)


def _commit(folder: Path) -> str | None:
    """Return the commit of a snapshot in the hub's cache, whose folder is named after it."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def _facts(folder: Path) -> _Facts:
    found = {path for pattern in _DECISIVE for path in folder.glob(pattern)}
    stats = ((path.name, path.stat()) for path in sorted(found))
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)


@lru_cache(maxsize=64)
def _content(folder: Path, facts: _Facts) -> str:
    """Return a hash over sizes, names, small files and the headers of the weights; *facts* say when it is stale."""
    digest = hashlib.sha256()
    for name, size, _ in facts:
        digest.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            if name.endswith(".safetensors"):
                length = file.read(_LENGTH_BYTES)
                digest.update(length + file.read(min(int.from_bytes(length, "little"), MAX_HEADER)))
            else:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _quantization(folder: Path) -> dict[str, Any] | None:
    try:
        config = read_json(folder / "config.json")
        found = config.get("quantization") or config.get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return None
    return {key: found[key] for key in ("bits", "group_size", "mode") if key in found} if found else None
