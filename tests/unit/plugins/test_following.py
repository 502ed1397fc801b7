"""Following a request: events on the job's thread, errors to the job."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from fakes_tasks import FakeModel, echo, hold

from jobs.errors import RequestFailed, StaleFence
from plugins.following import follow
from plugins.task import OnEvent

CHAT = {"messages": [{"role": "user", "content": "one two three"}]}


def test_events_come_in_order_on_the_calling_thread() -> None:
    """The reader thread that serves every job of a model is never held up by one of them."""
    seen: list[tuple[str, int, int]] = []
    result = follow(FakeModel(echo), CHAT, lambda kind, data: seen.append((kind, data["n"], threading.get_ident())))
    assert seen == [("token", n, threading.get_ident()) for n in (1, 2, 3)]
    assert result["text"] == "ONE TWO THREE"


def test_an_error_of_the_request_is_raised_after_its_events() -> None:
    """What the model said before it failed is told first."""

    def fail(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        on_event("token", {"n": 1})
        raise RequestFailed("no")

    seen: list[str] = []
    with pytest.raises(RequestFailed, match="no"):
        follow(FakeModel(fail), CHAT, lambda kind, _: seen.append(kind))
    assert seen == ["token"]


def test_what_the_handler_raises_drops_the_request() -> None:
    """A stale fence noticed while telling progress ends this job's request and no other."""
    model = FakeModel(hold)

    def stale(kind: str, data: Mapping[str, Any]) -> None:
        raise StaleFence

    with pytest.raises(StaleFence):
        follow(model, CHAT, stale)
    assert model.calls[0].cancelled.is_set()
