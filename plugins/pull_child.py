"""The process that fetches a model: ``python -I -m plugins.pull_child org/name revision``.

Tells JSON lines on standard output: ``{"done", "total"}`` in bytes once a second, which is also the moment at which the
parent notices a cancellation, at the end ``{"path", "bytes"}`` or ``{"error", "final"}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

#: What a model is made of here; code and pickles are not fetched at all.
WANTED: Final = ["*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja", "LICENSE*", "README.md"]

_EVERY_S: Final = 1.0

#: HTTP answers after which trying again does not help.
_FINAL: Final = frozenset({401, 403, 404})


def main(argv: list[str], *, hub: Any = None, out: TextIO | None = None) -> int:
    """Fetch what *argv* names with *hub* (default: the huggingface_hub module), tell *out* about it."""
    repo, revision = argv
    out = out or sys.stdout
    if hub is None:
        import huggingface_hub as hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    try:
        total = _total(hub, repo, revision)
        cache = Path(hub.constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
        with _Teller(out, cache, total):
            path = hub.snapshot_download(repo, revision=revision, allow_patterns=WANTED)
    except Exception as error:  # noqa: BLE001 - of whatever kind, the parent must hear it in a sentence
        _tell(out, {"error": _sentence(error), "final": _status(error) in _FINAL})
        return 1
    _tell(out, {"path": str(path), "bytes": total})
    return 0


def _total(hub: Any, repo: str, revision: str) -> int:
    """Return the bytes to be fetched in all."""
    info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    wanted = hub.utils.filter_repo_objects(info.siblings, allow_patterns=WANTED, key=lambda one: one.rfilename)
    return sum(one.size or 0 for one in wanted)


class _Teller:
    """Tells once a second how many bytes are here, by looking at the folder they arrive in."""

    def __init__(self, out: TextIO, folder: Path, total: int) -> None:
        self._out = out
        self._folder = folder
        self._total = total
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)

    def __enter__(self) -> None:
        self._tell()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self._tell()
            except OSError:
                # The daemon is dead, and its next one will start another child: two must not fetch the same.
                os._exit(1)

    def _tell(self) -> None:
        _tell(self._out, {"done": min(_size(self._folder), self._total), "total": self._total})


def _size(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def _tell(out: TextIO, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _sentence(error: BaseException) -> str:
    """Return the first line of what the hub says: the rest is advice for programmers."""
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
