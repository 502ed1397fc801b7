"""What queued jobs ask for, without what they ask about: a prompt may be long, the name of a model is not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, String, func, select

from jobs.schema import jobs

#: Parameters that say which models a job will need.
_TELLING: Final = ("model", "whisper", "lm", "steps")
#: Jobs looked up by one query; SQLite allows 32766 variables.
_AT_ONCE: Final = 1000


class Asked(NamedTuple):
    """A job's task, and those of its parameters that tell which models it needs."""

    task: str
    params: Mapping[str, Any]


def what_is_asked(connection: Connection, job_ids: Sequence[str]) -> dict[str, Asked]:
    """Return what each of the jobs asks for; those that are not there are left out."""
    told = [func.json_extract(jobs.c.params, f"$.{name}") for name in _TELLING]
    pairs = [part for pair in zip(_TELLING, told, strict=True) for part in pair]
    query = select(jobs.c.id, jobs.c.task, func.json_object(*pairs, type_=String))
    found: dict[str, Asked] = {}
    for at in range(0, len(job_ids), _AT_ONCE):
        for job_id, task, params in connection.execute(query.where(jobs.c.id.in_(job_ids[at : at + _AT_ONCE]))):
            given = {name: value for name, value in json.loads(params).items() if value is not None}
            found[job_id] = Asked(task, given)
    return found
