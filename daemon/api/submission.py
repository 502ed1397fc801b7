"""What a submitter may send: a `NewJob`, looked at more closely because it comes from outside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Self

from pydantic import field_validator, model_validator

from jobs.failpoints import reach
from jobs.model import Job, NewJob

#: Levels of nesting in the parameters: what writes them down again recurses.
MAX_DEPTH: Final = 64


class Submission(NewJob):
    """A job as it arrives."""

    @model_validator(mode="before")
    @classmethod
    def _sound(cls, raw: Any) -> Any:
        """Refuse what JSON can carry and a database, a file name or an answer cannot."""
        check_json(raw)
        return raw

    @model_validator(mode="after")
    def _placed(self) -> Self:
        """Refuse relative paths: the daemon runs elsewhere, and would write or delete where nobody meant."""
        for path in (self.placement.directory, self.placement.input, self.placement.root):
            if path is not None and (not path.is_absolute() or "\0" in str(path)):
                raise ValueError(f"placement: {str(path)!r} must be an absolute path")
        return self

    @field_validator("not_before", mode="after")
    @classmethod
    def _sometime(cls, value: datetime | None) -> datetime | None:
        """Refuse a time that is before the first or after the last day there is once it is told in UTC."""
        if value is not None:
            try:
                value.astimezone(UTC)
            except OverflowError as error:
                raise ValueError("a time between the years 1 and 9999") from error
        return value

    def new_job(self) -> NewJob:
        """Return the plain value."""
        return NewJob.model_construct(
            _fields_set=set(self.model_fields_set), **{name: getattr(self, name) for name in NewJob.model_fields}
        )


def accepted(job: Job, *, created: bool) -> tuple[int, dict[str, str]]:
    """Return the status and the headers that tell of a submission that is written down."""
    reach("api.accepted")
    return (HTTPStatus.CREATED if created else HTTPStatus.OK), {"Location": f"/v1/jobs/{job.id}"}


def check_json(value: Any) -> None:
    """Raise ``ValueError`` for nesting beyond `MAX_DEPTH`, numbers that are none, and halves of characters."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _children(one)]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number that JSON knows")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text holds half of a surrogate pair, which is no character") from error
    return ()
