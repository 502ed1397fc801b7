"""What the end of an attempt means: whether another try may help, what the job keeps of it, what the log is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from daemon.stopping import TRY_AGAIN
from jobs.errors import InvalidInput, JobConflict, MlxdError, OutputError
from jobs.model import ErrorInfo, Job
from plugins.patience import said

#: Seconds before the first retry; doubled for each further one.
RETRY_BASE: Final = 1.0
RETRY_MOST: Final = 300.0


@dataclass(kw_only=True)
class Policy:
    """Numbers an executor decides by."""

    #: How many dead runners make a job a suspect that is put aside.
    max_crashes: int = 3
    #: Seconds between two tries to write an end down while the ledger cannot be written.
    persist_every: float = TRY_AGAIN
    #: Failures so far -> seconds until the next try. Jittered: jobs that failed together must not come back together.
    backoff: Callable[[int], float] = field(
        default=lambda failures: min(RETRY_MOST, RETRY_BASE * 2**failures) * random.uniform(0.75, 1.25)  # noqa: S311
    )


def worth_another_try(error: BaseException) -> bool:
    """A disk's error or a busy file may pass; a programming mistake or a bad input stays what it is."""
    if isinstance(error, OutputError):
        return error.facts.get("errno") == "EIO"
    if isinstance(error, (InvalidInput, JobConflict)):
        return False
    return error.retryable if isinstance(error, MlxdError) else isinstance(error, (OSError, TimeoutError))


def info_of(error: BaseException) -> ErrorInfo:
    """Turn what a task raised into what a job keeps."""
    if isinstance(error, MlxdError):
        return ErrorInfo(type=error.slug, message=error.message, facts=_plain(error.facts))
    return ErrorInfo(
        type="task-error",
        message=f"The task raised {type(error).__name__}: {said(error)}. See `mlxd logs` for where.",
        facts={"exception": type(error).__name__},
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of *facts* what JSON can hold, the rest as text; but not what a runner printed.

    Its last words may quote what other jobs had asked of it, so they stay in the runner's own log.
    """
    simple = (str, int, float, bool, list, dict, type(None))
    return {key: value if isinstance(value, simple) else str(value) for key, value in facts.items() if key != "tail"}


def as_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task returned; raise ``TypeError`` if it is no mapping."""
    if not isinstance(result, Mapping):  # a plugin may return anything
        raise TypeError(f"a task must return a mapping, not {type(result).__name__}")
    return dict(result)


def log_context(job: Job) -> dict[str, Any]:
    """Return what the log says of a job that has left the running state."""
    context = job.log_context
    with suppress(AttributeError):
        context["error_type"] = job.error.type  # type: ignore[union-attr]  # absent on success
    return context
