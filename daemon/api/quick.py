"""A short way for what is asked most, and first: small submissions that are as they should be, and the daemon's health.

They are answered here with the very bytes that the route would answer, at a fraction of its cost, and before there is
a route: a daemon that just started takes jobs while its application is still being imported. Whatever is unusual about
a request (a query, another type, a mistake) goes the long way, with what was read of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from daemon.api.answering import Answer, ShortWay, Take, Told
from daemon.api.gathering import Gathering, Outcome
from daemon.api.problems import PROBLEM, encode, headers_for, problem_of, unforeseen
from daemon.api.submission import Submission, accepted
from jobs.errors import MlxdError
from jobs.model import NewJob

_log = logging.getLogger(__name__)

#: Bytes; a larger body is worth a thread of its own.
SMALL: Final = 64 * 1024
_JSON: Final = b"application/json"

Found = TypeVar("Found")


class ShortWays:
    """Several short ways; the first that takes a request has it."""

    def __init__(self, *ways: ShortWay) -> None:
        self._ways = ways

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        """Return who takes a request with this head, None if nobody does."""
        return next(filter(None, (one.way(scope) for one in self._ways)), None)


class QuickSubmit:
    """Answers plain ``POST /v1/jobs`` of *most* bytes."""

    def __init__(self, gathering: Gathering, *, most: int = SMALL) -> None:
        self._gathering = gathering
        self._most = most

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        """Take a small submission in JSON whose parts are all in its body."""
        if scope["path"] != "/v1/jobs" or scope["method"] != "POST" or scope["query_string"]:
            return None
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        small = length.isdigit() and int(length) <= self._most
        plain = small and headers.get(b"content-type") == _JSON and b"idempotency-key" not in headers
        return self.take if plain else None

    def take(self, body: bytes, told: Told) -> bool:
        """Have what *body* asks for written down, and tell; return False if there is anything to say about it."""
        new = _asked(body)
        if new is None:
            return False
        try:
            asked = self._gathering.ask(new)
        except RuntimeError:  # its threads have ended: the daemon stops, and the application says so
            return False
        asked.add_done_callback(lambda done: told(_answer(done, _accepted)))
        return True


class QuickHealth:
    """Answers ``GET /v1/health`` with what *health* returns. It may wait for the ledger, so it has a thread."""

    def __init__(self, health: Callable[[], BaseModel]) -> None:
        self._health = health

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        """Take it if nothing else is said."""
        plain = scope["path"] == "/v1/health" and scope["method"] == "GET" and not scope["query_string"]
        return self.take if plain else None

    def take(self, _body: bytes, told: Told) -> bool:
        """Look, and tell."""
        try:
            asked = asyncio.get_running_loop().run_in_executor(None, self._health)
        except RuntimeError:  # no threads are given out any more: the daemon stops
            return False
        asked.add_done_callback(lambda done: told(_answer(done, lambda found: _sent(200, found))))
        return True


def _answer(done: asyncio.Future[Found], said: Callable[[Found], Answer]) -> Answer:
    try:
        return said(done.result())
    except BaseException as error:  # noqa: BLE001 - a fault in one request must not be more, nor a plugin's SystemExit
        return refused(error)


def _accepted(outcome: Outcome) -> Answer:
    if isinstance(outcome, MlxdError):
        return refused(outcome)
    job, created = outcome
    status, headers = accepted(job, created=created)
    return _sent(status, job, headers)


def _sent(status: int, found: BaseModel, headers: Mapping[str, str] | None = None) -> Answer:
    return _whole(status, found.model_dump_json().encode(), _JSON, headers or {})


def refused(error: BaseException) -> Answer:
    """Return what is said instead of what was asked for; a fault that nobody foresaw is told to the log."""
    if not isinstance(error, MlxdError):
        _log.error("A request failed unexpectedly.", extra={"action": "request_failed"}, exc_info=error)
    document = problem_of(error) if isinstance(error, MlxdError) else unforeseen()
    status = int(document["status"])
    if isinstance(error, MlxdError) and status >= 500:  # noqa: PLR2004 - HTTP
        _log.error("%s", error.message, extra={"action": "request_refused", "error": error.slug})
    return _whole(status, encode(document), PROBLEM.encode(), headers_for(status, document))


def _whole(status: int, body: bytes, kind: bytes, headers: Mapping[str, str]) -> Answer:
    said = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Answer(status, [*said, (b"content-length", b"%d" % len(body)), (b"content-type", kind)], body)


def _asked(body: bytes) -> NewJob | None:
    """Return what *body* asks for, None if there is anything to say about it."""
    try:
        return Submission.model_validate(json.loads(body))
    except (ValueError, RecursionError):
        return None
