"""Strangers and slow senders."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from fakes_http import GET, Echo, connect, post, settle

SOON = 0.05


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


async def until_cut_off(wire: Any) -> None:
    while not wire.aborted:  # noqa: ASYNC110 - the wire is a plain list
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "beginning",
    [
        b"\r\n",
        b"GET / HT",
        post(b"", b"body")[:-1],
        b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: ",
        post(b"", b"body", b"Connection: upgrade\r\nUpgrade: h2c\r\n")[:-1],
    ],
    ids=["an empty line", "half a head", "half a body", "half a trailer", "half a body by hand"],
)
@pytest.mark.parametrize("before", [b"", GET % b"a"], ids=["first", "later"])
def test_half_a_request_is_not_waited_for(before: bytes, beginning: bytes) -> None:
    """Whatever is missing, of the first request or of one after an answered one, the connection ends in time."""

    async def scene() -> None:
        protocol, wire = connect(Echo(), seconds=SOON)
        if before:
            protocol.data_received(before)
            await settle()
            assert b" 200 " in wire.text
        protocol.data_received(beginning)
        await until_cut_off(wire)

    play(scene())


def test_who_says_nothing_at_all_is_cut_off() -> None:
    """The first request's time begins with the connection."""

    async def scene() -> None:
        _, wire = connect(Echo(), seconds=SOON)
        await until_cut_off(wire)

    play(scene())


def test_bytes_now_and_then_do_not_move_the_deadline() -> None:
    """There is one deadline, whatever comes before it is over: parts of a head, or lines without end before it."""

    async def scene() -> None:
        for head, drop in ((b"GET / HTTP/1.1\r\nX: ", b"x"), (b"\r\n", b"\r\n")):
            protocol, wire = connect(Echo(), seconds=SOON)
            protocol.data_received(head)
            deadline = protocol._deadline
            for _ in range(5):
                protocol.data_received(drop)
                assert protocol._deadline is deadline
            await until_cut_off(wire)

    play(scene())


def test_the_daemons_own_time_is_not_the_senders() -> None:
    """While a whole request has no answer there is no deadline, though half of another is there; then there is."""

    async def scene() -> None:
        app = Echo()
        protocol, wire = connect(app, seconds=SOON)
        protocol.data_received(GET % b"slow" + GET[:20])
        await asyncio.sleep(2 * SOON)  # what must not happen has its time
        assert not wire.aborted
        app.go.set()
        await settle()
        assert b" 200 " in wire.text
        await until_cut_off(wire)

    play(scene())


def test_a_kept_connection_has_no_deadline() -> None:
    """Between two requests nothing is awaited: that connection ends by the time that it may be kept."""

    async def scene() -> None:
        protocol, wire = connect(Echo(), seconds=SOON)
        protocol.data_received(GET % b"a")
        await settle()
        assert protocol._deadline is None
        assert protocol.timeout_keep_alive_task is not None
        protocol.data_received(GET % b"b")
        await settle()
        assert wire.text.count(b" 200 ") == 2
        assert protocol._deadline is None

    play(scene())


def test_a_strangers_bytes_are_not_parsed() -> None:
    """A connection that is not allowed is aborted, and what it sends meanwhile reaches no parser."""

    async def scene() -> None:
        app = Echo()
        protocol, wire = connect(app)
        refused = type(protocol)(config=protocol.config, server_state=protocol.server_state, app_state={})
        type(refused).allow = staticmethod(lambda _: False)
        refused.connection_made(wire)
        assert wire.aborted
        refused.data_received(GET % b"a")
        await settle()
        assert app.scopes == []
        assert wire.text == b""

    play(scene())
