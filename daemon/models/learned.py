"""What was learned of each model's memory, kept across restarts in a small file of the state folder.

- **base**: what its runner occupied when it had just been loaded; corrects the estimate from its files.
- **factor**: what a token of context takes, by what was reckoned (`plugins.lm_memory`).
- **ceiling**: what was too much for it. Less is tried from then on, and slowly more again: a tenth more each hour.
- **deaths** for lack of memory in a row: those who were on such a runner together are asked again at no cost, but not
  for ever; after `FORGIVEN` deaths the usual search for the one to blame begins.

A model whose files have changed is another model: nothing is known of it. The file is a memory aid: if it cannot be
read or written, everything is learned anew.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

log = logging.getLogger(__name__)

#: Name of the file in the state folder.
LEARNED: Final = "learned-memory.json"
#: Growth of a ceiling each hour.
HOURLY: Final = 1.1
#: Share of what a runner occupied when memory ran out that is tried next.
BACK: Final = 0.75
#: Deaths in a row that cost nobody anything.
FORGIVEN: Final = 3
#: Models that are remembered, the latest ones.
MOST: Final = 200

_HOUR_S: Final = 3600.0
#: A ceiling after so many hours is none any more: it would be a hundred times what it was.
_LONG_H: Final = 48.0
#: Changes by less are not worth writing down.
_NEWS: Final = 0.05


class Lesson(BaseModel):
    """What is known of one model."""

    version: str = ""
    base: int | None = Field(default=None, ge=0)
    factor: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    ceiling: int | None = Field(default=None, ge=0)
    #: When memory ran out last, seconds since 1970.
    at: float = 0.0
    deaths: int = 0


class Learned:
    """Thread-safe. *path* None remembers until the end of the process; *now* is in seconds since 1970."""

    def __init__(self, path: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._lessons = _read(path)

    def see(self, key: str, version: str) -> None:
        """Forget what was learned of *key* if its files have another *version*."""
        with self._lock:
            if self._lessons.get(key, Lesson()).version != version:
                self._lessons[key] = Lesson(version=version)

    def of(self, key: str) -> Lesson:
        """Return what is known of *key*, its ceiling as it is now."""
        with self._lock:
            found = self._lessons.get(key, Lesson())
        hours = max(0.0, self._now() - found.at) / _HOUR_S
        if found.ceiling is None or hours > _LONG_H:
            return found.model_copy(update={"ceiling": None})
        return found.model_copy(update={"ceiling": int(found.ceiling * HOURLY**hours)})

    def forgiving(self, key: str) -> bool:
        """Tell whether a death for lack of memory costs those nothing who were there together."""
        return self.of(key).deaths < FORGIVEN

    def loaded(self, key: str, base: int) -> None:
        """Note what its runner occupies, bytes, with nothing but the model in it."""
        before = self.of(key).base
        if before is None or abs(base - before) > _NEWS * before:
            self._change(key, base=base)

    def takes(self, key: str, factor: float) -> None:
        """Note what a token takes."""
        if abs(factor - self.of(key).factor) > _NEWS:
            self._change(key, factor=factor)

    def too_much(self, key: str, ceiling: int) -> None:
        """Note that more than *ceiling* bytes were too much: the runner survived it."""
        self._change(key, ceiling=ceiling, at=self._now())

    def died(self, key: str, occupied: int) -> None:
        """Note that its runner ended for lack of memory when it *occupied* so many bytes."""
        log.warning(
            "A runner ran out of memory; less is tried from now on.",
            extra={"action": "memory.learned", "model": key, "occupied": occupied},
        )
        self._change(key, ceiling=int(occupied * BACK), at=self._now(), deaths=self.of(key).deaths + 1)

    def ended_well(self, key: str) -> None:
        """Note that its runner was unloaded in peace."""
        if self.of(key).deaths:
            self._change(key, deaths=0)

    def _change(self, key: str, **news: Any) -> None:
        with self._lock:
            lesson = self._lessons.pop(key, Lesson())
            self._lessons[key] = lesson.model_copy(update=news)
            for oldest in list(self._lessons)[:-MOST]:
                del self._lessons[oldest]
            if self._path is not None:
                _write(self._path, {name: one.model_dump() for name, one in self._lessons.items()})


def _read(path: Path | None) -> dict[str, Lesson]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {str(key): Lesson.model_validate(value) for key, value in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        log.warning("%s cannot be read, and is begun anew: %s", path, error, extra={"action": "memory.unread"})
        return {}


def _write(path: Path, lessons: dict[str, Any]) -> None:
    """Replace the file as a whole; no fsync: what is lost is learned again."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(json.dumps(lessons))
        draft.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error, extra={"action": "memory.unwritten"})
