"""Whether a file is still what its sidecar says: looked at here, without the daemon, in facts a program can use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon.models.identity import identify, same
from daemon.models.references import ResolvedModel
from jobs import provenance
from jobs.errors import MlxdError
from jobs.provenance import InputFile, Provenance, UsedModel

#: Where inputs go whose job succeeded, relative to where they were.
_DONE: Final = "done"

Resolve = Callable[[str | None, str], ResolvedModel]


def verify(file: Path, resolve: Resolve) -> dict[str, Any]:
    """Return what is true of *file* now: each part has a ``state`` and a sentence; ``ok`` says that all is as it was.

    *resolve* turns a model's name and runtime into its folder.

    Raises:
        InvalidInput: nothing says what made the file.

    """
    path, made, entry = provenance.find(file)
    parts: dict[str, Any] = {
        "output": _file_state(file, entry.sha256),
        "input": input_state(made.input),
        "models": [model_state(model, resolve) for model in made.models],
    }
    every = [parts["output"], parts["input"], *parts["models"]]
    return {
        "file": str(file),
        "provenance": str(path),
        "job": made.job,
        "task": made.task,
        "done": made.done.isoformat(),
        "ok": all(part["state"] in ("same", "none") for part in every),
        **parts,
        "versions": _versions(made),
    }


def input_state(told: InputFile | None) -> dict[str, Any]:
    """Return whether the input is where it was, or in ``done/`` beside that, with the same content."""
    if told is None:
        return {"state": "none", "path": None}
    if told.sha256 is None:
        return {"state": "none" if Path(told.path).exists() else "missing", "path": told.path}
    first = _file_state(Path(told.path), told.sha256)
    if first["state"] == "same":
        return first
    for moved in _moved(Path(told.path)):
        if (state := _file_state(moved, told.sha256))["state"] == "same":
            return state
    return first


def model_state(told: UsedModel, resolve: Resolve) -> dict[str, Any]:
    """Return whether the model is still here and the same."""
    facts = {"model": told.name, "runtime": told.runtime, "revision": told.revision}
    try:
        now = identify(resolve(told.name, told.runtime), told.ref)
    except (MlxdError, OSError) as error:
        return {**facts, "state": "missing", "why": getattr(error, "message", str(error))}
    if same(told, now):
        return {**facts, "state": "same"}
    return {**facts, "state": "changed", "now": now.revision}


def _moved(path: Path) -> list[Path]:
    done = path.parent / _DONE
    return [done / path.name, *sorted(done.glob(f"{_literal(path.stem)} (*){_literal(path.suffix)}"))]


def _literal(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _file_state(path: Path, sha256: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            now = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return {"state": "missing", "path": str(path)}
    except OSError as error:
        return {"state": "unreadable", "path": str(path), "why": error.strerror}
    return {"state": "same" if now == sha256 else "changed", "path": str(path)}


def _versions(made: Provenance) -> dict[str, dict[str, str | None]]:
    """Return the versions that are others now: no fault, but a reason for another result."""
    from daemon.records import versions

    now = versions()
    return {name: {"then": then, "now": now.get(name)} for name, then in made.versions.items() if now.get(name) != then}
