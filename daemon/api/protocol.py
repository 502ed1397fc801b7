"""One connection: for our own user only, and not at the mercy of slow senders."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from daemon.api.answering import AnsweringProtocol, ShortWay
from daemon.api.peers import is_own

_log = logging.getLogger(__name__)

#: Seconds from the first byte of a request (or from connecting) to its last one.
RECEIVE_SECONDS: Final = 30.0


class GuardedProtocol(AnsweringProtocol):
    """One connection. A stranger's is ended before a byte of it is read, in doubt too."""

    #: Whether the process at the other end is allowed here.
    allow: Callable[[socket.socket], bool] = staticmethod(is_own)
    receive_seconds: float = RECEIVE_SECONDS
    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        """Ask the kernel who is there, and serve only our own user."""
        sock = transport.get_extra_info("socket")
        if sock is None or not self.allow(sock):
            self._refused = True
            _log.warning("Refused a connection of another user.", extra={"action": "peer_refused"})
            transport.abort()
            return
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwatch()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take *data*, unless it comes from a stranger."""
        if not self._refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Have a deadline for what came in part behind the request that is answered now."""
        super().on_response_complete()
        if self.arriving:
            self._watch()

    def _watch(self) -> None:
        """Keep one deadline over the whole of a request's arrival: a byte now and then does not move it."""
        if self.engaged or self.transport.is_closing():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.receive_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            _log.info("Closed a connection whose request did not arrive in time.", extra={"action": "receive_timeout"})
            self.transport.abort()


def guarded(
    *, allow: Callable[[socket.socket], bool], receive_seconds: float, short: ShortWay | None = None
) -> type[GuardedProtocol]:
    """Return the protocol class with its settings (uvicorn takes a class and makes the objects itself)."""
    members: dict[str, Any] = {"allow": staticmethod(allow), "receive_seconds": receive_seconds, "short": short}
    return type("GuardedProtocol", (GuardedProtocol,), members)
