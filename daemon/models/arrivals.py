"""Whether a model that was missing is here by now, put there by somebody other than `mlxd models pull`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from daemon.models.references import HUB_ID, find_in_hub, hub_cache
from daemon.models.safety import check_model_folder
from jobs.errors import MlxdError

#: Seconds without a change after which a folder counts as complete: it may be on its way, file by file.
STILL_S: Final = 20.0


def arrived(facts: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ, now: float | None = None) -> bool:
    """Tell whether the model that a `ModelMissing` with these *facts* was about is here, whole and still.

    *now* is a Unix time, for tests.
    """
    try:
        folder = _folder(facts, environ)
        if folder is None:
            return False
        check_model_folder(folder)
        newest = max(path.lstat().st_ctime for path in folder.rglob("*"))
    except (MlxdError, OSError, ValueError):
        return False
    return (time.time() if now is None else now) - newest >= STILL_S


def _folder(facts: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    if path := facts.get("path"):
        return Path(str(path))
    match = HUB_ID.fullmatch(str(facts.get("model") or ""))
    return match and find_in_hub(hub_cache(environ), match["repo"], match["revision"] or "main")
