"""What a batch will take, before it is submitted: items and tokens counted here, time from batches done before. Pure.

Tokens are estimated at four bytes each, which is about right for European prose in common vocabularies and low for code
and for scripts beyond Latin. Time comes from finished batches of the same model, on this machine; without one, nothing
is said of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from plugins.batch_params import Params
from plugins.items import Item

_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What finished batches say."""

    #: How many they were.
    batches: int
    items: int
    completion_tokens: int
    #: Together, from start to end.
    seconds: float

    @property
    def tokens_per_item(self) -> float:
        """Return how many tokens an answer had on average."""
        return self.completion_tokens / self.items

    @property
    def items_per_second(self) -> float:
        """Return how many items were done in a second."""
        return self.items / self.seconds


def pace(jobs: Iterable[Mapping[str, Any]], model: str | None) -> Pace | None:
    """Return the pace of *jobs* (as the API gives them) that used *model* (None: any); None if there is none."""
    known = [found for job in jobs if (found := _pace_of(job, model)) is not None]
    if not known:
        return None
    items, tokens, seconds = (sum(column) for column in zip(*known, strict=True))
    return Pace(batches=len(known), items=int(items), completion_tokens=int(tokens), seconds=seconds)


def _pace_of(job: Mapping[str, Any], model: str | None) -> tuple[float, float, float] | None:
    result = job.get("result") or {}
    if model is not None and result.get("model") != model:
        return None
    try:
        began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
        items, tokens = int(result["succeeded"]), int(result["completion_tokens"])
    except (KeyError, TypeError, ValueError):
        return None
    seconds = (ended - began).total_seconds()
    return (items, tokens, seconds) if items > 0 and seconds > 0 else None


def estimate(items: Sequence[Item], params: Params, known: Pace | None) -> dict[str, Any]:
    """Return what *items* will take: counts, tokens, and seconds where *known* says how fast it goes here."""
    usable = [item for item in items if item.problem is None]
    doing = usable if params.limit is None else usable[: params.limit]
    prompt = sum(_bytes_of(item, params) for item in doing) // _BYTES_PER_TOKEN
    most = sum(int(item.params.get("max_tokens") or params.max_tokens) for item in doing)
    likely = min(most, round(known.tokens_per_item * len(doing))) if known else None
    return {
        "items": len(doing),
        "broken": len(items) - len(usable),
        "left": len(usable) - len(doing),
        "prompt_tokens": prompt,
        "completion_tokens": likely,
        "completion_tokens_most": most,
        "seconds": round(len(doing) / known.items_per_second, 1) if known else None,
        "based_on": {"batches": known.batches, "items": known.items} if known else None,
        "problems": [item.problem for item in items if item.problem is not None][:10],
    }


def _bytes_of(item: Item, params: Params) -> int:
    shared = len(str(params.system or "")) + (len(params.template or "") if item.file is not None else 0)
    tools = item.params.get("tools") or [one.model_dump() for one in params.tools]
    shared += len(json.dumps(tools)) if tools else 0
    if item.file is not None:
        return shared + _size(item.file)
    said = item.params
    texts = [str(said.get("prompt") or ""), str(said.get("system") or "")]
    for one in said.get("messages") or ():
        if isinstance(one, Mapping):
            texts += [str(one.get("content") or ""), json.dumps(one["tool_calls"]) if one.get("tool_calls") else ""]
    return shared + sum(len(text.encode(errors="replace")) for text in texts)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
