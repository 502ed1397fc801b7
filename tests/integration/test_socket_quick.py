"""The short ways answer what the long one would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes_socket import FakeService, serving

from jobs.errors import LedgerUnavailable, QueueFull

QUICK = {"content-type": "application/json"}
#: The same type, said in a way that takes the long way.
LONG = {"content-type": "application/json; charset=utf-8"}


@pytest.fixture
def service() -> FakeService:
    """What is asked."""
    return FakeService()


@pytest.fixture
def http(service: FakeService) -> Iterator[httpx.Client]:
    """A client."""
    with serving(service) as path, httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://m") as c:
        yield c


def _said(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, answer.content, dict(answer.headers)


@pytest.mark.parametrize(
    "body",
    [
        b'{"task": "t", "idempotency_key": "k", "params": {"a": [1, 2.5, null, "\xc3\xa4"]}}',
        b'{"task": "t", "idempotency_key": "k", "not_before": "2030-01-01T00:00:00+02:00"}',
        b'{"task": "t", "idempotency_key": "k", "placement": {"directory": "/out", "stem": "x"}}',
        b'{"task": "t", "idempotency_key": "k", "placement": {"directory": "out"}}',
        b'{"task": "t", "params": {"a": NaN}}',
        b'{"task": "t", "parms": {}}',
        b'{"task": ',
        b"[]",
        b"",
        b'{"task": "t", "params": {"a": "\\ud800"}}',
        b'{"params":' + b"[" * 3000 + b"]" * 3000 + b"}",
    ],
    ids=["params", "time", "placement", "relative", "nan", "unknown", "cut", "list", "empty", "surrogate", "deep"],
)
def test_both_ways_answer_alike(http: httpx.Client, service: FakeService, body: bytes) -> None:
    """Status, headers and body are the same, byte for byte, for what is accepted and for what is refused."""
    first = http.post("/v1/jobs", content=body, headers=QUICK)
    quick, long = (http.post("/v1/jobs", content=body, headers=headers) for headers in (QUICK, LONG))

    assert _said(quick) == _said(long)
    assert first.status_code == (201 if quick.status_code == 200 else quick.status_code)
    assert first.content == quick.content


@pytest.mark.parametrize("error", [QueueFull("Full.", retry_after_s=7), LedgerUnavailable("No disk.", path="/x")])
def test_refusals_are_alike(http: httpx.Client, service: FakeService, error: Any) -> None:
    """An error of the service has the same status, hint to come back and problem document on both ways."""
    service.refuse = error
    body = json.dumps({"task": "t"}).encode()

    quick, long = (http.post("/v1/jobs", content=body, headers=headers) for headers in (QUICK, LONG))

    assert quick.status_code in {429, 503}
    assert _said(quick) == _said(long)


@pytest.mark.parametrize("error", [None, LedgerUnavailable("No disk.", path="/x"), ZeroDivisionError()])
def test_health_is_the_same_on_both_ways(http: httpx.Client, service: FakeService, error: Any) -> None:
    """A query that means nothing changes nothing but the way; a fault that nobody foresaw says nothing of itself."""
    service.refuse = error

    quick, long = http.get("/v1/health"), http.get("/v1/health?long")

    assert quick.status_code == (503 if isinstance(error, LedgerUnavailable) else 500 if error else 200)
    assert _said(quick) == _said(long)


def test_only_what_asks_for_health_hears_of_it(http: httpx.Client) -> None:
    """Another method is told which there is."""
    refused = http.post("/v1/health")

    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


def test_what_has_more_to_it_takes_the_long_way(http: httpx.Client) -> None:
    """A query, a key in a header, a large body and one in pieces are understood as ever."""
    keyed = {**QUICK, "idempotency-key": "k"}
    one = http.post("/v1/jobs", content=b'{"task": "t"}', headers=keyed)
    same = http.post("/v1/jobs", content=b'{"task": "t"}', headers=keyed)
    large = http.post("/v1/jobs", json={"task": "t", "params": {"text": "x" * 200_000}})
    pieces = http.post("/v1/jobs", content=iter([b'{"task"', b': "t"}']), headers=QUICK)
    wrong = http.post("/v1/jobs?wait=never", content=b'{"task": "t"}', headers=QUICK)

    assert (one.status_code, same.status_code) == (201, 200)
    assert one.json()["id"] == same.json()["id"]
    assert len(large.json()["params"]["text"]) == 200_000
    assert (pieces.status_code, wrong.status_code) == (201, 422)
