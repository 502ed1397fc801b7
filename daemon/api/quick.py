"""A short way for what is asked most: small submissions that are as they should be, with no more to them.

They are answered here with the very bytes that the route would answer, at a fraction of its cost. Whatever is unusual
about a request (a query, another type, a mistake) goes the long way, with what was read of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.api.gathering import Gathering
from daemon.api.routes_jobs import accepted
from daemon.api.submission import Submission
from jobs.errors import MlxdError
from jobs.model import NewJob

#: Bytes; a larger body is worth a thread of its own.
SMALL: Final = 64 * 1024
_JSON: Final = b"application/json"


class QuickSubmit:
    """Middleware that answers plain ``POST /v1/jobs`` of *most* bytes. *refuse* makes the answer of an error."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        gathering: Gathering,
        refuse: Callable[[Request, Exception], Response],
        most: int = SMALL,
    ) -> None:
        self._app = app
        self._gathering = gathering
        self._refuse = refuse
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not _plain(scope, self._most):
            await self._app(scope, receive, send)
            return
        read: list[Message] = []
        new = _asked(await _body(receive, read))
        if new is None:
            await self._app(scope, _again(read, receive), send)
            return
        try:
            job, created = await self._gathering.submit(new)
        except MlxdError as error:
            answer = self._refuse(Request(scope), error)
        else:
            status, headers = accepted(job, created=created)
            answer = Response(job.model_dump_json(), status, headers, media_type="application/json")
        await answer(scope, receive, send)


def _plain(scope: Scope, most: int) -> bool:
    """Tell whether it is a small submission in JSON whose parts are all in its body."""
    if scope["type"] != "http" or scope["path"] != "/v1/jobs" or scope["method"] != "POST" or scope["query_string"]:
        return False
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    small = length.isdigit() and int(length) <= most
    return small and headers.get(b"content-type") == _JSON and b"idempotency-key" not in headers


async def _body(receive: Receive, read: list[Message]) -> bytes | None:
    """Return the body, None if the client went away; all that came is in *read*."""
    while not read or read[-1].get("more_body"):
        read.append(await receive())
        if read[-1]["type"] != "http.request":
            return None
    return b"".join(message.get("body", b"") for message in read)


def _asked(body: bytes | None) -> NewJob | None:
    """Return what *body* asks for, None if there is anything to say about it."""
    try:
        return None if body is None else Submission.model_validate(json.loads(body)).new_job()
    except (ValueError, RecursionError):
        return None


def _again(read: list[Message], receive: Receive) -> Receive:
    """Return what gives the messages in *read* once more, and then goes on."""
    rest = iter(read)

    async def replay() -> Message:
        message = next(rest, None)
        return await receive() if message is None else message

    return replay
