"""Live events as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from daemon.events import STATE, Event, Subscription
from daemon.views import public_job
from jobs.model import TERMINAL, Job

#: Seconds of silence after which a comment shows that the connection lives.
HEARTBEAT_SECONDS: Final = 15.0

_HEARTBEAT: Final = ": still here\n\n"


class EventStream(StreamingResponse):
    """Streams *events*, and lets go of them however the connection ends.

    With *job* (read after *events* were subscribed to, so that nothing falls between) its state comes first and the
    stream ends when it is terminal.
    """

    def __init__(self, events: Subscription, job: Job | None = None, *, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._events = events
        super().__init__(
            _lines(events, job, heartbeat),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until either side ends it."""
        with self._events:
            await super().__call__(scope, receive, send)


async def _lines(events: Subscription, job: Job | None, heartbeat: float) -> AsyncIterator[str]:
    if job is not None:
        yield _encode(Event(job.id, STATE, public_job(job)))
        if job.terminal:
            return
    while True:
        event = await events.aget(heartbeat)
        if event is None and events.closed:
            return
        yield _HEARTBEAT if event is None else _encode(event)
        if event is not None and job is not None and event.kind == STATE and event.data.get("state") in TERMINAL:
            return


def _encode(event: Event) -> str:
    data: dict[str, Any] = dict(event.data)
    if event.kind != STATE:
        data.setdefault("job", event.job_id)
    # JSON escapes line ends, so one data line is enough; `default` because a plugin may emit what JSON cannot say.
    return f"event: {_one_line(event.kind)}\ndata: {json.dumps(data, default=str)}\n\n"


def _one_line(kind: str) -> str:
    return "".join(kind.split()) or "message"
