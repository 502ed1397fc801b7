"""Requests that are answered without a task and an application around them: a short way past both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from daemon.api.parsing import ParsingProtocol


class Answer(NamedTuple):
    """A whole answer. Its headers say how long it is."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


Told = Callable[[Answer], None]
#: Has what a body asks for done and calls back later, or returns False: then the application is asked.
Take = Callable[[bytes, Told], bool]


class ShortWay(Protocol):
    """Answers some requests by itself. It is called, and calls back, in the event loop."""

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        """Return who takes a request with this head, None if it is not one of them."""


class AnsweringProtocol(ParsingProtocol):
    """One connection. What fits goes the short way if there is one, everything else to the application."""

    short: ShortWay | None = None
    #: A request that fits and whose body is still to come.
    _coming: Any = None
    _by: Take | None = None

    def on_message_complete(self) -> None:
        """Hear that a request is here."""
        super().on_message_complete()
        if self._coming is not None and not self._coming.more_body:
            self._take(self._coming)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._by = self._way(cycle) if app is self.app else None
        if self._by is None:
            super()._start_asgi_task(cycle, app)
            return
        self._served = cycle
        if cycle.more_body:
            self._coming = cycle
        else:
            self._take(cycle)

    def _way(self, cycle: Any) -> Take | None:
        # Who does not read his answers is waited for by the application's tasks.
        if self.short is None or self.flow.write_paused or cycle.waiting_for_100_continue:
            return None
        return self.short.way(cycle.scope)

    def _take(self, cycle: Any) -> None:
        self._coming = None
        if self._by is None or not self._by(bytes(cycle.body), partial(self._told, cycle)):
            super()._start_asgi_task(cycle, self.app)

    def _told(self, cycle: Any, answer: Answer) -> None:
        """Write *answer*, all at once."""
        if cycle.disconnected or self.transport.is_closing():
            return
        lines = [name + b": " + value + b"\r\n" for name, value in answer.headers]
        lines += () if cycle.keep_alive else (b"connection: close\r\n",)
        self.transport.write(b"".join((STATUS_LINE[answer.status], *lines, b"\r\n", answer.body)))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
