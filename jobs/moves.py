"""What a job becomes: pure decisions, each a set of changed columns for the ledger to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jobs.errors import JobConflict
from jobs.model import ErrorInfo, Job, OutputFile, State
from jobs.rows import jsonable, outputs_column

#: Columns to change; always with the new ``state`` when there is one.
Changes = dict[str, Any]


def finished(result: Mapping[str, Any], outputs: Sequence[OutputFile], *, now: datetime) -> Changes:
    """Return a success: its result and its files."""
    return _ended(State.SUCCEEDED, now) | {
        "result": jsonable(result),
        "outputs": outputs_column(outputs),
        "error": None,
    }


def failed(
    job: Job, error: ErrorInfo, outputs: Sequence[OutputFile] = (), *, retry_at: datetime | None, now: datetime
) -> Changes:
    """Return another try at *retry_at* while the error budget lasts, otherwise the end with the files there are."""
    changes: Changes = {"failures": job.failures + 1, "error": _error(error)}
    if retry_at is None or job.failures + 1 >= job.max_failures:
        return _ended(State.FAILED, now) | changes | {"outputs": outputs_column(outputs)}
    return _waiting(job, State.QUEUED, now) | changes | {"not_before": retry_at}


def crashed(job: Job, error: ErrorInfo, *, limit: int, shared: bool = False, now: datetime) -> Changes:
    """Return another try while the crash budget lasts, otherwise quarantine.

    A death *shared* with other jobs makes a suspect, which runs alone from then on; it convicts nobody.
    """
    crashes = job.crashes + 1
    if shared or crashes < limit:
        return _waiting(job, State.QUEUED, now) | {"crashes": crashes, "error": _error(error)}
    return _waiting(job, State.QUARANTINED, now) | {"crashes": crashes, "error": _error(_verdict(job, error, crashes))}


def _verdict(job: Job, error: ErrorInfo, crashes: int) -> ErrorInfo:
    """Return why the job is put aside, and how it is released."""
    count = f"{crashes} times" if crashes > 1 else "once"
    said = f"{error.message} This job has ended its runner {count} and is put aside; `mlxd retry {job.id}` releases it."
    return error.model_copy(update={"message": said})


def released(job: Job, *, now: datetime) -> Changes:
    """Return the job as if this attempt had never been: nobody's fault, so it costs nothing."""
    return _waiting(job, State.QUEUED, now) | {"attempts": max(job.attempts - 1, 0)}


def blocked(job: Job, error: ErrorInfo, *, now: datetime) -> Changes:
    """Return the wait for something that is missing; the attempt is given back."""
    return _waiting(job, State.BLOCKED, now) | {"attempts": max(job.attempts - 1, 0), "error": _error(error)}


def unblocked() -> Changes:
    """Return the way back into the queue."""
    return {"state": State.QUEUED.value, "error": None}


def requeued(job: Job) -> Changes:
    """Return the way back into the queue by a person's hand: the crash budget is whole again."""
    if job.state not in {State.QUARANTINED, State.BLOCKED}:
        raise JobConflict(
            f"Job {job.id} is {job.state.value}; only a quarantined or blocked job can be put back.",
            job=job.id,
            state=job.state.value,
        )
    return unblocked() | {"crashes": 0, "not_before": None}


def cancelled(job: Job, *, now: datetime) -> Changes:
    """Return the end that a person asked for; a running job is only asked to stop."""
    if job.terminal:
        raise JobConflict(f"Job {job.id} is already {job.state.value}.", job=job.id, state=job.state.value)
    if job.state is State.RUNNING:
        return {"cancel_requested": 1}
    return stopped(now=now)


def stopped(outputs: Sequence[OutputFile] = (), *, why: ErrorInfo | None = None, now: datetime) -> Changes:
    """Return the end of a cancelled job, with the files it had written by then; *why*, if no person asked for it."""
    told = {} if why is None else {"error": _error(why)}
    return _ended(State.CANCELLED, now) | {"outputs": outputs_column(outputs)} | told


def _waiting(job: Job, state: State, now: datetime) -> Changes:
    """Return *state* for later, unless a person has asked meanwhile to stop: that wish outlives the attempt."""
    if job.cancel_requested:
        return stopped(now=now)
    return {"state": state.value, "owner": None, "started_at": None}


def _ended(state: State, now: datetime) -> Changes:
    return {"state": state.value, "owner": None, "finished_at": now}


def _error(error: ErrorInfo) -> dict[str, Any]:
    return {"type": error.type, "message": error.message, "facts": jsonable(error.facts)}
