"""What is parsed of what arrives, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from fakes_http import GET, Echo, Wire, connect, post, settle

LONG = b"x" * 1_000_000


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


async def answer_to(*pieces: bytes) -> tuple[Wire, Echo]:
    app = Echo()
    protocol, wire = connect(app)
    for piece in pieces:
        if not wire.closed:
            protocol.data_received(piece)
        await settle()
    return wire, app


@pytest.mark.parametrize("size", [1, 7, 1024, 100_000])
def test_it_does_not_matter_how_requests_are_cut(size: int) -> None:
    """Pipelined requests, with bodies of any length, are answered in order in whatever pieces they come."""

    async def scene() -> None:
        stream = GET % b"a" + post(b"b", b"y" * 5000) + GET % b"c" + post(b"d", b"") + GET % b"e"
        app = Echo()
        protocol, wire = connect(app)
        for at in range(0, len(stream), size):
            protocol.data_received(stream[at : at + size])
        await settle()
        assert wire.text.count(b"HTTP/1.1 200 OK") == 5
        assert [scope["path"] for scope in app.scopes] == ["/a", "/b", "/c", "/d", "/e"]
        assert b"[/b " + b"y" * 5000 + b"]" in wire.text

    play(scene())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: m\r\nX: " + LONG,
        b"GET /" + LONG,
        b"GET / HTTP/1.1\r\nHost: m\r\n" + b"X: y\r\n" * 20_000,
        post(b"", b"", b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"") + b"3;" + LONG,
        post(b"", b"", b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        + b"0\r\n"
        + b"a: b\r\n" * 20_000,
    ],
    ids=["a header", "a path", "headers", "a chunk's extension", "trailers"],
)
@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_what_is_no_body_has_a_bound(request_: bytes, size: int) -> None:
    """Endless heads, extensions and trailers are refused, long before their end, at once or bit by bit."""

    async def scene() -> None:
        protocol, wire = connect(Echo())
        at = 0
        while at < len(request_) and not wire.closed:
            protocol.data_received(request_[at : at + size])
            at += size
        assert wire.text.startswith(b"HTTP/1.1 400 ")
        assert wire.late == []
        assert size == 1_000_000 or at <= 40_000

    play(scene())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: m\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: m\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: m\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: m\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: m\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\nHost: m\n\n",
        b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length : 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: m\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(request_: bytes) -> None:
    """Nothing that another parser might take for something else reaches the application."""

    async def scene() -> None:
        wire, app = await answer_to(request_)
        assert wire.text.startswith(b"HTTP/1.1 400 ")
        assert wire.closed
        assert app.scopes == []

    play(scene())


def test_spaces_around_a_value_are_not_of_it_and_trailers_are_nobodys() -> None:
    """A header is what stands between the blanks; what comes behind the body never becomes a header."""

    async def scene() -> None:
        head = b"POST /a HTTP/1.1\r\nHost: m \t\r\nOrigin:\r\nTransfer-Encoding: chunked \r\n\r\n"
        wire, app = await answer_to(head + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n" + GET % b"b")
        assert wire.text.count(b" 200 ") == 2
        assert app.scopes[0]["headers"] == [(b"host", b"m"), (b"origin", b""), (b"transfer-encoding", b"chunked")]

    play(scene())


@pytest.mark.parametrize("size", [1, 1000])
def test_who_asks_for_another_protocol_is_served_in_this_one(size: int) -> None:
    """A request with Upgrade has its body, in whatever pieces, and what is behind it is the next request."""

    async def scene() -> None:
        upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        inner = GET % b"smuggled"
        stream = post(b"a", inner, upgrade) + post(b"b", b"", upgrade) + GET % b"c"
        wire, app = await answer_to(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert [scope["path"] for scope in app.scopes] == ["/a", "/b", "/c"]
        assert b"[/a " + inner + b"]" in wire.text
        assert b" 101 " not in wire.text

    play(scene())


def test_what_came_whole_is_answered_before_the_rest_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Nonsense behind requests takes no answer from them: they are served in order, then it is refused, once."""

    async def scene() -> None:
        app = Echo()
        protocol, wire = connect(app)
        protocol.data_received(GET % b"slow" + GET % b"b" + b"\0nonsense\r\n\r\n" + GET % b"never" * 100)
        protocol.data_received(GET % b"never" * 100)
        await settle()
        assert wire.text == b""
        app.go.set()
        await settle()
        first, second, refused = wire.text.split(b"HTTP/1.1 ")[1:]
        assert (first[:3], second[:3], refused[:3]) == (b"200", b"200", b"400")
        assert wire.closed
        assert [scope["path"] for scope in app.scopes] == ["/slow", "/b"]
        assert caplog.text.count("Invalid HTTP request") == 1

    play(scene())


def test_a_broken_body_behind_others_is_never_served() -> None:
    """The request whose body breaks off into nonsense is refused, after those before it were answered."""

    async def scene() -> None:
        app = Echo()
        protocol, wire = connect(app)
        chunked = b"POST /broken HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
        protocol.data_received(GET % b"slow" + chunked)
        await settle()
        app.go.set()
        await settle()
        assert [part[:3] for part in wire.text.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]
        assert [scope["path"] for scope in app.scopes] == ["/slow"]

    play(scene())


def test_what_waits_behind_a_request_is_bounded() -> None:
    """However much comes while one is served, little of it is parsed and reading stops, whoever wants a body."""

    async def scene() -> None:
        app = Echo()
        protocol, wire = connect(app)
        protocol.data_received(GET % b"slow" + GET % b"x" * 10_000)
        await settle()
        assert len(protocol.pipeline) < 100
        assert wire.paused
        app.go.set()
        while wire.text.count(b"[/") < 10_001:  # noqa: ASYNC110 - the wire is a plain list
            await asyncio.sleep(0)
        assert not wire.paused
        assert len(app.scopes) == 10_001

    play(scene())


def test_what_comes_later_is_bounded_too() -> None:
    """Reading stops as well if the request that is served came alone and the others after it."""

    async def scene() -> None:
        protocol, wire = connect(Echo())
        protocol.data_received(GET % b"slow")
        protocol.data_received(GET % b"x" * 10_000)
        assert len(protocol.pipeline) == 0
        assert wire.paused
        protocol.cycle.flow.resume_reading()
        assert wire.paused

    play(scene())


def test_there_is_one_answer_to_a_request() -> None:
    """Where a body turns into nonsense after its answer has begun, the connection ends and nothing is added to it."""

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()

    async def scene() -> None:
        protocol, wire = connect(hasty)
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n")
        await settle()
        assert wire.text.endswith(b"half\r\n")
        protocol.data_received(b"xyz\r\n")
        assert wire.closed
        assert wire.text.endswith(b"half\r\n")

    play(scene())


def test_who_is_served_may_go_away() -> None:
    """With little behind the request that is served the connection is still listened to: its end is noticed."""

    async def scene() -> None:
        protocol, wire = connect(Echo())
        protocol.data_received(GET % b"slow" + GET % b"x" * 100)
        protocol.cycle.flow.resume_reading()  # as the application does that asks whether anybody is still there
        assert not wire.paused

    play(scene())
