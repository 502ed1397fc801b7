"""Who uses a resident model, and who waits for one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from daemon.models.references import ResolvedModel
from jobs.errors import MlxdError
from jobs.model import Lane
from plugins.task import Call, OnEvent


class EngineLike(Protocol):
    """What the scheduler needs of `daemon.models.engine.Engine`."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What the runtime said when it had loaded."""

    @property
    def pid(self) -> int | None:
        """The runner's process id."""

    def start(self) -> None:
        """Load; blocks, raises an `MlxdError`."""

    def submit(
        self,
        request: Mapping[str, Any],
        *,
        on_event: OnEvent | None = None,
        lane: Lane = Lane.NORMAL,
        alone: bool = False,
        holder: object = None,
    ) -> Call:
        """Start a request."""

    def stop(self, timeout: float) -> None:
        """End the runner; blocks."""

    def kill(self) -> None:
        """End the runner at once."""

    #: Called, on any thread, with what the session wants and has learned of memory.
    on_wishes: Callable[[Mapping[str, Any]], None] | None
    #: Whether the runner ended for lack of memory.
    ran_out: bool

    def order(self, op: str, **what: Any) -> None:
        """Tell the runner something about memory; never blocks."""


class EngineFactory(Protocol):
    """Makes an engine that has not been started."""

    def __call__(
        self, model: ResolvedModel, *, on_exit: Callable[[], None], on_memory: Callable[[int], None]
    ) -> EngineLike:
        """Return the engine; *on_exit* and *on_memory* may be called from any thread."""


class LaneEngine:
    """An engine as one lease sees it: its requests go into the lease's lane and under its name."""

    def __init__(self, engine: EngineLike, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane

    def submit(self, request: Mapping[str, Any], *, on_event: OnEvent | None = None, alone: bool = False) -> Call:
        """Start *request* (JSON); see `daemon.models.engine.Engine.submit`."""
        return self._engine.submit(request, on_event=on_event, lane=self._lane, alone=alone, holder=self)


class Lease:
    """A model that stays resident until `release`; a context manager."""

    def __init__(
        self,
        engine: EngineLike,
        *,
        ref: str,
        lane: Lane,
        give_back: Callable[[], None],
        recall: Callable[[], None] | None = None,
    ) -> None:
        #: The reference the model was resolved from.
        self.ref = ref
        self.lane = lane
        #: Asks whoever holds it to give it back soon, at no cost; None: he cannot be asked. Called at most once.
        self.recall = recall
        self.engine = LaneEngine(engine, lane)
        #: What the runtime said when it had loaded the model.
        self.info: Mapping[str, Any] = engine.info
        self.submit = self.engine.submit
        self._give_back = give_back
        self._lock = threading.Lock()
        self._held = True

    def release(self) -> None:
        """Give the model back; doing so twice is one."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Waiter:
    """One `acquire` under way; ends once, with a lease or an error."""

    def __init__(
        self,
        model: ResolvedModel,
        *,
        lane: Lane,
        estimate: int,
        say: Callable[[str], None] | None,
        recall: Callable[[], None] | None = None,
    ) -> None:
        self.model = model
        self.recall = recall
        self.lane = lane
        self.estimate = estimate
        #: Order of arrival and time of it, set by the scheduler.
        self.seq = 0
        self.since = 0.0
        self.ended = threading.Event()
        self.lease: Lease | None = None
        self._error: MlxdError | None = None
        self._say = say
        self._said = ""

    def say(self, message: str) -> None:
        """Tell the person what is being waited for, once."""
        if self._say is not None and message != self._said:
            self._said = message
            self._say(message)

    def grant(self, lease: Lease) -> None:
        """End with *lease*."""
        self.lease = lease
        self.ended.set()

    def fail(self, error: MlxdError) -> None:
        """End with *error*."""
        self._error = error
        self.ended.set()

    def result(self) -> Lease:
        """Return the lease of a waiter that has ended, or raise its error."""
        if self.lease is None:
            raise self._error or MlxdError()
        return self.lease
