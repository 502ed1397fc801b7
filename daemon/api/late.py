"""An application that is made while the server serves already.

Importing FastAPI and the routes, and building what checks their parameters, is nearly half of the daemon's start. Short
ways (`daemon.api.quick`) need none of it, so jobs are taken meanwhile; who asks for anything else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.api.problems import send_problem, unforeseen

_log = logging.getLogger(__name__)

#: Seconds of a thread's turn while an application is made, and as it was (Python's own: 0.005).
_SHORT_S: Final = 0.0005
_USUAL_S: Final = sys.getswitchinterval()


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Importing keeps the interpreter for whole turns, and a submission that comes meanwhile changes threads often."""
    sys.setswitchinterval(_SHORT_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_S)  # not what it was before: two may be made at the same time


class LateApp:
    """Serves as what *make* returns. It is called once, on a thread of its own: at `begin` or when it is first needed.

    *closed* is called when the server has ended. If *make* raises, that is logged, *failed* is told what, and every
    request is answered with status 500.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        closed: Callable[[], object] = lambda: None,
        failed: Callable[[BaseException], object] = lambda _error: None,
    ) -> None:
        self._closed, self._failed = closed, failed
        self._made: Future[Any] = Future()
        self._made.set_running_or_notify_cancel()  # a server that does not wait for it any more takes nothing back
        self._open: asyncio.Future[ASGIApp] | None = None
        self._lock = threading.Lock()
        self._loading: threading.Thread | None = threading.Thread(
            target=self._load, args=(make,), name="mlxd-app", daemon=True
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._open is not None  # noqa: S101 - servers ask for the life first
        self.begin()
        # Shielded: whoever goes away while he waits must not take it from the others.
        app = await asyncio.shield(self._open)
        await app(scope, receive, send)

    def begin(self) -> None:
        """Have it made now, if that has not begun."""
        with self._lock:
            loading, self._loading = self._loading, None
        if loading is not None:
            loading.start()

    def _load(self, make: Callable[[], Any]) -> None:
        try:
            with _short_turns():
                app = make()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait for it have to hear of it
            _log.critical("The application could not be made.", extra={"action": "app_failed"}, exc_info=error)
            self._failed(error)
            self._made.set_exception(error)
        else:
            self._made.set_result(app)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Say at once that it is there, and lead the application's own life from when it is made."""
        await receive()
        self._open = asyncio.get_running_loop().create_future()
        await send({"type": "lifespan.startup.complete"})
        ended = asyncio.ensure_future(receive())
        try:
            await self._inner_life(self._open, ended)
        finally:
            self._closed()
        await send({"type": "lifespan.shutdown.complete"})

    async def _inner_life(self, opened: asyncio.Future[ASGIApp], ended: asyncio.Future[Any]) -> None:
        made = asyncio.wrap_future(self._made)
        await asyncio.wait({made, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            made.cancel()
            return
        if made.exception() is not None:
            opened.set_result(_unmade)
            await ended
            return
        app = made.result()
        async with app.router.lifespan_context(app):
            opened.set_result(app)
            await ended


async def _unmade(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer as every fault that nobody foresaw is answered."""
    await send_problem(send, unforeseen())
