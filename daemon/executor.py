"""Job id -> claim -> run the task -> commit. What a queue worker calls, and nothing else runs a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from daemon.context import RunContext, World
from daemon.events import STATE
from daemon.records import Records
from daemon.stopping import Stop
from daemon.verdicts import Policy, as_json, info_of, log_context, worth_another_try
from daemon.views import public_job
from jobs.errors import (
    InputChanged,
    Interrupted,
    JobCancelled,
    LedgerUnavailable,
    MlxdError,
    RunnerDied,
    StaleFence,
    StorageUnavailable,
    Unavailable,
)
from jobs.failpoints import reach
from jobs.model import Job, Lane, OutputFile, State

log = logging.getLogger(__name__)


class Gate(Protocol):
    """Who may hold jobs back: `daemon.conditions.gate.Gate`."""

    def admits(self, job_id: str) -> bool:
        """Tell whether the job may be claimed; if not, its hint will be put again when it may."""

    def must_stop(self, job: Job) -> bool:
        """Tell whether a job that just began must stop again."""


class OpenGate:
    """Holds nothing back."""

    def admits(self, job_id: str) -> bool:  # noqa: ARG002 - see `Gate`
        """Let it pass."""
        return True

    def must_stop(self, job: Job) -> bool:  # noqa: ARG002 - see `Gate`
        """Let it go on."""
        return False


class Executor:
    """Runs jobs, one for each worker thread that calls `execute`.

    *owner* names this daemon process in claims. *ended* hears of every job that left the running state, on the
    worker's thread; *again* of those that go on, now, later or when what they lack is there; *astray* of a job
    whose hint is used up, or whose end could not be written down: somebody has to look for it. *gate* may hold a job
    back before it is claimed; *during* is entered for as long as a job runs. *records* keeps what jobs did.
    """

    def __init__(
        self,
        *,
        world: World,
        owner: str,
        clock: Callable[[], datetime],
        ended: Callable[[Job], None],
        again: Callable[[Job], None],
        astray: Callable[[], None] = lambda: None,
        policy: Policy | None = None,
        gate: Gate | None = None,
        during: Callable[[Job], AbstractContextManager[object]] = nullcontext,
        records: Records | None = None,
    ) -> None:
        self._world = world
        self._owner = owner
        self._clock = clock
        self._ended = ended
        self._again = again
        self._astray = astray
        self._policy = policy or Policy()
        self._gate = gate or OpenGate()
        self._during = during
        self._records = records
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running: dict[str, tuple[Job, Stop]] = {}
        #: Ids on their way into `_running`; a list, for a doubled hint may be claiming the same id.
        self._claiming: list[str] = []
        self._draining = threading.Event()

    def execute(self, job_id: str, lane: Lane | None = None) -> None:
        """Run the job if it is still there to be claimed in *lane*; a stale, doubled or misplaced hint does nothing.

        A long job on another lane's worker would keep the people waiting who wait there.
        """
        try:
            written = self._execute(job_id, lane)
        except LedgerUnavailable as error:
            log.warning("A job went astray: %s", error.message, extra={"action": "job_astray", "job": job_id})
            written = False
        if not written:
            self._astray()

    def _execute(self, job_id: str, lane: Lane | None) -> bool:
        """Return False if the ledger says that the job runs, and it does not any more."""
        if self._draining.is_set() or not self._gate.admits(job_id):
            return True
        stop = Stop(pause=self._policy.persist_every)
        job = self._claim(job_id, stop, lane)
        if job is None:
            return True
        try:
            reach("job.claimed")
            self._tell(job)
            # Each may have come between the claim and the moment that made this job findable.
            if self._draining.is_set() or self._gate.must_stop(job):
                stop.set(Interrupted)
            if self._world.ledger.get(job.id).cancel_requested:
                stop.set(JobCancelled)
            with self._during(job):
                after = self._run(job, stop)
            if after is not None:
                self._follow_up(after, stop)
            return after is not None
        finally:
            with self._lock:
                del self._running[job.id]
                self._idle.notify_all()

    def _claim(self, job_id: str, stop: Stop, lane: Lane | None) -> Job | None:
        """Claim the job so that `orphans` never sees it claimed and unknown."""
        with self._lock:
            self._claiming.append(job_id)
        job = None
        try:
            job = self._world.ledger.claim(job_id, self._owner, lane=lane)
        finally:
            with self._lock:
                self._claiming.remove(job_id)
                if job is not None:
                    self._running[job.id] = (job, stop)
        return job

    def cancel(self, job_id: str) -> bool:
        """Tell a running job that its person took it back; False if it does not run here."""
        with self._lock:
            entry = self._running.get(job_id)
        if entry is None:
            return False
        entry[1].set(JobCancelled)
        return True

    def running(self) -> list[Job]:
        """Return the jobs that run now."""
        with self._lock:
            return [job for job, _ in self._running.values()]

    def drain(self, *, gently: bool) -> None:
        """Claim nothing more; ask running jobs to step aside: all of them, or (*gently*) those of the batch lane."""
        with self._lock:
            self._draining.set()
            stops = [stop for job, stop in self._running.values() if not gently or job.lane == "batch"]
        for stop in stops:
            stop.set(Interrupted)

    def step_aside(self, lane: Lane) -> int:
        """Ask the running jobs of *lane* to go back into the queue at their next step; return how many there are."""
        with self._lock:
            stops = [stop for job, stop in self._running.values() if job.lane is lane]
        for stop in stops:
            stop.set(Interrupted)
        return len(stops)

    def wait_idle(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until nothing runs."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._running, timeout)

    def orphans(self) -> list[Job]:
        """Return jobs that the ledger says this process runs, but that it does not: their last write failed."""
        # The ledger first: a job that ends meanwhile has moved its fence, and releasing it does nothing.
        found = self._world.ledger.find(states=(State.RUNNING,), limit=10_000)
        with self._lock:
            here = {*self._running, *self._claiming}
        return [job for job in found if job.owner == self._owner and job.id not in here]

    def _run(self, job: Job, stop: Stop) -> Job | None:  # noqa: PLR0911 - one return for each ending below
        """Run a claimed job to its next state; None if the ledger could not be told, or somebody else owns it now.

        1. The task returns: succeeded. 2. Stopped: cancelled, or back in the queue at no cost. 3. Its runner died:
        crash budget. 4. Something it needs is missing, or its results have no place: blocked. 5. It failed:
        retried if that can help; if its watched file holds something else by now, that is another job's, and it ends.
        """
        ledger, fence = self._world.ledger, job.fence
        context: RunContext | None = None
        log.info("Started.", extra={"action": "job_started", **job.log_context})
        try:
            try:
                context = RunContext(job, world=self._world, stop=stop)
                stop.check()
                context.require_input()
                params = self._world.parse(job.task, {**self._world.defaults(job.task), **job.params})
                run = partial(self._world.task(job.task).run, context, params)
                result = self._records.run(job, params, context, run) if self._records else run()
                context.require_read()
                reach("job.done")
                outputs, told = context.outputs, as_json(result)
                return stop.persist(lambda: ledger.finish(job.id, fence, told, outputs))
            except JobCancelled:
                return ledger.cancelled(job.id, fence, _written(context))
            except Interrupted:
                return ledger.release(job.id, fence)
            except (StaleFence, LedgerUnavailable):
                raise
            except RunnerDied as error:
                if stop.event.is_set() or error.innocent:  # killed with us, by us, or by others: not the job's doing
                    return ledger.release(job.id, fence)
                why, shared, limit = info_of(error), error.shared, self._policy.max_crashes
                return stop.persist(lambda: ledger.crash(job.id, fence, why, limit=limit, shared=shared))
            except (Unavailable, StorageUnavailable) as error:
                why = info_of(error)
                return stop.persist(lambda: ledger.block(job.id, fence, why))
            except BaseException as error:  # noqa: BLE001 - a task is somebody else's code: whatever it raises, SystemExit too, ends the job and not the worker
                failure, written = _reason(error, context), _written(context)
                return stop.persist(lambda: self._failed(job, failure, written))
        except StaleFence:
            log.warning("Somebody else owns the job by now.", extra={"action": "job_lost", **job.log_context})
        except LedgerUnavailable as error:
            log.error(  # noqa: TRY400 - the disk is full or failing; a trace adds nothing
                "The end of a job could not be written down; it will run again: %s",
                error.message,
                extra={"action": "job_unwritten", **job.log_context},
            )
        return None

    def _failed(self, job: Job, error: BaseException, outputs: Sequence[OutputFile]) -> Job:
        if isinstance(error, InputChanged):
            return self._world.ledger.cancelled(job.id, job.fence, outputs, why=info_of(error))
        if not isinstance(error, MlxdError):
            log.error("The task raised.", exc_info=error, extra={"action": "task_raised", **job.log_context})
        retry_at = None
        if worth_another_try(error):
            retry_at = self._clock() + timedelta(seconds=self._policy.backoff(job.failures))
        return self._world.ledger.fail(job.id, job.fence, info_of(error), outputs, retry_at=retry_at)

    def _follow_up(self, job: Job, stop: Stop) -> None:
        """Say how it ended, and see to it that a job that goes on is tried again."""
        log.info("Now %s.", job.state.value, extra={"action": f"job_{job.state.value}", **log_context(job)})
        reach("job.ended")
        stop.persist(lambda: self._ended(job))
        self._tell(job)
        if job.state in {State.QUEUED, State.BLOCKED} and not self._draining.is_set():
            self._again(job)

    def _tell(self, job: Job) -> None:
        self._world.hub.publish(job.id, STATE, public_job(job))


def _reason(error: BaseException, context: RunContext | None) -> BaseException:
    """Return why the job failed: a file that was being written while it was read is not what the reader says of it."""
    try:
        if context is not None and not isinstance(error, InputChanged):
            context.require_read()
    except InputChanged as changed:
        return changed
    return error


def _written(context: RunContext | None) -> tuple[OutputFile, ...]:
    """Return what an attempt that did not succeed leaves behind: whole files, which their owner should know of."""
    return context.outputs if context is not None else ()
