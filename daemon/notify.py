"""Who hears of a job's end, and how that becomes a job of its own.

Each delivery is a job of the task ``deliver``: written down before anything is sent, tried again with growing pauses,
visible in ``mlxd jobs --source notify``. Its idempotency key names the job, its attempt and the ``[[notify]]`` entry:
each entry tells one end once, however often this is asked. A delivery's own end is told to nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from daemon.config.model import Config
from daemon.config.notify import NotifyConfig
from jobs.errors import LedgerUnavailable, MlxdError
from jobs.ledger import Ledger
from jobs.model import Job, Lane, NewJob, Source, State
from plugins.deliver import DELIVER

log = logging.getLogger(__name__)

#: ``source.kind`` of deliveries.
NOTIFY: Final = "notify"
_FAILED: Final = frozenset({State.FAILED, State.QUARANTINED})
_ON: Final = {
    "succeeded": frozenset({State.SUCCEEDED}),
    "failed": _FAILED,
    "any": _FAILED | {State.SUCCEEDED},
}
#: After a start, ends that came this shortly before the last one known are told again: one of them may have been cut
#: off between the commit and its delivery. The keys see to it that none is told twice.
_CUT_OFF: Final = timedelta(seconds=60)
_LOOK_BACK: Final = 1000


def matches(entry: NotifyConfig, job: Job) -> bool:
    """Tell whether *entry* is for *job* as it stands: by its rule, its schedule, or its task.

    An entry that names none of the three is for every job of a rule or a schedule.
    """
    if job.task == DELIVER or job.source.kind == NOTIFY or job.state not in _ON[entry.on]:
        return False
    if _any(entry.tasks, job.task):
        return True
    rule, kind = job.source.rule, job.source.kind
    if rule is None or kind not in {"folder", "schedule", "retry"}:
        return False
    if not (entry.rules or entry.schedules or entry.tasks):
        return True
    # A repeated job keeps the name of its rule or schedule, but not which of the two it was.
    return (kind != "schedule" and _any(entry.rules, rule)) or (kind != "folder" and _any(entry.schedules, rule))


def delivery(entry: NotifyConfig, job: Job, lane: Lane) -> NewJob:
    """Return the job that tells *job*'s end as *entry* says."""
    return NewJob(
        task=DELIVER,
        params={"notify": entry.name, "about": summary(job, result=entry.include == "result")},
        lane=lane,
        parent=job.id,
        source=Source(kind=NOTIFY, rule=entry.name, detail=f"{job.task} {job.state.value}"),
        idempotency_key=f"notify:{job.id}:{job.fence}:{entry.name}",
        max_failures=entry.tries,
    )


def summary(job: Job, *, result: bool) -> dict[str, Any]:
    """Return what is told of *job*: what it was and how it ended; what it says only with *result*."""
    told: dict[str, Any] = {
        "job": job.id,
        "task": job.task,
        "state": job.state.value,
        "source": job.source.kind,
        "rule": job.source.rule,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "outputs": [str(output.path) for output in job.outputs],
        "error": {"type": job.error.type, "message": job.error.message} if job.error else None,
    }
    return {**told, "result": job.result} if result else told


def quiet_lane(config: Config) -> Lane:
    """Return the lane of deliveries: normal, or another one if that has conditions that the others have not."""
    free = (lane for lane in (Lane.NORMAL, Lane.BATCH, Lane.INTERACTIVE) if not _conditional(config, lane))
    return next(free, Lane.NORMAL)


def settings(config: Config) -> dict[str, Any]:
    """Return what the task ``deliver`` needs to know: each entry by its name."""
    return {"targets": {entry.name: entry.model_dump(mode="json") for entry in config.notify}}


class Notifier:
    """Makes deliveries. *add* writes a job down and sees to it that it runs; it is idempotent by its key."""

    def __init__(self, *, config: Callable[[], Config], add: Callable[[NewJob], object]) -> None:
        self._config = config
        self._add = add

    def __call__(self, job: Job) -> None:
        """Tell whoever wants to know that *job* has ended; trouble is logged, the job is what it is.

        Raises:
            LedgerUnavailable: not everybody was told; doing it again adds only what is missing.

        """
        config = self._config()
        for entry in config.notify:
            if matches(entry, job):
                try:
                    self._add(delivery(entry, job, quiet_lane(config)))
                except LedgerUnavailable:
                    raise
                except MlxdError as error:
                    context = {"action": "notify_failed", "notify": entry.name, **job.log_context}
                    log.warning("A job's end cannot be told: %s", error.message, extra=context)

    def catch_up(self, ledger: Ledger) -> int:
        """Tell the ends that the last daemon may have had no time to tell; return how many were looked at."""
        if not self._config().notify:
            return 0
        ended = [job for job in ledger.find(states=_ON["any"], limit=_LOOK_BACK) if job.finished_at is not None]
        last = max((job.finished_at for job in ended if job.finished_at), default=None)
        late = [job for job in ended if last and job.finished_at and job.finished_at >= last - _CUT_OFF]
        for job in late:
            self(job)
        return len(late)


def _any(patterns: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _conditional(config: Config, lane: Lane) -> bool:
    return lane in config.lanes and config.lanes[lane].conditional
