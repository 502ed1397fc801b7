"""Whether jobs can go on that wait for a model: one that was missing is here by now, or one can be loaded again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from daemon.models.references import HUB_ID, find_in_hub, hub_cache
from daemon.models.safety import check_model_folder
from daemon.models.wishes import Outlook
from jobs.errors import MlxdError, ModelUnloadable
from jobs.model import Job

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


class Loads(Protocol):
    """What tells whether models that were set aside can be loaded again: the model scheduler."""

    @property
    def outlook(self) -> Outlook:
        """Which models are ready."""

    def barred(self, key: str) -> bool:
        """Tell whether the model is set aside."""


def loadable(blocked: Iterable[Job], models: Loads) -> list[str]:
    """Return the ids of jobs that were *blocked* because their model could not be loaded, and may go on.

    All jobs of a model that is ready; of one whose time has come to be tried again the first alone, to try it.
    """
    by_model: dict[str, list[str]] = {}
    for job in blocked:
        if job.error is not None and job.error.type == ModelUnloadable.slug:
            by_model.setdefault(str(job.error.facts.get("key")), []).append(job.id)
    free = {key: ids for key, ids in by_model.items() if not models.barred(key)}
    ready = models.outlook.ready if free else {}
    return [job_id for key, ids in free.items() for job_id in (ids if key in ready else ids[:1])]


def _folder(facts: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    if path := facts.get("path"):
        return Path(str(path))
    match = HUB_ID.fullmatch(str(facts.get("model") or ""))
    return match and find_in_hub(hub_cache(environ), match["repo"], match["revision"] or "main")
