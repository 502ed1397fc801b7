"""One connection to the HTTP protocol without a socket: bytes go in, and what is written comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from daemon.api.protocol import GuardedProtocol, guarded

#: A request that is answered by `Echo`.
GET = b"GET /%s HTTP/1.1\r\nHost: m\r\n\r\n"


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    """Return a request with a body; *more* are further headers, each with its line's end."""
    return b"POST /%s HTTP/1.1\r\nHost: m\r\n%sContent-Length: %d\r\n\r\n%s" % (path, more, len(body), body)


class _Socket:
    """Has no name at either end, as a client's Unix socket."""

    def getpeername(self) -> str:
        return ""

    getsockname = getpeername


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.aborted = self.paused = False
        #: What was written after the end.
        self.late: list[bytes] = []
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Socket() if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        (self.late if self.closed else self.written).append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    @property
    def text(self) -> bytes:
        """All that was written."""
        return b"".join(self.written)


class Echo:
    """An application that says what it was asked; requests whose path ends in ``slow`` wait for `go`."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"].endswith("slow"):
            await self.go.wait()
        said = b"[%s %s]" % (scope["path"].encode(), body)
        length = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": said})


def connect(app: Any, *, seconds: float = 60.0, short: Any = None) -> tuple[GuardedProtocol, Wire]:
    """Return a connection to *app* and its other end."""
    made: Callable[..., GuardedProtocol] = guarded(allow=lambda _: True, receive_seconds=seconds, short=short)
    config = Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    protocol = made(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
    wire = Wire(protocol)
    protocol.connection_made(wire)
    return protocol, wire


async def settle() -> None:
    """Let everything happen that is ready to."""
    for _ in range(20):
        await asyncio.sleep(0)
