"""One request under way on a runner, and how errors come back over the wire."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.errors import JobCancelled, MlxdError, RequestFailed
from plugins.task import OnEvent

log = logging.getLogger(__name__)


class EngineCall:
    """A request and, in time, its result. Ends exactly once: with a result, an error, or a cancellation."""

    def __init__(self, call_id: str, *, on_event: OnEvent | None, send_cancel: Callable[[str], None]) -> None:
        self.id = call_id
        self._on_event = on_event
        self._send_cancel = send_cancel
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._result: dict[str, Any] = {}
        self._error: MlxdError | None = None

    @property
    def ended(self) -> bool:
        """Whether there is a result or an error."""
        return self._ended.is_set()

    def result(self) -> dict[str, Any]:
        """Wait for the end and return the runtime's result.

        Raises:
            InvalidRequest: the runtime refused this request; sending it again will not help.
            RequestFailed: the runtime failed this request.
            RunnerDied: the runner process ended.
            JobCancelled: `cancel` was called.
            Interrupted: the engine was stopped.

        """
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Drop the request: `result` raises at once, the runner forgets it at its next step."""
        if self.fail(JobCancelled()):
            self._send_cancel(self.id)

    def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take an event from the reader thread."""
        if kind == "done":
            self._finish(dict(data), None)
        elif kind == "error":
            self.fail(revive(str(data.get("type")), str(data.get("message")), default=RequestFailed))
        elif self._on_event is not None and not self._ended.is_set():
            try:
                self._on_event(kind, data)
            except Exception:  # a task's callback must not end the reader that serves every other request
                log.exception("A task failed to take a %s event", kind, extra={"action": "engine.callback_failed"})

    def fail(self, error: MlxdError) -> bool:
        """End with *error*; False if it had ended before."""
        return self._finish({}, error)

    def _finish(self, result: dict[str, Any], error: MlxdError | None) -> bool:
        with self._lock:
            if self._ended.is_set():
                return False
            self._result, self._error = result, error
            self._ended.set()
            return True


def revive(slug: str, message: str, *, default: type[MlxdError]) -> MlxdError:
    """Return the error of the tree that has *slug*; an unknown one becomes *default*."""
    found = next((kind for kind in _tree(MlxdError) if kind.slug == slug), default)
    return found(message)


def _tree(kind: type[MlxdError]) -> Iterator[type[MlxdError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)
