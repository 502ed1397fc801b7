"""The examination with everything that belongs to it: what `mlxd doctor` calls, and what the daemon answers it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from daemon.config.model import Config, load
from daemon.health.doctor import examine
from daemon.health.findings import Finding
from daemon.health.machine import Machine
from daemon.installation import manager, staleness
from daemon.models.references import ModelResolver, ResolvedModel
from daemon.paths import Home
from jobs.errors import MlxdError
from launchd.contract import ServiceFailure, ServiceStatus


def examine_all(
    home: Home, told: Mapping[str, Any], *, inside: bool, running: Config | None = None, machine: Machine | None = None
) -> list[Finding]:
    """Examine *home* and return the findings.

    *told* is what the daemon says of itself: ``health``, ``folders``, ``plugins``, as `examine` takes them. *running*
    is the configuration in force where the daemon examines (*inside*); the file's mistakes are found all the same.
    """
    config = _config(home)
    used = running if running is not None and not isinstance(config, MlxdError) else config
    return examine(
        home,
        used,
        find_model=_finder(used),
        service=_service(home),
        stale=_stale(home, used),
        inside=inside,
        machine=machine,
        **told,
    )


def _config(home: Home) -> Config | MlxdError:
    try:
        return load(home.config, home=home)
    except MlxdError as error:
        return error


def _finder(config: Config | MlxdError) -> Any:
    if isinstance(config, MlxdError):
        return None
    resolver = ModelResolver(aliases=config.models, defaults=config.defaults.refs())
    runtimes = {ref: runtime for runtime, ref in config.defaults.refs().items()}

    def find(ref: str) -> ResolvedModel:
        return resolver(ref, runtimes.get(ref, "lm"))

    return find


def _service(home: Home) -> ServiceStatus | None:
    try:
        return manager(home).status()
    except MlxdError:
        return None


def _stale(home: Home, config: Config | MlxdError) -> list[str]:
    drain = config.drain_seconds if isinstance(config, Config) else Config().drain_seconds
    try:
        return staleness(home, drain_seconds=drain, executable=sys.executable)
    except (MlxdError, ServiceFailure):  # a home that no service could serve: said elsewhere
        return []
