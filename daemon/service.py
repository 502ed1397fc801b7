"""What the daemon can be asked for, as one class; the socket translates HTTP to it and nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from daemon import log as logs
from daemon.aftermath import PULL
from daemon.config.model import Config
from daemon.config.withheld import without_secrets
from daemon.dispatcher import Dispatcher
from daemon.events import STATE, Hub
from daemon.executor import Executor
from daemon.folders.desk import FolderDesk
from daemon.health import metrics
from daemon.health.findings import Finding
from daemon.models.arrivals import arrived, loadable
from daemon.models.footprint import footprint
from daemon.models.scheduler import ModelScheduler
from daemon.paths import Home
from daemon.schedules.desk import ScheduleDesk
from daemon.views import (
    Condition,
    FolderStatus,
    Health,
    LaneStatus,
    MemoryStatus,
    ModelStatus,
    PluginStatus,
    ReloadReport,
    TaskInfo,
    public_job,
)
from jobs.accepting import SeenFile
from jobs.errors import LedgerUnavailable, MlxdError, QueueFull, StorageUnavailable, Unavailable
from jobs.ledger import Ledger
from jobs.model import ErrorInfo, Job, Lane, NewJob, Source, State
from jobs.room import Room
from plugins.manager import PluginManager

#: Blocked jobs that are looked at for what has arrived.
_MOST_BLOCKED: Final = 1000


class Folders(Protocol):
    """What the service needs of the watcher."""

    def status(self) -> list[FolderStatus]:
        """Return the watched folders."""

    def rescan(self) -> int:
        """Look through all folders now."""


class Lanes(Protocol):
    """What the service needs of the gate."""

    def why(self, job: Job) -> str | None:
        """Return why a queued job is held back, if it is."""

    def status(self) -> list[LaneStatus]:
        """Return the lanes that have conditions."""

    def nudge(self) -> None:
        """Look at the conditions now."""


class Service:
    """The daemon's doors, behind which everything is thread-safe."""

    def __init__(
        self,
        *,
        home: Home,
        config: Callable[[], Config],
        ledger: Ledger,
        hub: Hub,
        plugins: PluginManager,
        models: ModelScheduler,
        executor: Executor,
        dispatcher: Dispatcher,
        reload: Callable[[], ReloadReport],
        shutdown: Callable[[], None],
        lanes: Lanes | None = None,
        taking: Callable[[int], object] = lambda _count: None,
    ) -> None:
        """*taking* hears how many submissions are being written down together."""
        self.hub = hub
        self._home = home
        self._config = config
        self._ledger = ledger
        self._plugins = plugins
        self._models = models
        self._executor = executor
        self._dispatcher = dispatcher
        self._reload = reload
        self._shutdown = shutdown
        self._lanes = lanes
        self._taking = taking
        self._folders: Folders | None = None
        self._folder_desk: FolderDesk | None = None
        self._schedules: ScheduleDesk | None = None
        self._started = time.monotonic()
        self._draining = False
        #: Why a queued job has not begun, as far as models are concerned.
        self.plan: Callable[[Job], str | None] = lambda _job: None
        #: Why nobody finds the socket, as of the last look.
        self.socket_problem: str | None = None
        #: Why jobs wait for a place for their results, as of the last look.
        self.room_problem: str | None = None
        #: What is wrong with the configuration, while the daemon serves without it.
        self.config_problem: str | None = None
        #: Why the TCP port is not open, if it was asked for and is not.
        self.port_problem: str | None = None
        self._routes_problem: str | None = None

    def miss_routes(self, error: BaseException) -> None:
        """Tell from now on that the HTTP interface could not be loaded, because of *error*."""
        self._routes_problem = (
            f"Jobs are taken, but other requests fail: mlxd's interface could not be loaded "
            f"({type(error).__name__}: {error}). Install mlxd anew, and restart it."
        )

    def watch(self, folders: Folders) -> None:
        """Take the watcher, which itself submits through this service."""
        self._folders = folders

    def keep_folders(self, desk: FolderDesk) -> None:
        """Take whom to ask about watched folders."""
        self._folder_desk = desk

    @property
    def folder_desk(self) -> FolderDesk:
        """Return whom to ask about watched folders."""
        if self._folder_desk is None:
            raise Unavailable("Folders are not watched yet; try again in a moment.")
        return self._folder_desk

    def keep(self, schedules: ScheduleDesk) -> None:
        """Take the schedules, whose jobs are announced by this service."""
        self._schedules = schedules

    @property
    def schedules(self) -> ScheduleDesk:
        """Return whom to ask about schedules."""
        if self._schedules is None:
            raise Unavailable("Schedules are not kept yet; try again in a moment.")
        return self._schedules

    def submit(self, new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        """Validate *new*, write it down, and only then answer.

        *seen* is the watched folder and the keys of the file in it, remembered in the same transaction.

        Raises:
            UnknownTask, InvalidParams: nothing was written.
            QueueFull, LedgerUnavailable: nothing was accepted.

        """
        self._require_open()
        # Validated with the configuration's defaults under it, kept without: a job says what its submitter said.
        self.validate(new.task, new.params)
        try:
            job, created = self._ledger.add(new, limit=self._config().queue.limit, seen=seen)
        except QueueFull as error:
            raise self._dated(error) from None
        if created:
            self.announce(job)
        return job, created

    def submit_all(self, news: Sequence[NewJob]) -> list[tuple[Job, bool] | MlxdError]:
        """Do what `submit` does for each of *news*, with one sync of the disk; return what it would return or raise."""
        self._taking(len(news))
        refused = [self._refusal(new) for new in news]
        sound = [new for new, error in zip(news, refused, strict=True) if error is None]
        told = iter(self._ledger.add_all(sound, limit=self._config().queue.limit) if sound else ())
        outcomes = [next(told) if error is None else error for error in refused]
        for outcome in outcomes:
            if isinstance(outcome, QueueFull):
                self._dated(outcome)
            if not isinstance(outcome, MlxdError) and outcome[1]:
                self.announce(outcome[0])
        return outcomes

    def _refusal(self, new: NewJob) -> MlxdError | None:
        """Return why *new* cannot be accepted whatever the ledger says, None if it can."""
        try:
            self._require_open()
            self.validate(new.task, new.params)
        except MlxdError as error:
            return error
        return None

    def _require_open(self) -> None:
        if self._draining:
            raise self._dated(QueueFull("mlxd is stopping; submit again when it is back."))

    def _dated(self, error: QueueFull) -> QueueFull:
        """Say when to come back, as the configuration has it."""
        error.facts.setdefault("retry_after_s", self._config().queue.retry_after_s)
        return error

    def validate(self, task: str, params: Mapping[str, Any]) -> None:
        """Raise `UnknownTask` or `InvalidParams` if no such job can be made; the configuration's defaults count."""
        defaults = self._config().tasks.get(task, {})
        self._plugins.parse(task, {**defaults, **params})

    def announce(self, job: Job) -> None:
        """Tell followers of a job that is new or changed, and leave a hint for it if it is queued."""
        self.hub.changed(job, lambda told: public_job(self._with_reason(told)))
        self._dispatcher.put(job)

    def get(self, job_id: str) -> Job:
        """Return a job by its id or a unique beginning of it."""
        return self._with_reason(self._ledger.get(job_id))

    def find(
        self,
        *,
        states: Collection[State] = (),
        task: str | None = None,
        lane: Lane | None = None,
        source: str | None = None,
        rule: str | None = None,
        parent: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """Return jobs, newest first."""
        found = self._ledger.find(
            states=states,
            task=task,
            lane=lane,
            source=source,
            rule=rule,
            parent=parent,
            limit=limit,
            before=before,
        )
        return [self._with_reason(job) for job in found]

    def _with_reason(self, job: Job) -> Job:
        """Add why a queued job waits although there may be a worker for it."""
        why = (self._lanes.why(job) if self._lanes else None) or self.plan(job)
        return job.model_copy(update={"waiting": why}) if why else job

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        return self._ledger.counts()

    def cancel(self, job_id: str) -> Job:
        """Take a job back; a running one stops at its next step."""
        job = self._ledger.cancel(self._ledger.get(job_id).id)
        if job.state is State.RUNNING:
            self._executor.cancel(job.id)
        else:
            self.hub.publish(job.id, STATE, public_job(job))
        return job

    def retry(self, job_id: str) -> Job:
        """Give a blocked or quarantined job another chance; repeat an ended one as a new job."""
        old = self._ledger.get(job_id)
        if not old.terminal:
            job = self._ledger.requeue(old.id)
            self.hub.publish(job.id, STATE, public_job(job))
            self._dispatcher.put(job)
            return job
        said = old.model_dump(include=set(NewJob.model_fields) - {"idempotency_key", "not_before"})
        source = Source(kind="retry", detail=old.id, rule=old.source.rule)
        return self.submit(NewJob.model_validate({**said, "parent": old.id, "source": source}))[0]

    def unblock(self, job_ids: Collection[str] | None = None) -> int:
        """Let blocked jobs (all, or these) try again, because something arrived; return how many."""
        jobs = self._ledger.unblock(job_ids)
        for job in jobs:
            self.hub.publish(job.id, STATE, public_job(job))
            self._dispatcher.put(job)
        return len(jobs)

    def unblock_arrived(self) -> int:
        """Let jobs go on whose model came to this machine meanwhile, or whose results have room; return how many."""
        blocked = self._ledger.find(states=(State.BLOCKED,), limit=_MOST_BLOCKED, newest_first=False)
        room = Room()
        here = [job.id for job in blocked if job.error is not None and _came(job.error, room)]
        here += loadable(blocked, self._models)
        cramped = [job for job in blocked if job.id not in here and _cramped(job)]
        self.room_problem = cramped[0].error.message if cramped and cramped[0].error else None
        return self.unblock(here) if here else 0

    def note_blocked(self, job: Job) -> None:
        """Tell at once, not at the next look, that results have no place."""
        if job.state is State.BLOCKED and job.error is not None and _cramped(job):
            self.room_problem = job.error.message

    @property
    def waits_for_room(self) -> bool:
        """Whether jobs were blocked, at the last look, for want of a place to write to."""
        return self.room_problem is not None

    def models(self) -> list[ModelStatus]:
        """Return the models that are configured or resident."""
        return self._models.status()

    def load(self, ref: str, *, runtime: str | None = None, pin: bool | None = None) -> ModelStatus:
        """Load a model now and return when it is ready."""
        status = self._models.load(ref, runtime=runtime, pin=pin)
        self.unblock_arrived()
        return status

    def unload(self, ref: str) -> bool:
        """Unload a model as soon as nobody uses it."""
        return self._models.unload(ref)

    def pull(self, ref: str) -> Job:
        """Submit the job that fetches a model, or what an alias stands for, to this machine."""
        alias = self._config().models.get(ref)
        return self.submit(NewJob(task=PULL, params={"model": alias.path if alias else ref}))[0]

    def folders(self) -> list[FolderStatus]:
        """Return the watched folders."""
        return self._folders.status() if self._folders else []

    def rescan(self) -> int:
        """Look through all watched folders now."""
        return self._folders.rescan() if self._folders else 0

    def plugins(self) -> list[PluginStatus]:
        """Return the plugins, broken ones too."""
        return [
            PluginStatus(
                name=info.name,
                kind=info.kind,
                tasks=info.tasks,
                runtimes=info.runtimes,
                problem=info.problem if info.enabled else "switched off by the configuration",
            )
            for info in self._plugins.status()
        ]

    def tasks(self) -> list[TaskInfo]:
        """Return the kinds of jobs."""
        return [
            TaskInfo(
                name=name,
                summary=task.summary,
                params=task.params.model_json_schema(),
                plugin=self._plugins.owner(name),
            )
            for name, task in sorted(self._plugins.tasks.items())
        ]

    def health(self) -> Health:
        """Return the daemon at a glance; answers also while the ledger does not."""
        problems = [self.config_problem, self.port_problem, self._dispatcher.problem, self._ledger.problem]
        problems += [logs.problem(), self.socket_problem, self.room_problem, self._routes_problem]
        problems += self._folder_problems()
        problems += [
            f"plugin {one.name}: {one.problem}" for one in self._plugins.status() if one.problem and one.enabled
        ]
        try:
            counts, forgotten = self._ledger.counts(), self._ledger.forgotten()
            problems += self._schedules.problems() if self._schedules else []
        except LedgerUnavailable as error:
            counts, forgotten, problems = {}, 0, [*problems, error.message]
        models, strain = self._models.status(), self._models.strain
        return Health(
            status=Condition.DRAINING if self._draining else Condition.DEGRADED if any(problems) else Condition.OK,
            version=importlib.metadata.version("mlxd"),
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 3),
            home=str(self._home.state.parent),
            counts=counts,
            forgotten=forgotten,
            models=tuple(models),
            memory=MemoryStatus(
                budget_bytes=self._config().memory.budget_bytes(),
                used_bytes=sum(model.memory_bytes or model.estimate_bytes or 0 for model in models if model.pid),
                daemon_bytes=footprint(),
                level=strain.level.name.lower(),
                reason=strain.reason or None,
                footprint_bytes=strain.footprint if any(model.pid for model in models) else 0,
            ),
            lanes=tuple(self._lanes.status() if self._lanes else ()),
            problems=tuple(dict.fromkeys(problem for problem in problems if problem)),
        )

    def doctor(self) -> list[Finding]:
        """Examine the set-up from the daemon's own context: its permissions are the ones that count."""
        from daemon.health.inside import examine_all

        told = {"health": self.health(), "folders": self.folders(), "plugins": self.plugins()}
        return examine_all(self._home, told, inside=True, running=self._config())

    def metrics(self) -> str:
        """Return Prometheus' text format."""
        return metrics.render(self.health(), followers=self.hub.followers())

    def reload(self) -> ReloadReport:
        """Read the configuration and the single-file plugins again; blocked jobs get another chance."""
        report = self._reload()
        self.unblock()
        if self._lanes:
            self._lanes.nudge()
        return report

    def config(self) -> dict[str, Any]:
        """Return the configuration in force, without its secrets."""
        return without_secrets(self._config().model_dump(mode="json"))

    def shutdown(self) -> None:
        """Begin to drain and stop; return at once."""
        self._shutdown()

    def drain(self) -> None:
        """Take no more jobs."""
        self._draining = True

    def _folder_problems(self) -> list[str]:
        return [f"folder {folder.path}: {folder.problem}" for folder in self.folders() if folder.problem]


def _cramped(job: Job) -> bool:
    return job.error is not None and job.error.type == StorageUnavailable.slug


def _came(error: ErrorInfo, room: Room) -> bool:
    """Tell whether what a job is blocked by is here by now."""
    if error.type != StorageUnavailable.slug:
        return arrived(error.facts)
    return room.take(Path(str(error.facts["folder"])), int(error.facts.get("needs") or 0))
