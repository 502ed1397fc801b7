"""HTTP to the daemon over its Unix socket, with the standard library alone.

`mlxd submit` is as quick as what it imports, so this module imports no pydantic and no HTTP library.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import quote, urlencode

from daemon.peers import peer_uid
from daemon.problems import error_from
from jobs.errors import DaemonUnreachable

#: Seconds until a request that should be answered at once counts as unanswered.
PATIENCE: Final = 30.0
#: Seconds of silence on a stream of events (the daemon sends a comment every 15 s).
_SILENCE: Final = 60.0
_PIECE: Final = 1 << 20
#: Jobs asked for at a time.
_PAGE: Final = 500
_START: Final = "Start it with `mlxd run` or `mlxd service start`."


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
        with self._exchange(method, _with(target, query), body, patience or self._patience) as (_, response):
            return response.status, response.read()

    def save(self, target: str, file: BinaryIO) -> None:
        """Copy the body of an answer into *file*."""
        with self._exchange("GET", target, None, self._patience) as (_, response):
            while piece := response.read(_PIECE):
                file.write(piece)

    def events(self, target: str, *, deadline: float | None = None) -> Iterator[Message]:
        """Yield server-sent events until the daemon ends the stream.

        Raises:
            TimeoutError: `time.monotonic` passed *deadline*.

        """
        with self._exchange("GET", target, None, self._patience) as (connection, response):
            kind, data = "message", ""
            while line := _read_line(connection, response, deadline):
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data += value
                elif not field and data:
                    yield Message(kind, json.loads(data))
                    kind, data = "message", ""

    @contextlib.contextmanager
    def _exchange(
        self, method: str, target: str, body: Any, patience: float
    ) -> Iterator[tuple[_Connection, http.client.HTTPResponse]]:
        connection = _Connection(self._path, timeout=patience)
        try:
            response = _answered(connection, method, target, body)
            with response:
                if response.status >= http.HTTPStatus.BAD_REQUEST:
                    raise error_from(_document(response), status=response.status)
                yield connection, response
        except TimeoutError as error:
            if connection.deadline_passed:
                raise
            raise DaemonUnreachable(f"mlxd did not answer within {patience:.0f} s on {self._path}.") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise DaemonUnreachable(f"mlxd ended the connection on {self._path}; look at `mlxd logs`.") from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("mlxd", timeout=timeout)
        self._path = path
        self.stream: socket.socket
        #: Whether a timeout is the caller's deadline and not the daemon's silence.
        self.deadline_passed = False

    def connect(self) -> None:
        """Connect, and make sure that it is our own daemon: a prompt must not go to somebody else's socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            _connect(sock, self._path)
        except BaseException:
            sock.close()
            raise
        # http.client forgets `sock` as soon as an answer says that it is the last; its timeout is still ours to set.
        self.sock = self.stream = sock


def _connect(sock: socket.socket, path: Path) -> None:
    try:
        sock.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise DaemonUnreachable(f"No mlxd answers on {path}. {_START}", socket=str(path)) from error
    except TimeoutError:
        raise
    except OSError as error:  # without strerror when the path does not fit into a socket's address
        raise DaemonUnreachable(f"Cannot reach mlxd on {path}: {error.strerror or error}.", socket=str(path)) from error
    # Root is let through because on a Mac launchd listens for us.
    if peer_uid(sock) not in {os.geteuid(), 0}:
        raise DaemonUnreachable(f"The socket {path} belongs to another user.", socket=str(path))


def _answered(connection: _Connection, method: str, target: str, body: Any) -> http.client.HTTPResponse:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Connection": "close"} | ({} if data is None else {"Content-Type": "application/json"})
    # A body beyond the limit is refused before it has arrived: the answer is there although sending failed.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, target, data, headers)
    return connection.getresponse()


def _document(response: http.client.HTTPResponse) -> Mapping[str, Any]:
    try:
        document = json.loads(response.read())
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _read_line(connection: _Connection, response: http.client.HTTPResponse, deadline: float | None) -> bytes:
    left = _SILENCE if deadline is None else min(_SILENCE, max(0.001, deadline - time.monotonic()))
    connection.stream.settimeout(left)
    try:
        return response.readline()
    except TimeoutError:
        connection.deadline_passed = deadline is not None and time.monotonic() >= deadline
        raise


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
