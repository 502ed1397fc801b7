"""The one error tree.

::

    MlxdError                      the root: everything mlxd raises on purpose
    ├── InvalidRequest             what the caller sent cannot be done as it stands
    │   ├── InvalidParams          parameters do not fit the task
    │   └── InvalidInput           an input file is missing, empty, unreadable or not what it claims to be
    ├── JobNotFound                no job has this id
    ├── JobConflict                the job's state does not allow this
    │   └── StaleFence             somebody else owns the job by now: drop what you were doing
    ├── ScheduleNotFound           no schedule has this name
    ├── ScheduleConflict           the schedule's state or origin does not allow this
    ├── QueueFull                  too many jobs are waiting; try again later
    ├── LedgerUnavailable          the ledger cannot be written (full disk, failed fsync): nothing was accepted
    ├── OutputError                a result file could not be written
    │   └── StorageUnavailable     for now (full, read-only, not permitted): the job is blocked, not failed
    ├── Unavailable                something the job needs is not here: the job is blocked, not failed
    │   ├── UnknownTask            no loaded plugin offers this task
    │   ├── UnknownRuntime         no loaded plugin offers this runtime
    │   ├── ModelMissing           the model is not on this machine
    │   └── ModelUnloadable        its runner dies whenever it is loaded: it is set aside for a while
    ├── ModelError                 the model cannot serve this
    │   ├── ModelBroken            its folder is damaged or not allowed (pickle, remote code, lying header)
    │   └── ModelTooLarge          it does not fit the memory budget even with everything else evicted
    ├── RequestFailed              the runtime refused or failed one request; the model is fine
    │   └── OutOfMemory            it does not fit into memory even with nothing beside it
    ├── RunnerDied                 the runner process ended while it was serving: crash budget, not error budget
    ├── Interrupted                the daemon is draining: put the job back, it costs no attempt
    ├── JobCancelled               the person took the job back
    ├── InputChanged               its watched file holds something else by now, which is another job
    ├── ConfigError                the configuration is wrong; names file, key, what it got, what it wanted
    ├── DaemonUnreachable          nothing answers on the socket
    ├── AlreadyRunning             another mlxd holds this home
    └── ServiceError               launchd or systemd refused

A class's docstring is its default message; ``slug`` is the stable type that programs see (problem+json, ``--json``,
the ``error`` of a job). ``facts`` carry machine-readable details.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MlxdError(Exception):
    """Something went wrong in mlxd."""

    #: Stable name for programs.
    slug: ClassVar[str] = "error"
    #: Whether trying the same again later may help (spends the error budget).
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        """Take *message* (default: the first line of the class docstring) and machine-readable *facts*."""
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.facts = facts

    @property
    def message(self) -> str:
        """Return the sentence for people."""
        return str(self.args[0])


class InvalidRequest(MlxdError):
    """The request cannot be done as it stands."""

    slug = "invalid-request"


class InvalidParams(InvalidRequest):
    """The parameters do not fit the task, or do not make sense together."""

    slug = "invalid-params"


class InvalidInput(InvalidRequest):
    """The input cannot be used."""

    slug = "invalid-input"


class JobNotFound(MlxdError):
    """There is no such job."""

    slug = "job-not-found"


class JobConflict(MlxdError):
    """The job's state does not allow this."""

    slug = "job-conflict"


class StaleFence(JobConflict):
    """This attempt no longer owns the job."""

    slug = "stale-fence"


class ScheduleNotFound(MlxdError):
    """There is no such schedule."""

    slug = "schedule-not-found"


class ScheduleConflict(MlxdError):
    """The schedule does not allow this."""

    slug = "schedule-conflict"


class QueueFull(MlxdError):
    """Too many jobs are waiting; try again later."""

    slug = "queue-full"
    retryable = True


class LedgerUnavailable(MlxdError):
    """The ledger cannot be written, so nothing was accepted."""

    slug = "ledger-unavailable"
    retryable = True


class OutputError(MlxdError):
    """A result file could not be written."""

    slug = "output-error"


class StorageUnavailable(OutputError):
    """The place of the results cannot be written to for now."""

    slug = "storage-unavailable"


class Unavailable(MlxdError):
    """Something this job needs is not here."""

    slug = "unavailable"


class UnknownTask(Unavailable):
    """No loaded plugin offers this task."""

    slug = "unknown-task"


class UnknownRuntime(Unavailable):
    """No loaded plugin offers this runtime."""

    slug = "unknown-runtime"


class ModelMissing(Unavailable):
    """The model is not on this machine."""

    slug = "model-missing"


class ModelUnloadable(Unavailable):
    """The model's runner dies whenever it is loaded."""

    slug = "model-unloadable"


class ModelError(MlxdError):
    """The model cannot serve this."""

    slug = "model-error"


class ModelBroken(ModelError):
    """The model's folder is damaged or not allowed."""

    slug = "model-broken"


class ModelTooLarge(ModelError):
    """The model does not fit the memory budget."""

    slug = "model-too-large"


class RequestFailed(MlxdError):
    """The runtime failed this request."""

    slug = "request-failed"
    retryable = True


class OutOfMemory(RequestFailed):
    """The request does not fit into memory, even with nothing beside it."""

    slug = "out-of-memory"
    retryable = False


class RunnerDied(MlxdError):
    """The runner process ended while it was serving."""

    slug = "runner-died"
    retryable = True

    @property
    def innocent(self) -> bool:
        """Whether the request never reached the runner: what was there before has ended it."""
        return self.facts.get("jobs") == 0

    @property
    def shared(self) -> bool:
        """Whether other jobs had requests on the runner, so that nobody can tell whose ended it."""
        return int(self.facts.get("jobs", 1)) > 1


class Interrupted(MlxdError):
    """The daemon is stopping; the job goes on after the next start."""

    slug = "interrupted"


class JobCancelled(MlxdError):
    """The job was cancelled."""

    slug = "cancelled"


class InputChanged(MlxdError):
    """The watched file was changed before its job had read it."""

    slug = "input-changed"


class ConfigError(MlxdError):
    """The configuration is wrong."""

    slug = "config-error"


class DaemonUnreachable(MlxdError):
    """No mlxd answers on the socket. Start it with `mlxd run` or `mlxd service start`."""

    slug = "daemon-unreachable"


class AlreadyRunning(MlxdError):
    """Another mlxd is already running for this home."""

    slug = "already-running"


class ServiceError(MlxdError):
    """The service manager refused."""

    slug = "service-error"
