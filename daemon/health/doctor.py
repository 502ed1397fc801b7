"""`mlxd doctor`: examine the set-up and say what is wrong, and what to do, in sentences.

Nothing is changed and no model is loaded; MLX is not even imported. What the running daemon knows (its folders, its
plugins, its problems) is passed in, because only the daemon can say what *it* may read: on a Mac a terminal's
permissions prove nothing about a service's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.config.model import Config
from daemon.health import fitness
from daemon.health.findings import Finding, Grade, note, ok, problem
from daemon.health.machine import Access, Machine
from daemon.paths import Home
from daemon.views import Condition, FolderStatus, Health, PluginStatus
from jobs.errors import MlxdError
from launchd.contract import ServiceStatus, Standing
from launchd.schema import SOCKET_PATH_MAX

# Folders that macOS asks the person about before a background program may read them.
_PROTECTED_FOLDERS: Final = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")


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


def examine(
    home: Home,
    config: Config | MlxdError,
    *,
    health: Health | MlxdError | None = None,
    folders: Sequence[FolderStatus] = (),
    plugins: Sequence[PluginStatus] = (),
    find_model: Callable[[str], object] | None = None,
    service: ServiceStatus | None = None,
    machine: Machine | None = None,
) -> list[Finding]:
    """Look at everything and return a finding for each thing looked at, in the order in which to read them.

    *folders* and *plugins* are what the daemon reports, if it runs; without *folders* the configured ones are tried
    from here. *find_model* resolves a model reference and raises what is wrong with it.
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
    path = patient.home.socket
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        advice = f"Set MLXD_HOME to a shorter folder: at most {SOCKET_PATH_MAX} bytes fit."
        yield problem("socket", f"The socket's path is {length} bytes long: {path}", advice)
    else:
        yield ok("socket", f"The socket is {path} ({length} of at most {SOCKET_PATH_MAX} bytes).")


def _config(patient: Patient) -> Iterator[Finding]:
    path = patient.home.config
    if isinstance(patient.config, MlxdError):
        yield problem("config", patient.config.message, f"Correct it, then run: mlxd config check (file: {path})")
    elif path.exists():
        yield ok("config", f"{path} is in order.")
    else:
        yield ok("config", f"No configuration file; the defaults apply ({path} is where it would be).")


def _folders(patient: Patient) -> Iterator[Finding]:
    """Report what the daemon says of its folders; without a daemon try them from here."""
    if patient.folders:
        for status in patient.folders:
            if status.problem:
                yield problem("folder", f"{status.path}: {status.problem}", _folder_advice(patient, status.path))
            else:
                yield ok("folder", f"{status.path} is watched.")
        return
    if isinstance(patient.config, Config):
        for folder in patient.config.folders:
            if folder.enabled:
                yield _folder(patient, folder.path, made=folder.create)


def _folder(patient: Patient, path: Path, *, made: bool) -> Finding:
    access = patient.machine.look(path)
    if access is Access.READABLE:
        return ok("folder", f"{path} can be read (from here; the daemon is not running to be asked).")
    if access is Access.MISSING:
        if made:
            return ok("folder", f"{path} does not exist yet; the daemon makes it.")
        return problem("folder", f"{path} does not exist.", f"Make it: mkdir -p '{path}', or change the configuration.")
    if access is Access.NOT_A_FOLDER:
        return problem("folder", f"{path} is a file, not a folder.", "Move it away, or change the configuration.")
    if access is Access.BLOCKED:
        message = f"{path} gives no answer: a permission prompt may be open, or it is on a server or in a cloud."
        return problem("folder", message, _folder_advice(patient, path))
    return problem("folder", f"{path} may not be read.", _folder_advice(patient, path))


def _folder_advice(patient: Patient, path: Path) -> str:
    if patient.machine.system == "darwin" and any(f"/{name}/" in f"{path}/" for name in _PROTECTED_FOLDERS):
        return (
            "macOS protects this folder. Allow it under System Settings > Privacy & Security > Files & Folders (or "
            "Full Disk Access) for the program named there, or watch a folder outside Desktop, Documents and Downloads."
        )
    return f"Look at its permissions: ls -ld '{path}'"


def _models(patient: Patient) -> Iterator[Finding]:
    if patient.find_model is None or not isinstance(patient.config, Config):
        return
    wanted = {**patient.config.defaults.refs(), **{alias: alias for alias in patient.config.models}}
    for ref in dict.fromkeys(wanted.values()):
        try:
            patient.find_model(ref)
        except MlxdError as error:
            yield problem("model", f"{ref}: {error.message}", "")
        else:
            yield ok("model", f"{ref} is on this machine.")


def _plugins(patient: Patient) -> Iterator[Finding]:
    broken = [plugin for plugin in patient.plugins if plugin.problem]
    for plugin in broken:
        yield problem("plugin", f"Plugin {plugin.name}: {plugin.problem}", "Repair or disable it: see `mlxd plugins`.")
    if patient.plugins and not broken:
        yield ok("plugin", f"{len(patient.plugins)} plugins, all in order.")


def _service(patient: Patient) -> Iterator[Finding]:
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
    ("home", _home),
    ("socket", _socket),
    ("config", _config),
    ("folder", _folders),
    ("model", _models),
    ("plugin", _plugins),
    ("service", _service),
    ("daemon", _daemon),
)
