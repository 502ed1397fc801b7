"""A model as tasks have it: leased, its calls ended by the job's stop signal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from daemon.stopping import Stop
from jobs.errors import JobCancelled
from jobs.model import Lane
from plugins.task import Call, OnEvent


class Engine(Protocol):
    """What a lease gives access to."""

    def submit(self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool = False) -> Call:
        """Start a request on the runner; with *alone* nothing else runs there meanwhile."""


class Lease(Protocol):
    """A model that will not be unloaded until `release`."""

    @property
    def engine(self) -> Engine:
        """The parent's handle on the runner."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What the runtime said when it had loaded."""

    @property
    def ref(self) -> str:
        """The reference it was resolved from: the job's, or the configured default."""

    def release(self) -> None:
        """Give the model back."""


class Models(Protocol):
    """Where leases come from: the model scheduler."""

    def acquire(
        self,
        ref: str | None,
        runtime: str,
        *,
        lane: Lane,
        cancelled: threading.Event | None = None,
        on_progress: Callable[[str], None] | None = None,
        recall: Callable[[], None] | None = None,
        draft_model: str | None = None,
    ) -> Lease:
        """Wait until the model is resident, *draft_model* beside it, and lease it; *recall* asks for it back."""


class _Call:
    """A runner's call that also hears of the job's end."""

    def __init__(self, call: Call, stop: Stop) -> None:
        self._call = call
        self._stop = stop
        # Entered at once, not in `result`: a batch submits many calls and waits for them one by one.
        self._watch: AbstractContextManager[None] = stop.watching(call)
        self._watch.__enter__()

    def result(self) -> dict[str, Any]:
        try:
            return self._call.result()
        except JobCancelled as error:
            # The task itself may have cancelled one call of many; only the job's own signal ends the job.
            if self._stop.event.is_set():
                raise self._stop.error() from error
            raise
        finally:
            self._watch.__exit__(None, None, None)

    def cancel(self) -> None:
        self._call.cancel()


class Handle:
    """A leased model as tasks see it."""

    def __init__(self, lease: Lease, stop: Stop, *, crashes: int, asked: Callable[[Mapping[str, Any]], None]) -> None:
        # What people call the model, whichever way it was asked for.
        self.info: Mapping[str, Any] = {**lease.info, "ref": lease.ref}
        self._engine = lease.engine
        self._stop = stop
        self._crashes = crashes
        self._asked = asked

    def submit(self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool | None = None) -> Call:
        """Start *request*; see `plugins.task.ModelHandle`."""
        self._stop.check()
        self._asked(request)
        return _Call(self._engine.submit(request, on_event=on_event, alone=self._alone(alone)), self._stop)

    def _alone(self, wish: bool | None) -> bool:
        """A job that was there when runners died is suspected; a task may say which of its requests is not, once."""
        suspected = self._crashes > 0
        return suspected if wish is None or self._crashes > 1 else wish
