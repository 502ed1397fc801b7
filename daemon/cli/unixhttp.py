"""Just enough HTTP/1.1 to talk to our own daemon: one request on one connection to a Unix socket.

The standard library's `http.client` would do, but importing it (with the mail parser and TLS it brings) takes longer
than all the rest of `mlxd submit`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from daemon.api.peers import peer_uid
from jobs.errors import DaemonUnreachable

_PIECE: Final = 1 << 16
#: Bytes in one line of a head or of a chunk's size. Lines of events are not limited: a job's state is one line.
_LINE: Final = 1 << 16
_START: Final = "Start it with `mlxd run` or `mlxd service start`."


class BrokenAnswer(Exception):
    """The connection ended, or what came is no HTTP."""


class Exchange:
    """A request and its answer; use it with ``with``.

    *patience* is how long, in seconds, each piece of the answer may take. Every method raises `TimeoutError` when
    that passed, and `BrokenAnswer`.

    Raises:
        DaemonUnreachable: nobody listens there, or somebody who is not us.

    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(patience)
            _connect(self._sock, path)
        except BaseException:
            self._sock.close()
            raise
        self._file = self._sock.makefile("rb")
        self.status = 0
        self.headers: dict[str, str] = {}

    def send(self, method: str, target: str, body: bytes | None = None) -> None:
        """Send the request, and read the answer's status and headers."""
        head = f"{method} {target} HTTP/1.1\r\nHost: mlxd\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        elif method != "GET":
            head += "Content-Length: 0\r\n"
        # A body beyond the limit is refused before it has arrived: the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(head.encode("ascii") + b"\r\n" + (body or b""))
        self._read_head()

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._exactly(int(self.headers["content-length"]))
        else:
            while piece := self._read(_PIECE):
                yield piece

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())

    def lines(self, *, silence: float, deadline: float | None) -> Iterator[bytes]:
        """Yield the body's lines as they come.

        Raises:
            TimeoutError: nothing came for *silence* seconds, or `time.monotonic` passed *deadline*.

        """
        rest = b""
        pieces = self.pieces()
        while True:
            left = silence if deadline is None else min(silence, deadline - time.monotonic())
            self._sock.settimeout(max(0.001, left))
            piece = next(pieces, None)
            if piece is None:
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _read_head(self) -> None:
        words = self._line().split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():  # noqa: PLR2004
            raise BrokenAnswer("no status line")
        self.status = int(words[1])
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _chunks(self) -> Iterator[bytes]:
        while size := self._chunk_size():
            yield from self._exactly(size)
            self._line()
        while self._line():
            continue  # trailers

    def _chunk_size(self) -> int:
        try:
            return int(self._line().partition(b";")[0], 16)
        except ValueError as error:
            raise BrokenAnswer("no chunk size") from error

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left > 0:
            piece = self._read(min(left, _PIECE))
            if not piece:
                raise BrokenAnswer("ended early")
            left -= len(piece)
            yield piece

    def _line(self) -> bytes:
        try:
            line = self._file.readline(_LINE)
        except ConnectionError as error:
            raise BrokenAnswer("ended early") from error
        if not line.endswith(b"\n"):
            raise BrokenAnswer("ended early")
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read1(size)
        except ConnectionError as error:
            raise BrokenAnswer("ended early") from error


def _connect(sock: socket.socket, path: Path) -> None:
    try:
        sock.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise DaemonUnreachable(f"No mlxd answers on {path}. {_START}", socket=str(path)) from error
    except TimeoutError:
        raise
    except OSError as error:  # without strerror when the path does not fit into a socket's address
        raise DaemonUnreachable(f"Cannot reach mlxd on {path}: {error.strerror or error}.", socket=str(path)) from error
    # A prompt must not go to somebody else's socket. Root is let through because on a Mac launchd listens for us.
    if peer_uid(sock) not in {os.geteuid(), 0}:
        raise DaemonUnreachable(f"The socket {path} belongs to another user.", socket=str(path))
