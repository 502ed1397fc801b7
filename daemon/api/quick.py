"""A short way for what is asked most: small submissions that are as they should be, with no more to them.

They are answered here with the very bytes that the route would answer, at a fraction of its cost. Whatever is unusual
about a request (a query, another type, a mistake) goes the long way, with what was read of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from daemon.api.answering import Answer
from daemon.api.gathering import Gathering, Outcome
from daemon.api.routes_jobs import accepted
from daemon.api.submission import Submission
from jobs.errors import MlxdError
from jobs.model import Job, NewJob

#: Bytes; a larger body is worth a thread of its own.
SMALL: Final = 64 * 1024
_JSON: Final = b"application/json"

Told = Callable[[Answer], None]


class QuickSubmit:
    """Answers plain ``POST /v1/jobs`` of *most* bytes. *refuse* makes the answer of an error."""

    def __init__(self, gathering: Gathering, *, refuse: Callable[[BaseException], Response], most: int = SMALL) -> None:
        self._gathering = gathering
        self._refuse = refuse
        self._most = most

    def fits(self, scope: Mapping[str, Any]) -> bool:
        """Tell whether it is a small submission in JSON whose parts are all in its body."""
        if scope["path"] != "/v1/jobs" or scope["method"] != "POST" or scope["query_string"]:
            return False
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        small = length.isdigit() and int(length) <= self._most
        return small and headers.get(b"content-type") == _JSON and b"idempotency-key" not in headers

    def take(self, body: bytes, told: Told) -> bool:
        """Have what *body* asks for written down, and tell; return False if there is anything to say about it."""
        new = _asked(body)
        if new is None:
            return False
        try:
            asked = self._gathering.ask(new)
        except RuntimeError:  # its threads have ended: the daemon stops, and the application says so
            return False
        asked.add_done_callback(lambda done: told(self._answer(done)))
        return True

    def _answer(self, done: asyncio.Future[Outcome]) -> Answer:
        try:
            outcome = done.result()
            if not isinstance(outcome, MlxdError):
                return _accepted(outcome[0], created=outcome[1])
            refused = self._refuse(outcome)
        except BaseException as error:  # noqa: BLE001 - a fault in one request must not be more, nor a plugin's SystemExit
            refused = self._refuse(error)
        return Answer(refused.status_code, refused.raw_headers, bytes(refused.body))


def _accepted(job: Job, *, created: bool) -> Answer:
    status, headers = accepted(job, created=created)
    body = job.model_dump_json().encode()
    said = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Answer(status, [*said, (b"content-length", b"%d" % len(body)), (b"content-type", _JSON)], body)


def _asked(body: bytes) -> NewJob | None:
    """Return what *body* asks for, None if there is anything to say about it."""
    try:
        return Submission.model_validate(json.loads(body))
    except (ValueError, RecursionError):
        return None
