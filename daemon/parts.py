"""The composition root: every part of a running daemon, made once and handed what it needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from daemon import notify
from daemon.aftermath import Aftermath
from daemon.api.front import front
from daemon.api.late import LateApp
from daemon.api.listener import listen
from daemon.api.server import SocketServer
from daemon.api.tcp import tcp_server
from daemon.awake import Awake
from daemon.conditions.gate import Gate
from daemon.conditions.readers import Readings, platform_reader
from daemon.config.model import Config
from daemon.config.reload import report
from daemon.context import World
from daemon.courtesy import Courtesy
from daemon.dispatcher import UNBLOCK_AFTER, Dispatcher
from daemon.events import STATE, Hub
from daemon.executor import Executor
from daemon.folders.desk import FolderDesk, past_jobs
from daemon.folders.expectation import models_asked, models_of
from daemon.folders.intake import Intake
from daemon.folders.preview import Asking
from daemon.folders.reverting import Reverting
from daemon.folders.taken import TakenFiles
from daemon.folders.trash import Trash
from daemon.folders.watcher import Watcher
from daemon.housekeeping import Housekeeping
from daemon.models.references import ResolvedModel
from daemon.models.scheduler import ModelScheduler
from daemon.models.setup import plugin_place, resolver, scheduler, scheduler_settings
from daemon.paths import Home
from daemon.planner import Planner
from daemon.records import Records
from daemon.schedules.department import Schedules, schedules
from daemon.service import Service
from daemon.verdicts import Policy
from daemon.views import ReloadReport, public_job
from jobs.errors import ConfigError
from jobs.failpoints import reach
from jobs.journal import Journal
from jobs.ledger import Ledger, utcnow
from jobs.model import Job, Lane, NewJob
from jobs.pruning import Pruning
from jobs.queue import JobQueue
from plugins.deliver import DELIVER
from plugins.manager import PluginManager

#: Seconds that workers and runners get to end when everything else has stopped.
_STOP_S: Final = 5.0

log = logging.getLogger(__name__)

Settings = Callable[[], Config]


@dataclass(kw_only=True)
class Parts:
    """A daemon, taken apart."""

    owner: str
    hub: Hub
    ledger: Ledger
    plugins: PluginManager
    models: ModelScheduler
    executor: Executor
    queue: JobQueue
    planner: Planner
    dispatcher: Dispatcher
    aftermath: Aftermath
    notifier: notify.Notifier
    gate: Gate
    awake: Awake
    service: Service
    watcher: Watcher
    schedules: Schedules
    server: SocketServer
    #: What takes long to import of the server, and need not be there at the start.
    app: LateApp
    #: The TCP port, if the configuration asks for one.
    port: SocketServer | None

    def reconfigure(self, old: Config, new: Config) -> ReloadReport:
        """Use what can be used of *new* at once; say what changed and what needs a restart."""
        self.plugins.reload()
        self.models.reconfigure(**scheduler_settings(new))
        return report(old, new)

    def look_anew(self) -> None:
        """Find out again what waiting jobs need: the configuration has changed, and models may be called otherwise."""
        self.planner.forget()
        self.dispatcher.relabel()

    def close(self) -> None:
        """Stop everything, in the reverse order of the start. Nothing here waits for jobs."""
        self.schedules.keeper.stop()
        self.watcher.stop()
        self.gate.stop()
        self.dispatcher.stop()
        self.executor.drain(gently=False)
        self.queue.stop(_STOP_S)
        reach("drain.workers")
        self.models.stop(_STOP_S)
        self.awake.close()
        if self.port is not None:
            self.port.stop()
        self.server.stop()
        self.hub.close()
        self.ledger.close()


def build(
    home: Home,
    config: Settings,
    *,
    owner: str,
    supervised: bool,
    reload: Callable[[], ReloadReport],
    shutdown: Callable[[], None],
    complete: Callable[[], object] = lambda: None,
) -> Parts:
    """Make the parts; only the socket is opened, nothing runs yet. *complete* hears when all is imported, if ever.

    Raises:
        AlreadyRunning, ConfigError, LedgerUnavailable, ServiceError: one cannot be made.

    """
    # First, because it is what fails most often, and before anything that would have to be undone.
    listener = listen(home.socket, supervised=supervised)
    ground = _ground(home, config)
    # The service and the executor know each other: jobs that end may wake jobs that wait.
    later = _Later(ground.ledger, ground.hub)
    work = _work(ground, later, owner=owner)
    later.dispatcher = work.dispatcher
    later.housekeeping = Housekeeping(
        Pruning(ground.ledger),
        settings=lambda: config().queue,
        idle=lambda: not work.executor.running(),
        clock=utcnow,
    )
    later.service = Service(
        home=home,
        config=config,
        ledger=ground.ledger,
        hub=ground.hub,
        plugins=ground.plugins,
        models=ground.models,
        executor=work.executor,
        dispatcher=work.dispatcher,
        reload=reload,
        shutdown=shutdown,
        lanes=ground.gate,
        taking=work.courtesy.taking,
    )
    later.service.plan = work.planner.why
    later.watcher = watcher = _folders(ground, later.service)
    later.schedules = schedules(
        ground.ledger,
        later.service,
        results=home.results,
        limit=lambda: config().queue.limit,
        stop=work.executor.cancel,
        on_wake=(work.dispatcher.wake, watcher.rescan, ground.gate.nudge),
        clock=utcnow,
    )
    later.service.keep(later.schedules.desk)
    app, short = front(later.service, made=complete, failed=later.service.miss_routes)
    later.server = SocketServer(app, listener, short=short, before_stop=ground.hub.close)
    return Parts(
        owner=owner,
        hub=ground.hub,
        ledger=ground.ledger,
        plugins=ground.plugins,
        models=ground.models,
        executor=work.executor,
        queue=work.queue,
        planner=work.planner,
        dispatcher=work.dispatcher,
        aftermath=work.aftermath,
        notifier=work.notifier,
        gate=ground.gate,
        awake=work.awake,
        service=later.service,
        watcher=watcher,
        schedules=later.schedules,
        server=later.server,
        app=app,
        port=_port(home, config(), later.service),
    )


def _port(home: Home, config: Config, service: Service) -> SocketServer | None:
    """Return the TCP port, if one is asked for; one that cannot be had is a problem to be told, no reason to end."""
    if config.http.address is None:
        return None
    try:
        return tcp_server(service, config.http.address, token=home.token)
    except ConfigError as error:
        log.error("%s", error.message, extra={"action": "port_failed"})  # noqa: TRY400 - the sentence says it all
        service.port_problem = error.message
        return None


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What everything else stands on."""

    home: Home
    config: Settings
    hub: Hub
    ledger: Ledger
    plugins: PluginManager
    models: ModelScheduler
    journal: Journal
    trash: Trash
    gate: Gate
    world: World


def _ground(home: Home, config: Settings) -> _Ground:
    hub, ledger = Hub(), Ledger(home.ledger)
    journal = Journal(ledger)
    place = plugin_place(home, config())
    plugins = PluginManager(files=place.files, entry_points=place.entry_points, disabled=place.disabled)
    plugins.load()
    models = scheduler(home, config, plugins)
    gate = Gate(
        lanes=lambda: config().lanes,
        ledger=ledger,
        readings=Readings(platform_reader()),
        clock=utcnow,
        held_back=lambda job: hub.publish(job.id, STATE, public_job(job)),
        memory=models,
    )
    models.on_strain = lambda _strain: gate.nudge()
    world = World(
        ledger=ledger,
        hub=hub,
        models=models,
        task=plugins.task,
        parse=plugins.parse,
        defaults=lambda task: config().tasks.get(task, {}),
        settings=partial(_task_settings, config, plugins),
        results=home.results,
        require_input=TakenFiles(journal).require,
    )
    return _Ground(
        home=home,
        config=config,
        hub=hub,
        ledger=ledger,
        plugins=plugins,
        models=models,
        journal=journal,
        trash=make_trash(home),
        gate=gate,
        world=world,
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What runs jobs."""

    notifier: notify.Notifier
    aftermath: Aftermath
    awake: Awake
    courtesy: Courtesy
    executor: Executor
    queue: JobQueue
    planner: Planner
    dispatcher: Dispatcher


def _work(ground: _Ground, later: _Later, *, owner: str) -> _Work:
    config = ground.config
    notifier = notify.Notifier(config=config, add=later.add)
    aftermath = Aftermath(
        plugins=ground.plugins,
        unblock=later.unblock,
        notify=notifier,
        anew=later.anew,
        journal=ground.journal,
        trash=ground.trash,
    )
    awake = Awake(lambda job: (lane := config().lanes.get(job.lane)) is not None and lane.keep_awake)
    executor = Executor(
        world=ground.world,
        owner=owner,
        clock=utcnow,
        ended=later.ended(aftermath),
        again=later.again,
        astray=later.astray,
        policy=Policy(max_crashes=config().runner.max_crashes),
        gate=ground.gate,
        during=awake.during,
        records=_records(ground),
    )
    planner = _planner(ground)
    courtesy = Courtesy()
    execute = courtesy.first(executor.execute)
    queue = JobQueue(ground.home.queue, execute, workers=config().queue.workers, order=planner)
    planner.start(queue.poke)
    ground.models.follow(planner, queue.poke)
    dispatcher = Dispatcher(
        ledger=ground.ledger,
        queue=queue,
        executor=executor,
        clock=utcnow,
        arrivals=later.look_around,
        held=ground.gate.held,
        need=planner.need,
    )
    return _Work(
        notifier=notifier,
        aftermath=aftermath,
        awake=awake,
        courtesy=courtesy,
        executor=executor,
        queue=queue,
        planner=planner,
        dispatcher=dispatcher,
    )


def _planner(ground: _Ground) -> Planner:
    config, defaults = ground.config, ground.world.defaults

    def asked(task: str, params: Mapping[str, Any]) -> tuple[str, str | None] | None:
        return next(iter(models_asked(task, params, ground.plugins.task, defaults)), None)

    def resolve(ref: str | None, runtime: str) -> ResolvedModel:
        return resolver(config())(ref, runtime)

    def held(lane: Lane) -> bool:
        return lane in ground.gate.held() or ground.models.holds(lane) is not None

    return Planner(
        models=ground.models, asked=asked, resolve=resolve, bounds=lambda: config().queue.overtaken_s, held=held
    )


def _records(ground: _Ground) -> Records:
    config = ground.config
    return Records(
        ledger=ground.ledger,
        settings=lambda: config().outputs,
        defaults=ground.world.defaults,
        resolver=lambda: resolver(config()),
        task=ground.plugins.task,
        clock=utcnow,
    )


def _folders(ground: _Ground, service: Service) -> Watcher:
    """Return the watcher, known to the service together with the desk for what people ask about folders."""
    config, ledger, journal = ground.config, ground.ledger, ground.journal
    intake = Intake(submit=service.submit, ledger=ledger, takes=ground.plugins.takes, defaults=ground.world.defaults)
    watcher = Watcher(intake=intake, rescan_seconds=config().watch.rescan_seconds, paused=journal.paused)
    service.watch(watcher)
    service.keep_folders(
        FolderDesk(
            folders=lambda: config().folders,
            watcher=watcher,
            journal=journal,
            revert=Reverting(ledger=ledger, journal=journal, trash=ground.trash, clock=utcnow),
            asking=_asking(config, ledger, journal, ground.plugins, intake),
            clock=utcnow,
        )
    )
    return watcher


class _Later:
    """Holds what is made after the functions that refer to it."""

    dispatcher: Dispatcher
    service: Service
    schedules: Schedules
    server: SocketServer
    housekeeping: Housekeeping
    watcher: Watcher

    def __init__(self, ledger: Ledger, hub: Hub) -> None:
        self._ledger = ledger
        self._hub = hub

    def add(self, new: NewJob) -> None:
        """Take in a job of our own making: also while the queue is full, and while the daemon stops."""
        job, created = self._ledger.add(new)
        if created:
            self._hub.publish(job.id, STATE, public_job(job))
            self.dispatcher.put(job)

    def ended(self, first: Callable[[Job], None]) -> Callable[[Job], None]:
        """Return what hears of jobs' ends: *first*, then the schedules, whose next job may have waited for it."""

        def tell(job: Job) -> None:
            first(job)
            self.schedules.keeper.job_ended(job)

        return tell

    def again(self, job: Job) -> None:
        """Leave a hint for a job that goes on."""
        self.service.note_blocked(job)
        self.dispatcher.put(job)

    def astray(self) -> None:
        """Look for a job that the ledger could not be told of."""
        self.dispatcher.look_soon()

    def unblock(self) -> None:
        """Let blocked jobs try again."""
        self.service.unblock()

    def anew(self, path: Path) -> None:
        """Have a watched file looked at once more."""
        self.watcher.reconsider(path)

    def look_around(self) -> float | None:
        """Mend what nobody tells of: a socket whose file is gone, jobs whose model or room has come.

        Returns when to look for room again, seconds.
        """
        self.housekeeping.look()
        self.server.mend()
        self.service.socket_problem = self.server.problem
        self.service.unblock_arrived()
        return UNBLOCK_AFTER if self.service.waits_for_room else None


def _task_settings(config: Settings, plugins: PluginManager, task: str) -> Mapping[str, Any]:
    """Return what the configuration says to the plugin that offers *task*; deliveries are told where to go."""
    if task == DELIVER:
        return notify.settings(config())
    return config().plugins.settings.get(plugins.owner(task), {})


def make_trash(home: Home, environ: Mapping[str, str] = os.environ) -> Trash:
    """Return where deleted files go: with ``MLXD_HOME`` everything stays in that folder, the trash too."""
    trash = Trash(home.cache / "trash", system=not environ.get("MLXD_HOME"), environ=environ)
    trash.expire()
    return trash


def _asking(config: Settings, ledger: Ledger, journal: Journal, plugins: PluginManager, intake: Intake) -> Asking:
    """Return whom a dry run of a watched folder asks."""

    def defaults(task: str) -> Mapping[str, Any]:
        return config().tasks.get(task, {})

    return Asking(
        known=intake.known,
        is_output=intake.is_output,
        takes=plugins.takes,
        prepared=intake.prepared,
        validate=lambda new: plugins.parse(new.task, {**defaults(new.task), **new.params}),
        past=lambda task: past_jobs(ledger, journal, task),
        models=lambda new: models_of(new, plugins.task, defaults),
        estimate=lambda ref, runtime: _estimate(config(), plugins, ref, runtime),
    )


def _estimate(config: Config, plugins: PluginManager, ref: str | None, runtime: str) -> tuple[str, int]:
    """Return what the model *ref* (None: the default) is called, and the memory it will need, bytes."""
    model = resolver(config)(ref, runtime)
    return model.ref, plugins.runtimes[model.runtime].estimate(model.path, model.options).total
