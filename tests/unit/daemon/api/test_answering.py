"""The short way past the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fakes_http import GET, Echo, connect, post, settle

from daemon.api.answering import Answer, Take


class Short:
    """Takes what is sent to ``/short``; answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Callable[[Answer], None]]] = []

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        return self.take if scope["path"] == "/short" else None

    def take(self, body: bytes, told: Callable[[Answer], None]) -> bool:
        if body == b"odd":
            return False
        self.taken.append((body, told))
        return True

    def answer(self, number: int) -> None:
        body, told = self.taken[number]
        told(Answer(201, [(b"content-length", b"%d" % (len(body) + 2))], b"<%s>" % body))


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


def test_what_fits_is_answered_without_the_application() -> None:
    """It is taken when its body is whole and answered by one write; then others take the long way."""

    async def scene() -> None:
        app, short = Echo(), Short()
        protocol, wire = connect(app, short=short)
        request = post(b"short", b"body")
        protocol.data_received(request[:-1])
        assert short.taken == []
        protocol.data_received(request[-1:])
        short.answer(0)
        assert wire.written == [b"HTTP/1.1 201 Created\r\ncontent-length: 6\r\n\r\n<body>"]
        assert app.scopes == []
        protocol.data_received(GET % b"long")
        await settle()
        assert wire.text.endswith(b"[/long ]")
        assert protocol.server_state.total_requests == 2

    play(scene())


def test_what_it_does_not_take_reaches_the_application_whole() -> None:
    """The application is asked with everything that was read, as if there were no short way."""

    async def scene() -> None:
        protocol, wire = connect(Echo(), short=Short())
        protocol.data_received(post(b"short", b"odd"))
        await settle()
        assert wire.text.endswith(b"[/short odd]")

    play(scene())


def test_answers_keep_the_order_of_the_requests() -> None:
    """Short and long ones behind each other on one connection are answered in the order in which they came."""

    async def scene() -> None:
        app, short = Echo(), Short()
        protocol, wire = connect(app, short=short)
        protocol.data_received(GET % b"slow" + post(b"short", b"a") + GET % b"b" + post(b"short", b"c"))
        await settle()
        assert short.taken == []
        app.go.set()
        await settle()
        assert [body for body, _ in short.taken] == [b"a"]
        short.answer(0)
        await settle()
        short.answer(1)
        assert [wire.text.index(part) for part in (b"[/slow", b"<a>", b"[/b", b"<c>")] == sorted(
            wire.text.index(part) for part in (b"[/slow", b"<a>", b"[/b", b"<c>")
        )

    play(scene())


def test_nonsense_behind_it_does_not_take_its_answer() -> None:
    """The answer comes first, and then the refusal."""

    async def scene() -> None:
        short = Short()
        protocol, wire = connect(Echo(), short=short)
        protocol.data_received(post(b"short", b"a") + b"\0nonsense\r\n\r\n")
        assert wire.text == b""
        short.answer(0)
        assert [part[:3] for part in wire.text.split(b"HTTP/1.1 ")[1:]] == [b"201", b"400"]
        assert wire.closed

    play(scene())


def test_a_full_house_is_full_on_this_way_too() -> None:
    """Beyond the number of connections that are served a newcomer hears 503, whatever it asks for."""

    async def scene() -> None:
        short = Short()
        protocol, wire = connect(Echo(), short=short)
        protocol.limit_concurrency = 1
        protocol.data_received(post(b"short", b"a"))
        await settle()
        assert wire.text.startswith(b"HTTP/1.1 503 ")
        assert short.taken == []

    play(scene())


def test_a_connection_that_shall_end_does() -> None:
    """Who asks for the end, or meets a server that stops, is told with the answer that it is the last."""

    async def scene() -> None:
        for more, stops in ((b"Connection: close\r\n", False), (b"", True)):
            short = Short()
            protocol, wire = connect(Echo(), short=short)
            protocol.data_received(post(b"short", b"a", more))
            if stops:
                protocol.shutdown()
                assert not wire.closed
            short.answer(0)
            assert b"connection: close\r\n" in wire.text
            assert wire.closed
            await settle()

    play(scene())


def test_who_has_gone_costs_nothing() -> None:
    """An answer for a client that hung up meanwhile is dropped."""

    async def scene() -> None:
        short = Short()
        protocol, wire = connect(Echo(), short=short)
        protocol.data_received(post(b"short", b"a"))
        wire.abort()
        await settle()
        short.answer(0)
        assert wire.written == wire.late == []

    play(scene())


def test_who_does_not_read_is_not_answered_faster() -> None:
    """With answers unread, and where a 100 is waited for, the application's tasks wait; nothing piles up."""

    async def scene() -> None:
        short = Short()
        protocol, wire = connect(Echo(), short=short)
        protocol.pause_writing()
        protocol.data_received(post(b"short", b"a"))
        await settle()
        assert short.taken == []
        assert wire.text == b""
        protocol.resume_writing()
        await settle()
        assert wire.text.endswith(b"[/short a]")
        protocol.data_received(post(b"short", b"b", b"Expect: 100-continue\r\n")[:-1])
        await settle()
        assert wire.text.endswith(b"100 Continue\r\n\r\n")
        assert short.taken == []

    play(scene())
