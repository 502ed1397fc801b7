"""What became of each item of a batch: kept in the checkpoint, written into the manifest."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import InvalidRequest, MlxdError
from plugins import openai_batch
from plugins.items import Item

_VERSION = 1


class Finished(NamedTuple):
    """An item that was answered."""

    #: Its output file, relative to the job's folder.
    output: str
    #: None where only the file is left to tell of it: the daemon was killed before it could note more.
    prompt_tokens: int | None
    completion_tokens: int | None
    #: "stop", "length", ...; empty where it is not known.
    finish_reason: str
    #: The file of what the answer has besides its text, relative to the job's folder; empty if it has nothing.
    parts: str = ""

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
    #: Items beyond the limit.
    left: set[str] = field(default_factory=set)
    #: How often each item was asked that was asked more than once.
    attempts: dict[str, int] = field(default_factory=dict)
    #: How often a runner died under each item that this happened to. Saved: whoever did it must not do it for ever.
    deaths: dict[str, int] = field(default_factory=dict)
    model: str | None = None

    @classmethod
    def restored(cls, saved: Mapping[str, Any] | None, directory: Path, keys: Collection[str]) -> Record:
        """Return what an earlier attempt saved, less the items that are gone or whose output is."""
        if not saved or saved.get("version") != _VERSION:
            return cls()
        found = {key: Finished(*row) for key, row in saved["done"].items() if key in keys}
        there = {key: one for key, one in found.items() if (directory / one.output).is_file()}
        deaths = {key: int(count) for key, count in saved.get("deaths", {}).items() if key in keys}
        return cls(done=there, deaths=deaths, model=saved.get("model"))

    def saved(self) -> dict[str, Any]:
        """Return the checkpoint: about 60 bytes an item."""
        deaths = {"deaths": self.deaths} if self.deaths else {}
        done = {key: one if one.parts else one[:-1] for key, one in self.done.items()}
        return {"version": _VERSION, "model": self.model, "done": done, **deaths}

    def summary(self, total: int) -> dict[str, Any]:
        """Return the counts."""
        return {
            "model": self.model,
            "total": total,
            "succeeded": len(self.done),
            "failed": len(self.failed),
            "skipped": len(self.skipped),
            **({"left": len(self.left)} if self.left else {}),
            "prompt_tokens": sum(one.prompt_tokens or 0 for one in self.done.values()),
            "completion_tokens": sum(one.completion_tokens or 0 for one in self.done.values()),
        }

    def sentence(self) -> str:
        """Return the counts for people."""
        parts = [f"{len(self.done)} done"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        parts += [f"{len(self.left)} left"] if self.left else []
        return ", ".join(parts)

    def entry(self, item: Item) -> dict[str, Any]:
        """Return what the manifest says about *item*."""
        entry: dict[str, Any] = {"id": item.id} if item.id == item.key else {"id": item.id, "line": int(item.key)}
        if item.key in self.left:
            return {**entry, "status": "left"}
        if (asked := self.attempts.get(item.key, 1)) > 1:
            entry["attempts"] = asked
        if (finished := self.done.get(item.key)) is not None:
            told = finished._asdict()
            return {**entry, "status": "succeeded", **({k: v for k, v in told.items() if k != "parts" or v})}
        if (error := self.failed.get(item.key)) is not None:
            return {**entry, "status": "failed", "error": {"type": error.slug, "message": error.message}}
        return {**entry, "status": "skipped"}


def manifest(items: Sequence[Item], record: Record, summary: Mapping[str, Any]) -> str:
    """Return the manifest as JSON, an item a line, in the input's order."""
    head = json.dumps({"version": _VERSION, "task": "batch", **summary}, ensure_ascii=False)[:-1]
    lines = ",\n".join("  " + json.dumps(record.entry(item), ensure_ascii=False) for item in items)
    return f'{head}, "items": [\n{lines}\n]}}\n'


def results_lines(items: Sequence[Item], record: Record, directory: Path, *, job: str, created: int) -> str:
    """Return a JSON line for each item, in the input's order, with its text read back from its output file.

    What came in OpenAI's Batch format is told in it. *created* is in seconds since 1970.
    """
    lines = []
    for item in items:
        if item.key in record.left:
            continue
        if item.url is not None:
            line = _response(item, record, directory, request_id=f"{job}-{item.key}", created=created)
        else:
            line = record.entry(item)
            if (finished := record.done.get(item.key)) is not None:
                line.update(_answer(directory / finished.output))
                line.update(_parts(directory, finished))
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _response(item: Item, record: Record, directory: Path, *, request_id: str, created: int) -> dict[str, Any]:
    if (finished := record.done.get(item.key)) is not None:
        answer = _answer(directory / finished.output)
        text = json.dumps(answer["json"], ensure_ascii=False) if "json" in answer else answer["text"]
        return openai_batch.answered(
            request_id=request_id,
            custom_id=item.id,
            url=item.url or "",
            created=created,
            model=record.model,
            text=text,
            facts={**finished._asdict(), **_parts(directory, finished)},
        )
    error = record.failed[item.key]
    return openai_batch.refused(
        request_id=request_id,
        custom_id=item.id,
        kind=error.slug,
        message=error.message,
        ours=not isinstance(error, InvalidRequest),
    )


def _parts(directory: Path, finished: Finished) -> dict[str, Any]:
    """Return what an answer has besides its text; nothing if somebody took the file away, or wrote into it."""
    if not finished.parts:
        return {}
    try:
        found = json.loads((directory / finished.parts).read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _answer(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except OSError:  # somebody took it away meanwhile; the rest of the results is worth writing all the same
        return {"text": None}
    return {"json": json.loads(text)} if path.suffix == ".json" else {"text": text.removesuffix("\n")}
