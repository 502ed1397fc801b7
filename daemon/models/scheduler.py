"""Keeps models resident. One thread owns all of its state and sleeps until something happens or a keep-alive ends.

Everybody else posts a small function into the inbox, which that thread runs; after each it looks at the whole line of
waiting requests and does what `daemon.models.residency` decides. Loading and unloading take seconds and happen on
threads of their own, which post when they are done.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Final, TypeVar

from daemon.models import status as model_status
from daemon.models.footprint import tree_footprint
from daemon.models.learned import Learned
from daemon.models.leases import EngineFactory, Lease, Waiter
from daemon.models.load_deaths import DeathPolicy
from daemon.models.pressure import kernel_level
from daemon.models.references import ResolvedModel
from daemon.models.relief import LoadedModels, Relief, unlimited
from daemon.models.residents import UNLOAD_S, Residents
from daemon.models.sizes import Sizes
from daemon.models.sparing import Keeper, Nobody, Sparing
from daemon.models.watermarks import Level, Marks, Strain
from daemon.models.wishes import Line, Outlook
from daemon.views import ModelStatus, Residency
from jobs.errors import JobCancelled, MlxdError, RunnerDied
from jobs.model import Lane
from plugins.runtime import Runtime

log = logging.getLogger(__name__)

Resolve = Callable[[str | None, str], ResolvedModel]
T = TypeVar("T")

#: Seconds between two looks at a waiting request's cancellation.
_CANCEL_EVERY_S: Final = 0.1


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="model-work", daemon=True).start()


def _utcnow() -> datetime:
    return datetime.now(UTC)


class ModelScheduler:
    """Leases resident models.

    *resolve* turns a reference into a model, *runtimes* are asked for estimates, *spawn* makes engines, *budget* is in
    bytes. *configured* names the models that are listed even when absent; those with a pin are loaded at `start`.
    *background* runs what takes long. *on_change* is called on the scheduler's thread when a model came or went.
    *learned* remembers what models took. *marks* are the watermarks of memory, None looks after nothing; *footprint*
    and *kernel* read it. *spare* keeps a runner without a model ready.
    """

    def __init__(
        self,
        *,
        resolve: Resolve,
        runtimes: Mapping[str, Runtime] | Callable[[], Mapping[str, Runtime]],
        spawn: EngineFactory,
        budget: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utcnow,
        on_change: Callable[[], None] | None = None,
        configured: Callable[[], Iterable[ResolvedModel]] = tuple,
        sizes: Callable[[ResolvedModel], int] | None = None,
        background: Callable[[Callable[[], None]], None] = _on_a_thread,
        deaths: Callable[[], DeathPolicy] = DeathPolicy,
        learned: Learned | None = None,
        marks: Callable[[], Marks] | None = None,
        footprint: Callable[..., int] = tree_footprint,
        kernel: Callable[[], Level] = kernel_level,
        spare: Keeper | None = None,
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._on_change = on_change
        self._configured = configured
        self._sizes = sizes or Sizes(runtimes if callable(runtimes) else lambda: runtimes)
        self._background = background
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: Touched by the thread alone.
        self._residents = Residents(
            spawn=spawn,
            budget=budget,
            clock=clock,
            now=now,
            post=self._post,
            background=background,
            policy=deaths,
            learned=learned,
        )
        #: Called on the scheduler's thread when memory gets short, or less short.
        self.on_strain: Callable[[Strain], None] = lambda _strain: None
        self._sparing = Sparing(
            spare or Nobody(), models=self._residents.models.values, clock=clock, background=background
        )
        self._relief = Relief(
            LoadedModels(self._residents, spare=self._sparing.keeper),
            marks=marks or unlimited,
            clock=clock,
            on_change=self._strained,
            footprint=footprint,
            kernel=kernel,
        )
        self._looks = marks is not None
        self._outlook = Outlook()
        self._on_outlook: Callable[[], None] = lambda: None

    def follow(self, queued: Line, on_outlook: Callable[[], None]) -> None:
        """Reckon with the jobs that wait; *on_outlook* is called on the thread when `outlook` has changed."""
        self._residents.queued = queued
        self._on_outlook = on_outlook

    # -- life, in order ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and load the pinned models; does not wait for them."""
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()
        self._preload()

    def stop(self, timeout: float) -> None:
        """End every runner; whoever still waits or uses one gets `Interrupted`. Kills what lasts longer."""
        self._post(lambda: self._residents.close(timeout / 2))
        self._sparing.keeper.close()
        if self._thread is None:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._post(self._residents.kill_all)
            self._thread.join(UNLOAD_S)

    # -- for everybody ----------------------------------------------------------------------------------------------

    def acquire(
        self,
        ref: str | None,
        runtime: str,
        *,
        lane: Lane = Lane.NORMAL,
        cancelled: threading.Event | None = None,
        on_progress: Callable[[str], None] | None = None,
        recall: Callable[[], None] | None = None,
        draft_model: str | None = None,
    ) -> Lease:
        """Wait until the model is resident and lease it. Do not hold one lease while waiting for another.

        With *draft_model* that model is loaded beside it, in the same runner.
        *recall* is called at most once, on some thread, when a more urgent job needs the model's place: the lease had
        better be given back soon.

        Raises:
            ModelMissing, ModelBroken, UnknownRuntime: it cannot be loaded.
            ModelUnloadable: its runner died in each of its last loads; it is set aside for a while.
            ModelTooLarge: it does not fit even alone; ``facts`` has the numbers.
            RunnerDied: the runner ended while it was loading.
            JobCancelled: *cancelled* was set.
            Interrupted: the scheduler is stopping.

        """
        model = self._resolve(ref, runtime)
        if draft_model is not None:
            model = model.drafted_by(self._resolve(draft_model, runtime))
        waiter = Waiter(model, lane=lane, estimate=self._sizes(model), say=on_progress, recall=recall)
        self._post(lambda: self._residents.arrive(waiter))
        self._wait(waiter, cancelled)
        return waiter.result()

    def load(self, ref: str, runtime: str | None = None, *, pin: bool | None = None) -> ModelStatus:
        """Load a model now and return when it is ready; *pin* overrides the configuration until it is unloaded."""
        model = self._resolve(ref, runtime or "")
        self._ask(lambda: self._residents.deaths.loaded(model.key))  # a person's word: it is tried again
        with self.acquire(ref, runtime or model.runtime, lane=Lane.INTERACTIVE):
            if pin is not None:
                self._ask(lambda: self._residents.pin(model.key, pin=pin))
            ready = [one for one in self.status() if one.ref == ref and one.state is Residency.READY]
        if not ready:
            raise RunnerDied(f"The runner of {ref} ended as soon as it was loaded.")
        return ready[0]

    def unload(self, ref: str) -> bool:
        """Unload a model, pinned or not, as soon as nobody uses it; False if it is not resident."""
        return self._ask(lambda: self._residents.doom(ref))

    def status(self) -> list[ModelStatus]:
        """Return the resident models, those whose last load failed, and the configured ones that are absent."""
        absent = list(self._configured())
        return self._ask(lambda: model_status.status(self._residents, absent))

    @property
    def outlook(self) -> Outlook:
        """Return which models jobs can be started on, as of the last turn."""
        return self._outlook

    def nudge(self) -> None:
        """Look at the line again, soon: what queued jobs wish for has changed."""
        self._post(_nothing)

    def size(self, model: ResolvedModel) -> int:
        """Return the bytes *model* will need; reads files, and raises what `acquire` raises of a broken model."""
        return self._sizes(model)

    def barred(self, key: str) -> bool:
        """Tell whether the model *key* is set aside, because its runner died whenever it was loaded."""
        return self._ask(lambda: self._residents.deaths.barred(key))

    def reconfigure(
        self,
        *,
        budget: int | None = None,
        resolve: Resolve | None = None,
        configured: Callable[[], Iterable[ResolvedModel]] | None = None,
    ) -> None:
        """Take new settings: resident models get their new pins and keep-alives, newly pinned ones are loaded."""
        self._resolve = resolve or self._resolve
        self._configured = configured or self._configured
        fresh = {model.key: model for model in self._configured()}
        self._ask(lambda: self._residents.renew(budget, fresh))
        self._preload()

    @property
    def strain(self) -> Strain:
        """Return how short memory is."""
        return self._relief.strain

    def holds(self, lane: Lane) -> str | None:
        """Return why no job of *lane* should begin now for want of memory, None if it may."""
        return self._relief.holds(lane)

    def stops(self, lane: Lane) -> bool:
        """Tell whether running jobs of *lane* have to step aside for want of memory."""
        return self._relief.stops(lane)

    # -- the caller's side ------------------------------------------------------------------------------------------

    def _post(self, event: Callable[[], None]) -> None:
        self._inbox.put(event)

    def _ask(self, question: Callable[[], T]) -> T:
        """Run *question* on the owning thread and return its answer."""
        if self._thread is None or not self._thread.is_alive() or self._thread is threading.current_thread():
            return question()  # no owner to wait for: before start, after stop, or it is us (in *on_change*)
        answer: Future[T] = Future()
        self._post(lambda: _reply(answer, question))
        return answer.result()

    def _wait(self, waiter: Waiter, cancelled: threading.Event | None) -> None:
        if cancelled is None:
            waiter.ended.wait()
            return
        while not waiter.ended.wait(_CANCEL_EVERY_S):
            if cancelled.is_set():
                self._post(lambda: self._residents.withdraw(waiter))
                waiter.ended.wait()
        if cancelled.is_set() and waiter.lease is not None:
            waiter.lease.release()
            raise JobCancelled

    def _preload(self) -> None:
        for model in self._configured():
            if model.pin:
                self._background(lambda model=model: self._preload_one(model))  # type: ignore[misc]

    def _preload_one(self, model: ResolvedModel) -> None:
        try:
            self.acquire(model.ref, model.runtime, lane=Lane.NORMAL).release()
        except MlxdError as error:
            log.warning("Could not load %s: %s", model.ref, error.message, extra={"action": "models.preload_failed"})

    # -- the owning thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._residents.closed:
            self.turn()
        with contextlib.suppress(queue.Empty):  # answer what was posted after the end: nobody waits for ever
            while True:
                self._inbox.get_nowait()()

    def turn(self) -> None:
        """Wait for the next event or deadline, handle it, and settle everything that follows from it."""
        with contextlib.suppress(queue.Empty):  # Empty: a keep-alive has run out
            event = self._inbox.get(timeout=self._until_deadline())
            try:
                event()
            except Exception:  # a mistake of ours in one event must not leave every job without models
                log.exception("An event of the model scheduler failed", extra={"action": "models.event_failed"})
        self._residents.settle()
        if self._looks:
            self._relief.look()
        self._sparing.look(short=self._relief.strain.level > Level.NORMAL, room=self._residents.room)
        if self._residents.changed and self._on_change is not None:
            self._on_change()
        self._residents.changed = False
        outlook, before = self._residents.outlook(), self._outlook
        if outlook != before:
            self._outlook = outlook
            self._on_outlook()

    def _strained(self, strain: Strain) -> None:
        self.on_strain(strain)

    def _until_deadline(self) -> float | None:
        deadlines = (self._residents.deadline(), self._sparing.due(), self._relief.due() if self._looks else None)
        deadline = min((one for one in deadlines if one is not None), default=None)
        return None if deadline is None else max(0.0, deadline - self._clock())


def _nothing() -> None:
    """Happen: what follows from an event is what counts."""


def _reply(answer: Future[T], question: Callable[[], T]) -> None:
    try:
        answer.set_result(question())
    except Exception as error:  # noqa: BLE001 - belongs to whoever asked
        answer.set_exception(error)
