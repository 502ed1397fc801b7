"""What became of each item of a batch: kept in the checkpoint, written into the manifest."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import MlxdError
from plugins.items import Item

_VERSION = 1


class Finished(NamedTuple):
    """An item that was answered."""

    #: Its output file, relative to the job's folder.
    output: str
    prompt_tokens: int
    completion_tokens: int
    #: "stop", "length", ...
    finish_reason: str

    @classmethod
    def of(cls, output: str, done: Mapping[str, Any]) -> Finished:
        """Return what the runtime's result *done* says."""
        counts = int(done.get("prompt_tokens") or 0), int(done.get("completion_tokens") or 0)
        return cls(output, *counts, str(done.get("finish_reason") or ""))


@dataclass
class Record:
    """How far a batch is, by item key. Failed items are not saved: another attempt tries them again."""

    done: dict[str, Finished] = field(default_factory=dict)
    failed: dict[str, MlxdError] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    model: str | None = None

    @classmethod
    def restored(cls, saved: Mapping[str, Any] | None, directory: Path, keys: Collection[str]) -> Record:
        """Return what an earlier attempt saved, less the items that are gone or whose output is."""
        if not saved or saved.get("version") != _VERSION:
            return cls()
        found = {key: Finished(*row) for key, row in saved["done"].items() if key in keys}
        there = {key: one for key, one in found.items() if (directory / one.output).is_file()}
        return cls(done=there, model=saved.get("model"))

    def saved(self) -> dict[str, Any]:
        """Return the checkpoint: about 60 bytes an item."""
        return {"version": _VERSION, "model": self.model, "done": self.done}

    def summary(self, total: int) -> dict[str, Any]:
        """Return the counts."""
        return {
            "model": self.model,
            "total": total,
            "succeeded": len(self.done),
            "failed": len(self.failed),
            "skipped": len(self.skipped),
            "prompt_tokens": sum(one.prompt_tokens for one in self.done.values()),
            "completion_tokens": sum(one.completion_tokens for one in self.done.values()),
        }

    def sentence(self) -> str:
        """Return the counts for people."""
        parts = [f"{len(self.done)} done"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        return ", ".join(parts)

    def entry(self, item: Item) -> dict[str, Any]:
        """Return what the manifest says about *item*."""
        entry: dict[str, Any] = {"id": item.id} if item.id == item.key else {"id": item.id, "line": int(item.key)}
        if (finished := self.done.get(item.key)) is not None:
            return {**entry, "status": "succeeded", **finished._asdict()}
        if (error := self.failed.get(item.key)) is not None:
            return {**entry, "status": "failed", "error": {"type": error.slug, "message": error.message}}
        return {**entry, "status": "skipped"}


def manifest(items: Sequence[Item], record: Record, summary: Mapping[str, Any]) -> str:
    """Return the manifest as JSON, an item a line, in the input's order."""
    head = json.dumps({"version": _VERSION, "task": "batch", **summary}, ensure_ascii=False)[:-1]
    lines = ",\n".join("  " + json.dumps(record.entry(item), ensure_ascii=False) for item in items)
    return f'{head}, "items": [\n{lines}\n]}}\n'


def results_lines(items: Sequence[Item], record: Record, directory: Path) -> str:
    """Return a JSON line for each item, in the input's order, with its text read back from its output file."""
    lines = []
    for item in items:
        entry = record.entry(item)
        if (finished := record.done.get(item.key)) is not None:
            entry.update(_answer(directory / finished.output))
        lines.append(json.dumps(entry, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _answer(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except OSError:  # somebody took it away meanwhile; the rest of the results is worth writing all the same
        return {"text": None}
    return {"json": json.loads(text)} if path.suffix == ".json" else {"text": text.removesuffix("\n")}
