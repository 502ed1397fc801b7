"""What goes the short ways, and what is said there. Against the long way: test_socket_quick.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from daemon.api.answering import Answer
from daemon.api.gathering import Gathering, Outcome
from daemon.api.quick import QuickHealth, QuickSubmit, ShortWays
from daemon.views import Health
from jobs.ledger import utcnow
from jobs.model import Job, NewJob

PLAIN = {b"content-type": b"application/json", b"content-length": b"10"}


def _quick(submit_all: Any = None) -> QuickSubmit:
    return QuickSubmit(Gathering(submit_all), most=100)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"method": "PUT"}, False),
        ({"path": "/v1/jobs/"}, False),
        ({"query_string": b"wait=1"}, False),
        ({b"content-length": b"101"}, False),
        ({b"content-length": b"-1"}, False),
        ({b"content-length": None}, False),
        ({b"content-type": b"application/json; charset=utf-8"}, False),
        ({b"idempotency-key": b"k"}, False),
    ],
)
def test_only_what_is_plain_fits(change: dict[Any, Any], fits: bool) -> None:
    """A small body in JSON, of a known length, with nothing said beside it."""
    headers = {**PLAIN, **{name: value for name, value in change.items() if isinstance(name, bytes)}}
    scope = {
        "method": "POST",
        "path": "/v1/jobs",
        "query_string": b"",
        "headers": [(name, value) for name, value in headers.items() if value is not None],
        **{name: value for name, value in change.items() if isinstance(name, str)},
    }

    assert (_quick().way(scope) is not None) is fits


@pytest.mark.parametrize("fault", [ZeroDivisionError, SystemExit])
def test_a_fault_that_nobody_foresaw_is_answered(fault: type[BaseException]) -> None:
    """What goes wrong while a batch is written down, in a plugin too, is refused as an error is; the next is served."""
    broken = True

    def submit_all(news: Sequence[NewJob]) -> list[Outcome]:
        if broken:
            raise fault
        return [(Job(task=new.task, id="id", seq=1, created_at=utcnow()), True) for new in news]

    async def ask(quick: QuickSubmit) -> Answer:
        heard: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        assert quick.take(b'{"task": "t"}', heard.set_result)
        return await asyncio.wait_for(heard, 20)

    async def play() -> tuple[Answer, Answer]:
        nonlocal broken
        quick = _quick(submit_all)
        refused = await ask(quick)
        broken = False
        return refused, await ask(quick)

    refused, served = asyncio.run(play())

    assert refused.status == 500
    assert fault.__name__.encode() not in refused.body
    assert served.status == 201
    assert dict(served.headers)[b"location"] == b"/v1/jobs/id"


def test_a_daemon_that_stops_takes_nothing_on_this_way() -> None:
    """Once the threads have ended that write down, the application is asked, which says that mlxd stops."""

    async def play() -> bool:
        gathering = Gathering(lambda _: [])
        gathering.close()
        return QuickSubmit(gathering).take(b'{"task": "t"}', lambda _: None)

    assert asyncio.run(play()) is False


@pytest.mark.parametrize(
    ("change", "fits"),
    [({}, True), ({"method": "HEAD"}, False), ({"path": "/v1/health/"}, False), ({"query_string": b"a"}, False)],
)
def test_only_plain_questions_for_health_fit(change: dict[str, Any], fits: bool) -> None:
    """A GET of the path, with nothing said beside it."""
    scope = {"method": "GET", "path": "/v1/health", "query_string": b"", **change}

    assert (QuickHealth(_health).way(scope) is not None) is fits


def test_health_is_looked_up_beside_the_loop() -> None:
    """A look that waits for the ledger holds up nobody else."""
    looking, go = threading.Event(), threading.Event()

    def health() -> Health:
        looking.set()
        assert go.wait(20)
        return _health()

    async def play() -> Answer:
        heard: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        assert QuickHealth(health).take(b"", heard.set_result)
        assert await asyncio.to_thread(looking.wait, 20)
        go.set()
        return await asyncio.wait_for(heard, 20)

    answer = asyncio.run(play())

    assert answer.status == 200
    assert Health.model_validate_json(answer.body) == _health()


def test_the_first_way_that_takes_a_request_has_it() -> None:
    """What none of them takes is nobody's."""
    submit, health = _quick(), QuickHealth(_health)
    ways = ShortWays(submit, health)
    head = {"query_string": b"", "headers": list(PLAIN.items())}

    assert ways.way({"method": "POST", "path": "/v1/jobs", **head}) == submit.take
    assert ways.way({"method": "GET", "path": "/v1/health", **head}) == health.take
    assert ways.way({"method": "GET", "path": "/v1/jobs", **head}) is None


def _health() -> Health:
    return Health(version="1", pid=1, uptime_s=2.0, home="/h", counts={})
