"""An application that is made while the server serves already."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any, Self

import pytest

from daemon.api.late import LateApp


class Inner:
    """An application that notes what happens to it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.router = SimpleNamespace(lifespan_context=self._life)

    @contextlib.asynccontextmanager
    async def _life(self, _app: Any) -> AsyncIterator[None]:
        self.notes.append("opened")
        yield
        self.notes.append("closed")

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.notes.append(scope["path"])


class Server:
    """Leads the life of an application, as uvicorn does."""

    def __init__(self, app: LateApp) -> None:
        self.app = app
        self.said: list[dict[str, Any]] = []
        self._started = asyncio.Event()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._said.put_nowait({"type": "lifespan.startup"})
        self._life = asyncio.ensure_future(self.app({"type": "lifespan"}, self._said.get, self._hear))
        await self._started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._said.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(self._life, 20)

    async def _hear(self, message: Any) -> None:
        self.said.append(message)
        self._started.set()

    async def ask(self, path: str) -> None:
        await self.app({"type": "http", "path": path}, self._said.get, self._hear)


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


def test_the_server_starts_before_it_is_made() -> None:
    """Requests wait until it is there, have its own life around them, and it is made once."""
    go, made, inner = threading.Event(), [], Inner()

    def make() -> Inner:
        assert go.wait(20)
        made.append(1)
        return inner

    async def scene() -> None:
        async with Server(LateApp(make)) as server:
            assert [one["type"] for one in server.said] == ["lifespan.startup.complete"]
            server.app.begin()
            asked = [asyncio.ensure_future(server.ask(path)) for path in ("/a", "/b")]
            await asyncio.sleep(0.01)
            assert inner.notes == []
            go.set()
            await asyncio.gather(*asked)
        assert server.said[-1]["type"] == "lifespan.shutdown.complete"

    play(scene())

    assert (inner.notes, made) == (["opened", "/a", "/b", "closed"], [1])


def test_who_asks_first_has_it_made() -> None:
    """Nobody need say that it shall begin."""
    inner = Inner()

    async def scene() -> None:
        async with Server(LateApp(lambda: inner)) as server:
            await server.ask("/a")

    play(scene())

    assert inner.notes == ["opened", "/a", "closed"]


def test_a_server_that_stops_does_not_wait_for_it() -> None:
    """What was never asked for is never made, and what belongs to the server is closed all the same."""
    made, closed = [], []

    async def scene() -> None:
        async with Server(LateApp(lambda: made.append(1), closed=lambda: closed.append(1))):
            pass

    play(scene())

    assert (made, closed) == ([], [1])


def test_a_server_may_stop_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for what nobody needs any more, and whoever makes that ends without a word."""
    go, faults = threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", faults.append)

    async def scene() -> None:
        async with Server(LateApp(lambda: go.wait(20))) as server:
            server.app.begin()

    before = set(threading.enumerate())
    play(scene())
    left = set(threading.enumerate()) - before
    go.set()
    for thread in left:
        thread.join(20)

    assert ([thread.name for thread in left], faults) == (["mlxd-app"], [])


def test_who_goes_away_takes_it_from_nobody() -> None:
    """A request that is given up while it waits does not end the waiting of the others."""
    go, inner = threading.Event(), Inner()

    def make() -> Inner:
        assert go.wait(20)
        return inner

    async def scene() -> None:
        async with Server(LateApp(make)) as server:
            first, second = (asyncio.ensure_future(server.ask(path)) for path in ("/a", "/b"))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.sleep(0)
            go.set()
            await second

    play(scene())

    assert inner.notes == ["opened", "/b", "closed"]


@pytest.mark.parametrize("fault", [None, ImportError()])
def test_threads_take_short_turns_only_meanwhile(fault: Exception | None) -> None:
    """Who is served while it is made waits less for the interpreter; afterwards turns are as they were."""
    turns = []

    def make() -> Inner:
        turns.append(sys.getswitchinterval())
        if fault is not None:
            raise fault
        return Inner()

    async def scene() -> None:
        async with Server(LateApp(make)) as server:
            await server.ask("/a")

    before = sys.getswitchinterval()
    play(scene())

    assert turns[0] < before / 5
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("fault", [ImportError("no fastapi"), SystemExit(3)])
def test_one_that_cannot_be_made_fails_each_request(fault: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered with a problem, the log says why, who has to tell is told, and the server stops as ever."""
    told: list[BaseException] = []
    said: list[dict[str, Any]] = []

    def make() -> Any:
        raise fault

    async def scene() -> None:
        async with Server(LateApp(make, failed=told.append)) as server:
            for _ in range(2):
                await server.ask("/a")
            said.extend(server.said)

    play(scene())

    assert [record.message for record in caplog.records] == ["The application could not be made."]
    assert told == [fault]
    assert [one["status"] for one in said if one["type"] == "http.response.start"] == [500, 500]
    assert "its log says why" in json.loads(said[-1]["body"])["detail"]
