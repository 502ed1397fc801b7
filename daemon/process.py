"""The daemon's life: build the parts, start them in order, wait for a signal, stop them in reverse."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Final

from daemon import leftovers
from daemon import log as logs
from daemon.allocator import few_arenas
from daemon.config.model import Config, load
from daemon.instance import InstanceLock, prepare
from daemon.parts import Parts, build
from daemon.paths import Home
from daemon.signals import Signals
from daemon.views import ReloadReport
from jobs.errors import ConfigError, MlxdError
from jobs.failpoints import reach

log = logging.getLogger(__name__)

#: Sent to ourselves when draining is over; nobody else sends it here.
_DRAINED: Final = signal.SIGUSR1
#: Seconds kept back from the drain time for stopping jobs, runners and threads after the grace is over.
_WIND_DOWN: Final = 5.0


def run(
    home: Home,
    *,
    config_path: Path | None = None,
    foreground: bool = True,
    supervised: bool = False,
    started: float | None = None,
) -> int:
    """Run the daemon until it is told to stop; return the exit status, 0 for an ordinary stop.

    *supervised* says that launchd or systemd started us: a wrong configuration is then no reason to end (they would
    only start us again, and again), but to serve with the defaults and to say what is wrong. *started* is
    `time.monotonic` at the start of the program, for the log.

    Raises:
        AlreadyRunning: another daemon has this home.
        ConfigError: the configuration or the home cannot be used.

    """
    few_arenas()
    prepare(home)
    path = config_path or home.config
    with InstanceLock(home.lock), Signals() as signals:
        config, problem = _first_config(path, home, forgiving=supervised)
        _configure_log(home, config, foreground=foreground)
        try:
            reach("start.locked")
            life = _Life(home, path, config, signals, foreground=foreground, supervised=supervised, problem=problem)
            life.start(started if started is not None else time.monotonic())
            life.wait()
        except MlxdError as error:
            if not foreground:  # nobody sees the sentence that the command ends with
                log.error("mlxd cannot run: %s", error.message, extra={"action": "start_failed"})  # noqa: TRY400
            raise
        finally:
            logs.release()
    return 0


class _Life:
    """One daemon from start to stop."""

    def __init__(
        self,
        home: Home,
        path: Path,
        config: Config,
        signals: Signals,
        *,
        foreground: bool,
        supervised: bool,
        problem: str | None,
    ) -> None:
        self._home = home
        self._path = path
        self._config = config
        self._signals = signals
        self._foreground = foreground
        self._reloading = threading.Lock()
        self._parts: Parts = build(
            home,
            lambda: self._config,
            owner=uuid.uuid4().hex,
            supervised=supervised,
            reload=self._reload,
            shutdown=lambda: signals.send(signal.SIGTERM),
            complete=_collect,
        )
        self._parts.service.config_problem = problem

    def start(self, began: float) -> None:
        """Start in order: what was promised earlier first, then new work, then the door."""
        parts = self._parts
        try:
            leftovers.clear(parts.ledger, parts.owner, results=self._home.results)
            recovered = parts.ledger.recover(parts.owner)
            reach("start.recovered")
            parts.ledger.unblock()
            parts.aftermath.catch_up(parts.ledger)
            parts.notifier.catch_up(parts.ledger)
            reach("start.settled")
            parts.models.start()
            parts.gate.start(parts.executor, parts.dispatcher.put)
            # Interrupted jobs have no hint: they get one before the workers take those of the jobs behind them.
            parts.dispatcher.look()
            parts.queue.start()
            parts.dispatcher.start()
            reach("start.working")
            parts.server.start()
            if parts.port is not None:
                parts.port.start()
            reach("start.serving")
            parts.watcher.start(self._config.folders)
            # Without a configuration that can be read, those of the last one go on.
            broken = parts.service.config_problem is not None
            parts.schedules.keeper.start(None if broken else self._config.schedules)
            parts.app.begin()
        except BaseException:
            parts.close()
            raise
        log.info(
            "mlxd is ready after %.2f s.",
            time.monotonic() - began,
            extra={"action": "ready", "socket": str(self._home.socket), "recovered": len(recovered)},
        )
        if self._foreground:
            port = f" Port: {self._config.http.listen}, token in {self._home.token}." if self._parts.port else ""
            sys.stderr.write(f"mlxd is ready. Socket: {self._home.socket}.{port} Stop with Ctrl-C.\n")
            sys.stderr.flush()

    def wait(self) -> None:
        """Serve until TERM or INT, then drain; a second one hurries."""
        while (got := self._signals.wait()) is signal.SIGHUP:
            self._reload_quietly()
        log.info("Stopping.", extra={"action": "stopping", "signal": got.name})
        drainer = threading.Thread(target=self._drain, name="drain")
        drainer.start()
        while (got := self._signals.wait()) is not _DRAINED:
            if got is not signal.SIGHUP:
                self._parts.executor.drain(gently=False)
        drainer.join()

    def _drain(self) -> None:
        """Let jobs end while there is time, make the rest step aside, then stop everything in reverse."""
        parts, deadline = self._parts, time.monotonic() + self._config.drain_seconds
        try:
            parts.service.drain()
            reach("drain.begun")
            parts.schedules.keeper.stop()
            parts.watcher.stop()
            parts.executor.drain(gently=True)
            parts.executor.wait_idle(max(0.0, self._config.drain_seconds - _WIND_DOWN))
            parts.executor.drain(gently=False)
            parts.executor.wait_idle(max(1.0, deadline - time.monotonic()))
            reach("drain.idle")
            parts.close()
            reach("drain.closed")
            log.info("Stopped.", extra={"action": "stopped"})
        finally:
            self._signals.send(_DRAINED)

    def _reload_quietly(self) -> None:
        """Do what SIGHUP asks; there is nobody to answer, so a mistake is logged and the old settings stay."""
        try:
            self._parts.service.reload()
        except MlxdError as error:
            log.error(  # noqa: TRY400 - the sentence says it all
                "The configuration was not reloaded: %s",
                error.message,
                extra={"action": "reload_failed"},
            )

    def _reload(self) -> ReloadReport:
        """Read the configuration and the single-file plugins again, and use what can be used at once."""
        with self._reloading:
            new = load(self._path, home=self._home)
            report = self._parts.reconfigure(self._config, new)
            self._config = new
            self._parts.look_anew()
            self._parts.watcher.reconfigure(new.folders, rescan_seconds=new.watch.rescan_seconds)
            self._parts.schedules.keeper.reconfigure(new.schedules)
            _configure_log(self._home, new, foreground=self._foreground)
        self._parts.service.config_problem = None
        log.info("Reloaded.", extra={"action": "reloaded", "changed": list(report.changed)})
        return report


def _collect() -> None:
    """Let the collector work, off since the start; what was made until now stays, and need never be looked through."""
    gc.freeze()
    gc.enable()


def _first_config(path: Path, home: Home, *, forgiving: bool) -> tuple[Config, str | None]:
    try:
        return load(path, home=home), None
    except ConfigError as error:
        if not forgiving:
            raise
        sys.stderr.write(f"mlxd: {error.message}\nmlxd: running with the defaults and no folders until it is mended.\n")
        return Config(), error.message


def _configure_log(home: Home, config: Config, *, foreground: bool) -> None:
    settings = config.log
    logs.configure(home, level=settings.level, foreground=foreground, max_bytes=settings.max_bytes, keep=settings.keep)
