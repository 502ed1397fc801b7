"""What clients were told, line by line as it happened: the one thing the checker believes."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any


class History:
    """Appends to the JSON lines in *path*; any thread, and several processes, may write.

    An acknowledgement is written down after the answer has come, so what it says was promised to somebody.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ack(self, job_id: str, key: str, **expect: Any) -> None:
        """Note that *key* was accepted as *job_id*.

        *expect* is what must come of it: ``state`` ("succeeded"; a list allows several), ``size`` and ``outputs`` of
        the stub's results (64, 1), for other tasks ``text``, or ``words`` when only spaces and lines may differ.
        """
        self.event("ack", job=job_id, key=key, expect=expect)

    def refused(self, key: str, why: str) -> None:
        """Note that the daemon answered that it does not take *key*."""
        self.event("refused", key=key, why=why)

    def unknown(self, key: str) -> None:
        """Note that no answer came: *key* may have been accepted or not."""
        self.event("unknown", key=key)

    def file(self, path: Path, sha256: str, **expect: Any) -> None:
        """Note that the file *path* with that content was put into a watched folder; *expect* as for `ack`."""
        self.event("file", path=str(path), sha256=sha256, expect=expect)

    def event(self, kind: str, **facts: Any) -> None:
        """Note anything else: a fault, a phase."""
        line = json.dumps({"kind": kind, "at": round(time.monotonic(), 6), **facts}, ensure_ascii=False)
        with self._lock:
            os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """Return every line of the history in *path*, in order."""
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]
