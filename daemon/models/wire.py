"""The messages between the daemon and a runner: one JSON object a line over a socket pair.

From the daemon (``op``): ``warm``, ``load``, ``submit``, ``cancel``, ``close``; of memory ``share``, ``trim``,
``pause``. From the runner: ``ready``, ``failed`` (the model could not be loaded), ``event`` (of one request), ``beat``
(still busy), ``memory``, ``wishes``. Nothing else ever travels, and nothing is evaluated or unpickled: a runner that
has gone mad can at worst end its own connection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: The longest line either side takes, in bytes: ten megabytes of prompt, escaped, with room to spare.
MAX_LINE: Final = 64 * 1024 * 1024

_CHUNK: Final = 64 * 1024


class WireError(Exception):
    """The other side sent what is not a message, or a message is too long to be sent."""


class Wire:
    """One end of the connection. `send` may be called from any thread, `read` from one."""

    def __init__(self, sock: socket.socket, *, max_line: int = MAX_LINE) -> None:
        self._socket = sock
        self._max_line = max_line
        self._sending = threading.Lock()
        self._pending = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, to wait for with `select`."""
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send *message* whole.

        Raises:
            WireError: it is not JSON or too long; nothing was sent.
            OSError: the other side is gone.

        """
        try:
            line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise WireError(f"This cannot be sent as JSON: {error}") from error
        if len(line) > self._max_line:
            raise WireError(f"A message of {len(line):,} bytes is too long; the limit is {self._max_line:,} bytes.")
        with self._sending:
            self._socket.sendall(line)

    def read(self) -> list[dict[str, Any]] | None:
        """Wait for bytes and return the messages they complete (perhaps none), or None at the end.

        Raises:
            WireError: what came is not a message; the connection is of no more use.

        """
        try:
            chunk = self._socket.recv(_CHUNK)
        except OSError:
            return None  # reset by a peer that was killed: the same as its end
        if not chunk:
            return None
        return list(self._split(chunk))

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the other side ends."""
        while (batch := self.read()) is not None:
            yield from batch

    def shut(self) -> None:
        """End the conversation in both directions; both sides' reads end. May be called twice, from any thread."""
        with contextlib.suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back; only the reading thread may do so."""
        self.shut()  # a sender that waits for room gets an error now, and lets go of the lock
        with self._sending:
            self._socket.close()

    def _split(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        *whole, rest = chunk.split(b"\n")
        for end in whole:
            line = bytes(self._pending + end)
            self._pending.clear()
            yield _parse(line)
        self._pending += rest
        if len(self._pending) > self._max_line:
            raise WireError(f"A line is longer than {self._max_line:,} bytes.")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"A line of {len(line):,} bytes is not a message.") from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise WireError(f"A line of {len(line):,} bytes is not a message.")
    return message
