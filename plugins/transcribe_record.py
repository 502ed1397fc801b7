"""How far a transcription is: kept in the checkpoint, so that another attempt goes on at the window after it.

It stands for the same parameters and the same model only. Whether the recording is still the same, the runtime tells by
the samples themselves: if it is not, it begins anew, and so does the record.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from plugins.task import TaskContext

#: Another number throws older checkpoints away.
_VERSION: Final = 1
#: What a model's info tells that has no part in what is heard.
_BESIDE: Final = frozenset({"batch"})
#: Up to so many segments each window is checkpointed; beyond, once a second, or writing would grow with the square.
_SMALL: Final = 200


class Record:
    """What the windows so far have said."""

    def __init__(self, ctx: TaskContext, key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """*key* says what the work is: see `key_of`. *clock* counts seconds."""
        self._ctx = ctx
        self._key = key
        self._clock = clock
        self._saved_at = float("-inf")
        self._unsaved = False
        #: Seconds into the recording at which this attempt began; None until it has told.
        self._since: float | None = None
        self._coming: list[Mapping[str, Any]] = []
        saved = ctx.saved or {}
        same = saved.get("version") == _VERSION and saved.get("key") == key
        #: What the runtime needs to go on; None to begin at the beginning.
        self.state: dict[str, Any] | None = dict(saved["state"]) if same else None
        self._text = str(saved["text"]) if same else ""
        self._segments: list[Mapping[str, Any]] = list(saved["segments"]) if same else []

    def segment(self, data: Mapping[str, Any]) -> None:
        """Take a segment; it counts when its window is through."""
        self._coming.append(data)

    def window(self, data: Mapping[str, Any]) -> None:
        """Take the end of a window: its text and where to go on. Save it, unless nothing comes after it."""
        if self._since is None:
            self._since = float(data["since"])
            if not self._since:  # the recording is another one, or nothing was kept of it
                self._text, self._segments = "", []
        self.state = dict(data["state"])
        self._text += data["text"]
        self._segments += self._coming
        self._coming = []
        self._unsaved = True
        if not data.get("last"):
            self.save(now=len(self._segments) <= _SMALL)

    def save(self, *, now: bool) -> None:
        """Write the checkpoint if there is news, once a second or *now*."""
        moment = self._clock()
        if self._unsaved and (now or moment - self._saved_at >= 1.0):
            kept = {"text": self._text, "segments": self._segments, "state": self.state}
            self._ctx.checkpoint({"version": _VERSION, "key": self._key, **kept})
            self._saved_at, self._unsaved = moment, False

    def whole(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the runtime's *result* with what earlier attempts had heard before it."""
        told = {key: value for key, value in result.items() if key != "since"}
        return {**told, "text": self._text.strip(), "segments": self._segments} if result.get("since") else told


def key_of(request: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Return what tells the work of one *request* to a *model* (its info) from any other."""
    same = {key: value for key, value in model.items() if key not in _BESIDE}
    told = json.dumps([request, same], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()
