"""uvicorn in a thread of its own, without its traps.

1. It does not tick: stock uvicorn wakes up ten times a second to look at a flag and to format the date.
2. It touches no signal: stock uvicorn takes SIGTERM and raises it again after it has stopped.
3. It binds nothing: stock uvicorn makes a socket that everybody may open (0666) and leaves it behind.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.config import Config

from daemon.api.answering import ShortWay
from daemon.api.listener import Listener, bind
from daemon.api.peers import is_own
from daemon.api.protocol import RECEIVE_SECONDS, guarded
from jobs.errors import MlxdError

_log = logging.getLogger(__name__)

_GRACE_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 15
#: Beyond this many connections a newcomer hears 503.
_CONNECTIONS: Final = 1000


class SocketServer:
    """Serves an ASGI *app* on a *listener* from `start` to `stop`; what fits *short* goes past the app.

    *before_stop* is called first when stopping: it must end what would go on for ever (streams of events).
    """

    def __init__(
        self,
        app: Any,
        listener: Listener,
        *,
        short: ShortWay | None = None,
        before_stop: Callable[[], None] = lambda: None,
        allow: Callable[[socket.socket], bool] = is_own,
        receive_seconds: float = RECEIVE_SECONDS,
        grace_seconds: int = _GRACE_SECONDS,
    ) -> None:
        self._listener = listener
        self._before_stop = before_stop
        self._server = _Server(
            Config(
                app,
                http=guarded(allow=allow, receive_seconds=receive_seconds, short=short),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                date_header=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._thread = threading.Thread(target=self._run, name="mlxd-socket", daemon=True)
        self._settled = threading.Event()
        self._failure: BaseException | None = None
        #: Why nobody finds us, if so.
        self.problem: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to serve; return when a request would be answered.

        Raises:
            RuntimeError: the application did not start; the cause is chained.

        """
        self._server.on_ready = self._settled.set
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            raise RuntimeError("The socket's server did not start.") from self._failure

    def mend(self) -> None:
        """Bind anew if somebody deleted or replaced the socket's file: without it nobody finds a daemon that lives.

        A service manager's socket is done without until it binds its own again. What is in the way stays there.
        """
        if not (self._settled.is_set() and self.alive and self._listener.lost):
            return
        path = self._listener.path
        try:
            fresh = bind(path)
        except MlxdError as error:
            if self.problem is None:
                _log.error("%s", error.message, extra={"action": "socket_lost"})
            self.problem = f"{path} does not lead to mlxd any more. {error.message}"
            return
        try:
            self._server.move_to(list(fresh.sockets))
        except (RuntimeError, TimeoutError):  # it stops this very moment, or is overwhelmed: the next look tries again
            fresh.close()
            return
        self._listener, self.problem = fresh, None
        _log.warning("The socket's file was gone; bound it anew.", extra={"action": "socket_bound_anew"})

    def stop(self, timeout: float = 10.0) -> bool:
        """End streams, let requests finish for a few seconds, close the socket; False if *timeout* seconds passed."""
        self._before_stop()
        self._server.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._listener.close()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve_on(list(self._listener.sockets)))
        # SystemExit is how uvicorn says that the application's start failed; anything else is a fault to report too.
        except BaseException as error:  # noqa: BLE001
            self._failure = error
            _log.critical("The socket's server ended.", extra={"action": "server_failed"}, exc_info=error)
        finally:
            self._settled.set()


class _Server(uvicorn.Server):
    """uvicorn's server, waiting on an event instead of ticking."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.on_ready: Callable[[], None] = lambda: None
        self._asked = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    async def serve_on(self, sockets: list[socket.socket]) -> None:
        """Serve until asked to stop. ``serve`` would capture signals first."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self._serve(sockets)

    def ask_to_stop(self) -> None:
        """Make the server stop; from any thread, before the start or after the end too."""
        self._asked.set()
        if self._loop is not None and self._wake is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # the loop is closed: it has stopped already
                return

    def move_to(self, sockets: list[socket.socket]) -> None:
        """Take connections on *sockets* instead; those that are there already go on. From any thread."""
        if self._loop is None:
            raise RuntimeError("The server does not run.")
        asyncio.run_coroutine_threadsafe(self._move_to(sockets), self._loop).result(_GRACE_SECONDS)

    async def _move_to(self, sockets: list[socket.socket]) -> None:
        loop, before = asyncio.get_running_loop(), self.servers
        self.servers = [await loop.create_server(self._protocol, sock=sock) for sock in sockets]
        for server in before:
            server.close()

    def _protocol(self) -> asyncio.Protocol:
        """Make what serves one connection, as uvicorn's `startup` does."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def main_loop(self) -> None:
        """Sleep until asked to stop."""
        self.server_state.default_headers = list(self.config.encoded_headers)
        self.on_ready()
        if not self._asked.is_set() and self._wake is not None:
            await self._wake.wait()
