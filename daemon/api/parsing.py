"""HTTP/1.1 on one connection: uvicorn's protocol on a parser in C (llhttp), which is quick and takes what it is given.

What it is given is decided here:

1. A head, and whatever else is neither a body nor leads to one, has a bound (`daemon.api.heads`).
2. What comes behind a request that is being served waits unparsed, but for a few kilobytes of it.
3. What is no HTTP is refused once all that came before it is answered, and nothing after it is looked at.
4. A request that asks for another protocol is served as the plain one that it also is, with its body.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daemon.api.heads import MOST, require_sound

#: Bytes that are parsed at a time: small requests take a hundred times as much memory once they are parsed.
_PIECE: Final = 1024
#: Unparsed bytes beyond which nothing is read for them. Up to there who is served is listened to: he may go away.
_MOST_HELD: Final = 64 * 1024
_INVALID: Final = "Invalid HTTP request received."


class _Flow(FlowControl):
    """Does not read on while too much waits that was read, whoever wants more of a body."""

    full = False

    def resume_reading(self) -> None:
        if not self.full:
            super().resume_reading()


class ParsingProtocol(HttpToolsProtocol):
    """One connection."""

    #: What was read and is not parsed yet: it is behind a request that has no answer.
    _held = b""
    #: Whether something came that is no HTTP.
    _broken = False
    #: Whether a request has begun and not ended; whether its head has ended.
    _begun = False
    _headed = False
    #: Bytes since the last sign that a request gets on.
    _loose = 0
    #: Bytes of a body that the parser leaves to us.
    _left = 0
    #: Whose turn it is, or was last.
    _served: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        """Begin."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)

    def data_received(self, data: bytes) -> None:
        """Parse *data* up to where a request waits for its answer."""
        data, self._held = self._held + data, b""
        for at in range(0, len(data), _PIECE):
            if self._broken:
                return
            if self.engaged:
                self._hold(data[at:])
                return
            self._feed(data[at : at + _PIECE])

    @property
    def engaged(self) -> bool:
        """Whether a request that came whole has no answer yet: the client waits for us, not we for it."""
        last = self.cycle
        return bool(self.pipeline) or (last is not None and not last.more_body and not last.response_complete)

    @property
    def arriving(self) -> bool:
        """Whether a request has begun and is not whole."""
        return self._begun

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile."""
        self._flow.full = False
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._broken and self._served.response_complete:
            super().send_400_response(_INVALID)
        elif self._held:
            self.data_received(b"")

    def send_400_response(self, msg: str) -> None:
        """Refuse what came last. What came whole before it is answered first."""
        self._broken = True
        if self.pipeline and self.pipeline[0][0].more_body:  # it is its body that is wrong
            self.pipeline.popleft()
        served = self._served
        if served is None or served.response_complete or (served.more_body and not served.response_started):
            super().send_400_response(msg)
        elif served.more_body:  # half answered already
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _hold(self, data: bytes) -> None:
        self._held = data
        self._flow.full = len(data) > _MOST_HELD
        self._flow.pause_reading()

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._loose += len(data)
        try:
            while data := self._by_hand(data):
                data = self._by_parser(data)
            if self._loose > MOST:
                raise httptools.HttpParserError  # noqa: TRY301 - what is refused is refused in one place
        except httptools.HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)

    def _by_parser(self, data: bytes) -> bytes:
        """Give *data* to the parser, and return what it leaves: that is of another protocol, it believes."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            return data[stopped.args[0] :]
        return b""

    def _by_hand(self, data: bytes) -> bytes:
        """Take from *data* the body of a request that asked for another protocol, and return the rest."""
        if not (data and self._left):
            return data
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.on_body(body)
        if not self._left:
            self.on_message_complete()
        return rest

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Hear that a request begins."""
        self._begun, self._headed = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind a body is none."""
        if not self._headed:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to serve the request, if its head is as it should be."""
        self._headed, self._loose = True, 0
        require_sound(self.parser.get_http_version(), self.url, self.headers)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self._left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Hear that the request is here, or that the parser believes so."""
        if not self._left:
            self._begun, self._loose = False, 0
            super().on_message_complete()
