"""`mlxd doctor`: examine the set-up and say what is wrong, and what to do, in sentences.

Nothing is changed and no model is loaded; MLX is not even imported. What the running daemon knows (its folders, its
plugins, its problems) is passed in, because only the daemon can say what *it* may read: on a Mac a terminal's
permissions prove nothing about a service's.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from daemon.config.model import Config
from daemon.health import fitness, places, surroundings
from daemon.health.findings import Finding, Grade, note, ok, problem
from daemon.health.machine import Machine
from daemon.models.identity import identify
from daemon.models.references import ResolvedModel
from daemon.paths import Home
from daemon.views import Condition, FolderStatus, Health, PluginStatus
from jobs.errors import MlxdError
from launchd.contract import ServiceStatus, Standing
from plugins.lm_prefix_disk_folder import PrefixFolder


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Everything that is examined."""

    home: Home
    #: The configuration, or why it could not be read.
    config: Config | MlxdError
    machine: Machine
    #: What the daemon said of itself, or why it did not; None: it was not asked.
    health: Health | MlxdError | None
    folders: Sequence[FolderStatus]
    plugins: Sequence[PluginStatus]
    #: Raises an `MlxdError` for a model reference that cannot be used.
    find_model: Callable[[str], object] | None
    service: ServiceStatus | None
    #: How the installed service differs from the one that this mlxd would install.
    stale: Sequence[str]
    #: Whether it is the daemon that examines.
    inside: bool


def examine(
    home: Home,
    config: Config | MlxdError,
    *,
    health: Health | MlxdError | None = None,
    folders: Sequence[FolderStatus] = (),
    plugins: Sequence[PluginStatus] = (),
    find_model: Callable[[str], object] | None = None,
    service: ServiceStatus | None = None,
    stale: Sequence[str] = (),
    inside: bool = False,
    machine: Machine | None = None,
) -> list[Finding]:
    """Look at everything and return a finding for each thing looked at, in the order in which to read them.

    *folders* and *plugins* are what the daemon reports, if it runs; without *folders* the configured ones are tried
    from here. *find_model* resolves a model reference and raises what is wrong with it. *stale* is how the installed
    service differs from this mlxd's; *inside* says that the daemon itself examines.
    """
    patient = Patient(
        home=home,
        config=config,
        machine=machine or Machine(),
        health=health,
        folders=folders,
        plugins=plugins,
        find_model=find_model,
        service=service,
        stale=stale,
        inside=inside,
    )
    return [finding for name, check in _CHECKS for finding in _guarded(name, check, patient)]


def healthy(findings: Iterable[Finding]) -> bool:
    """Return whether nothing that was found keeps mlxd from working."""
    return all(finding.grade is not Grade.PROBLEM for finding in findings)


_Check = Callable[[Patient], Iterator[Finding]]


def _guarded(name: str, check: _Check, patient: Patient) -> list[Finding]:
    try:
        return list(check(patient))
    except (OSError, MlxdError, ValueError) as error:  # one thing that cannot be examined must not hide the others
        return [Finding(check=name, grade=Grade.PROBLEM, message=f"This could not be examined: {error}")]


def _memory(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    yield from fitness.memory(patient.machine, config.memory.budget_bytes if isinstance(config, Config) else None)
    if isinstance(patient.health, Health):
        yield from fitness.strain(patient.health.memory)


def _prefixes(patient: Patient) -> Iterator[Finding]:
    if isinstance(patient.config, Config):
        yield from fitness.prefixes(PrefixFolder(patient.home.prefixes, patient.config.runner.prefix_cache))


def _home(patient: Patient) -> Iterator[Finding]:
    state = patient.home.state
    try:
        facts = state.lstat()
    except FileNotFoundError:
        yield ok("home", f"{state} does not exist yet; the daemon makes it.")
        return
    if not stat.S_ISDIR(facts.st_mode):
        yield problem("home", f"{state} is not a folder of its own (a link or a file).", "Move it away.")
    elif facts.st_uid != patient.machine.uid():
        yield problem("home", f"{state} belongs to another user.", f"Give it back: sudo chown -R $USER '{state}'")
    elif stat.S_IMODE(facts.st_mode) & 0o077:
        yield problem("home", f"Others on this machine may look into {state}.", f"Close it: chmod 700 '{state}'")
    elif not os.access(state, os.W_OK | os.X_OK):
        yield problem("home", f"{state} is not writable.", f"Open it for yourself: chmod 700 '{state}'")
    else:
        yield ok("home", f"{state} is yours alone.")


def _socket(patient: Patient) -> Iterator[Finding]:
    health = patient.health
    answers = None if health is None else not isinstance(health, MlxdError)
    yield from surroundings.socket(patient.home.socket, uid=patient.machine.uid(), answers=answers)


def _ledger(patient: Patient) -> Iterator[Finding]:
    """Look at the ledger of a daemon that does not answer: it may be why; one that runs tells of it itself."""
    path = patient.home.ledger
    if not isinstance(patient.health, MlxdError) or not path.exists():
        return
    from jobs import schema  # a daemon that answers spares the command this

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        schema.require_known(version, path)
    except MlxdError as error:
        yield problem("ledger", error.message, "The daemon cannot start with it, and takes no jobs until then.")
    except sqlite3.Error as error:
        yield problem("ledger", f"{path} cannot be read: {error}.", f"Look at its permissions: ls -l '{path}'")
    else:
        yield ok("ledger", f"{path} can be read.")


def _config(patient: Patient) -> Iterator[Finding]:
    path = patient.home.config
    if isinstance(patient.config, MlxdError):
        yield problem("config", patient.config.message, f"Correct it, then run: mlxd config check (file: {path})")
    elif path.exists():
        yield ok("config", f"{path} is in order.")
    else:
        yield ok("config", f"No configuration file; the defaults apply ({path} is where it would be).")


def _folders(patient: Patient) -> Iterator[Finding]:
    configured = patient.config.folders if isinstance(patient.config, Config) else ()
    yield from places.watched(patient.machine, configured, patient.folders, inside=patient.inside)


def _models(patient: Patient) -> Iterator[Finding]:
    if patient.find_model is None or not isinstance(patient.config, Config):
        return
    wanted = {**patient.config.defaults.refs(), **{alias: alias for alias in patient.config.models}}
    for ref in dict.fromkeys(wanted.values()):
        try:
            found = patient.find_model(ref)
        except MlxdError as error:
            advice = f"Fetch it (mlxd models pull {ref}), or name another in the configuration."
            yield problem("model", f"{ref}: {error.message}", advice, fault="model-missing")
        else:
            yield ok("model", f"{ref} is on this machine{_revision(found)}.")


def _revision(model: object) -> str:
    if not isinstance(model, ResolvedModel):
        return ""
    told = identify(model, model.ref)
    bits = (told.quantization or {}).get("bits")
    return f" (revision {told.revision[:19]}{f', {bits} bits' if bits else ''})"


def _plugins(patient: Patient) -> Iterator[Finding]:
    broken = [plugin for plugin in patient.plugins if plugin.problem]
    for plugin in broken:
        yield problem("plugin", f"Plugin {plugin.name}: {plugin.problem}", "Repair or disable it: see `mlxd plugins`.")
    if patient.plugins and not broken:
        yield ok("plugin", f"{len(patient.plugins)} plugins, all in order.")


def _service(patient: Patient) -> Iterator[Finding]:
    yield from surroundings.definition(patient.stale)
    status = patient.service
    if status is None:
        return
    if status.standing is Standing.RUNNING:
        yield ok("service", f"{status.detail} Process {status.pid}.")
    elif status.standing is Standing.NOT_INSTALLED:
        yield note("service", "mlxd does not start by itself at login.", "If it should: mlxd service install")
    else:
        ended = f" The last process ended with {status.last_exit}." if status.last_exit else ""
        yield note("service", f"{status.detail}{ended}", "See also: mlxd service logs")


def _daemon(patient: Patient) -> Iterator[Finding]:
    health = patient.health
    if health is None:
        return
    if isinstance(health, MlxdError):
        yield note("daemon", health.message)
        return
    known = {folder.problem for folder in patient.folders} | {plugin.problem for plugin in patient.plugins}
    for trouble in health.problems:
        if trouble not in known:
            yield problem("daemon", trouble, "See: mlxd logs")
    if health.status is Condition.DRAINING:
        yield note("daemon", f"mlxd {health.version} is stopping (process {health.pid}).")
    else:
        yield ok("daemon", f"mlxd {health.version} answers (process {health.pid}, up for {health.uptime_s:.0f} s).")


_CHECKS: Final[Sequence[tuple[str, _Check]]] = (
    ("python", lambda patient: fitness.python(patient.machine)),
    ("packages", lambda patient: fitness.packages(patient.machine)),
    ("accelerator", lambda patient: fitness.accelerator(patient.machine)),
    ("memory", _memory),
    ("disk", lambda patient: fitness.disk(patient.machine, patient.home.state)),
    ("prefixes", _prefixes),
    ("home", _home),
    ("ledger", _ledger),
    ("socket", _socket),
    ("path", lambda patient: surroundings.path_variable(patient.machine)),
    ("config", _config),
    ("folder", _folders),
    ("model", _models),
    ("plugin", _plugins),
    ("service", _service),
    ("sleep", lambda patient: surroundings.sleep(patient.machine)),
    ("daemon", _daemon),
)
