"""Follows one request: its events are handled on the job's own thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from plugins.task import Call, ModelHandle, OnEvent

#: Event kind, data; None when the request has ended.
_Item = tuple[str, Mapping[str, Any]] | None


def follow(handle: ModelHandle, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Send *request*, call *on_event* for each of its events, in order and on this thread, and return the result.

    The model's reader thread serves every job on that model. What a job does with an event (the ledger's progress row
    waits for the disk, a stale fence raises) must therefore happen here, where it can only hold up or fail this job.

    Raises:
        MlxdError: as `Call.result` does; and whatever *on_event* raises, after the request was dropped.

    """
    events: SimpleQueue[_Item] = SimpleQueue()
    call = handle.submit(request, on_event=lambda kind, data: events.put((kind, data)))
    waiter = _Waiter(call, events)
    waiter.start()
    try:
        while (event := events.get()) is not None:
            on_event(*event)
    except BaseException:
        call.cancel()
        raise
    finally:
        waiter.join()
    return waiter.outcome()


class _Waiter(threading.Thread):
    """Waits for the end of a call and puts None behind its last event."""

    def __init__(self, call: Call, events: SimpleQueue[_Item]) -> None:
        super().__init__(name="mlxd-follow", daemon=True)
        self._call = call
        self._events = events
        self._result: dict[str, Any] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._call.result()
        except BaseException as error:  # noqa: BLE001 - raised again by `outcome`, on the job's thread
            self._error = error
        finally:
            self._events.put(None)

    def outcome(self) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        return self._result
