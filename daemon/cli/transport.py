"""Requests to the daemon: JSON in, JSON out, problems as exceptions.

`mlxd submit` is as quick as what it imports, so this module imports no pydantic and no HTTP library.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import quote, urlencode

from daemon.api.problems import error_from
from daemon.cli.unixhttp import BrokenAnswer, Exchange
from jobs.errors import DaemonUnreachable

#: Seconds until a request that should be answered at once counts as unanswered.
PATIENCE: Final = 30.0
#: Seconds of silence on a stream of events (the daemon sends a comment every 15 s).
_SILENCE: Final = 60.0
_FIRST_PROBLEM: Final = 400
#: Jobs asked for at a time.
_PAGE: Final = 500


class Message(NamedTuple):
    """One server-sent event."""

    #: "state", "progress", "token", "segment", "lagged", ...
    kind: str
    data: dict[str, Any]


class Transport:
    """Asks the daemon that listens on *socket_path*. Every call opens a connection of its own.

    Every method raises `DaemonUnreachable` when nobody answers, and the error that a problem document tells of.
    """

    def __init__(self, socket_path: Path, *, patience: float = PATIENCE) -> None:
        self._path = socket_path
        self._patience = patience

    def ask(
        self,
        method: str,
        target: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        patience: float | None = None,
    ) -> Any:
        """Send a request and return its JSON; *patience* is how long, in seconds, the answer may take."""
        return json.loads(self.fetch(method, target, query=query, body=body, patience=patience)[1] or b"null")

    def fetch(
        self,
        method: str,
        target: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        patience: float | None = None,
    ) -> tuple[int, bytes]:
        """Send a request and return status and body of its answer."""
        with self._exchange(method, _with(target, query), body=body, patience=patience) as exchange:
            return exchange.status, exchange.read()

    def save(self, target: str, file: BinaryIO) -> None:
        """Copy the body of an answer into *file*."""
        with self._exchange("GET", target) as exchange:
            file.writelines(exchange.pieces())

    def events(self, target: str, *, deadline: float | None = None) -> Iterator[Message]:
        """Yield server-sent events until the daemon ends the stream.

        Raises:
            TimeoutError: `time.monotonic` passed *deadline*.

        """
        with self._exchange("GET", target, deadline=deadline) as exchange:
            kind, data = "message", ""
            for line in exchange.lines(silence=_SILENCE, deadline=deadline):
                field, _, value = line.decode().rstrip("\r").partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data += value
                elif not field and data:
                    yield Message(kind, json.loads(data))
                    kind, data = "message", ""

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        target: str,
        *,
        body: Any = None,
        patience: float | None = None,
        deadline: float | None = None,
    ) -> Iterator[Exchange]:
        """Send a request and give the answer, if it is no problem."""
        patience = self._patience if patience is None else patience
        try:
            with Exchange(self._path, patience=patience) as exchange:
                exchange.send(method, target, None if body is None else json.dumps(body).encode())
                if exchange.status >= _FIRST_PROBLEM:
                    raise error_from(_document(exchange.read()), status=exchange.status)
                yield exchange
        except TimeoutError as error:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            raise DaemonUnreachable(f"mlxd on {self._path} has been silent for too long; see `mlxd logs`.") from error
        except BrokenAnswer as error:
            raise DaemonUnreachable(f"mlxd on {self._path} broke off its answer; see `mlxd logs`.") from error


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _with(target: str, query: Mapping[str, Any] | None) -> str:
    chosen = {key: value for key, value in (query or {}).items() if value is not None and value != []}
    return f"{target}?{urlencode(chosen, doseq=True)}" if chosen else target


def job_path(job_id: str, *rest: str) -> str:
    """Return the path of a job, or of something below it."""
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *rest])


def pages(transport: Transport, query: Mapping[str, Any], *, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the jobs that *query* asks for, newest first, page by page: at most *limit*, or all of them."""
    left, cursor = limit, None
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = transport.ask("GET", "/v1/jobs", query={**query, "limit": size, "cursor": cursor})
        yield from page["jobs"]
        left = None if left is None else left - len(page["jobs"])
        cursor = page["next"]
        if cursor is None:
            return
