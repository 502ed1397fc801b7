"""Between a `Job` and its row: the only place that knows both shapes."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, overload

from pydantic_core import to_jsonable_python
from sqlalchemy import RowMapping, Select, select

from jobs.model import ErrorInfo, Job, NewJob, OutputFile, State
from jobs.schema import jobs, notes

#: Columns that hold the same value under the same name in the row and in the job.
_SAME = tuple(set(Job.model_fields) - {"source", "outputs", "waiting"})
#: What the row of a new job leaves empty.
NOTHING_YET: Final = MappingProxyType(
    dict.fromkeys(("owner", "started_at", "finished_at", "progress", "result", "error", "outputs"))
)


def select_jobs() -> Select[Any]:
    """Return the query that `to_job` can read; add conditions, an order and a limit to it."""
    return select(jobs, notes.c.progress).select_from(jobs.outerjoin(notes, notes.c.seq == jobs.c.seq))


def new_row(new: NewJob, *, job_id: str, now: datetime) -> dict[str, Any]:
    """Return the row of a job that was just asked for."""
    return {
        "id": job_id,
        "task": new.task,
        "params": jsonable(new.params),
        "lane": new.lane.value,
        "priority": new.priority,
        "idempotency_key": printable(new.idempotency_key),
        "parent": printable(new.parent),
        "source_kind": new.source.kind,
        "source_detail": printable(new.source.detail),
        "source_rule": printable(new.source.rule),
        "placement": new.placement.model_dump(mode="json"),
        "max_failures": new.max_failures,
        "not_before": None if new.not_before is None else new.not_before.astimezone(UTC),
        "reuse": new.reuse,
        "provenance": new.provenance,
        "state": State.QUEUED.value,
        "attempts": 0,
        "failures": 0,
        "crashes": 0,
        "fence": 0,
        "cancel_requested": 0,
        "created_at": now,
    }


def to_job(row: Mapping[str, Any] | RowMapping) -> Job:
    """Return the job that *row* of `select_jobs` holds."""
    values = {name: row[name] for name in _SAME}
    source = {"kind": row["source_kind"], "detail": row["source_detail"], "rule": row["source_rule"]}
    return Job.model_validate(values | {"source": source, "outputs": row["outputs"] or ()})


def changed(job: Job, changes: Mapping[str, Any]) -> Job:
    """Return *job* as it is after *changes* to its row."""
    return job.model_copy(update={name: _READ.get(name, _as_it_is)(value) for name, value in changes.items()})


def _as_it_is(value: Any) -> Any:
    return value


#: Columns whose value is something else in the job.
_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "state": State,
    "cancel_requested": bool,
    "error": lambda value: None if value is None else ErrorInfo.model_validate(value),
    "outputs": lambda value: tuple(OutputFile.model_validate(one) for one in value or ()),
    "not_before": lambda value: None if value is None else value.astimezone(UTC),
}


def outputs_column(outputs: Sequence[OutputFile]) -> list[dict[str, Any]]:
    """Return what the column ``outputs`` holds."""
    return [output.model_dump(mode="json") for output in outputs]


def jsonable(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* as strict JSON: a job is not lost because a plugin returned a path, a NaN or a numpy number."""
    converted: dict[str, Any] = to_jsonable_python(
        dict(data), inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True
    )
    return converted


def path_key(path: Path) -> Path:
    """Return *path* as it is compared: composed Unicode, whichever form the file system reports."""
    return Path(unicodedata.normalize("NFC", str(path)))


@overload
def printable(value: str) -> str: ...
@overload
def printable(value: None) -> None: ...
def printable(value: str | None) -> str | None:
    """Return *value* as text that SQLite takes: a file name may hold bytes that are not UTF-8."""
    return None if value is None else value.encode(errors="backslashreplace").decode()
