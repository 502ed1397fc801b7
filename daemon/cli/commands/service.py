"""`mlxd service`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from daemon.cli.console import Exit, note, write, write_json
from daemon.cli.main import Session
from jobs.errors import MlxdError, ServiceError

if TYPE_CHECKING:
    from launchd.contract import ServiceManager, ServiceStatus


@click.group(short_help="Install, start and stop mlxd as a background service.")
def service() -> None:
    """Install, start and stop mlxd as a background service: a launchd agent, or a systemd user unit on Linux."""


def _command(name: str, text: str, act: Callable[[ServiceManager], ServiceStatus]) -> None:
    @service.command(name, help=text, short_help=text)
    @click.option("--json", "as_json", is_flag=True, help="Print the service's state as JSON.")
    @click.pass_obj
    def command(session: Session, /, *, as_json: bool) -> int:
        from launchd.contract import ServiceFailure

        try:
            found = act(_manager(session))
        except ServiceFailure as error:
            raise ServiceError(str(error), code=error.code) from error
        return _tell(found, as_json=as_json, question=name == "status")


_command("install", "Start mlxd now and at every login.", lambda manager: manager.install())
_command(
    "uninstall", "Stop mlxd and remove the service; jobs, models and logs stay.", lambda manager: manager.uninstall()
)
_command("start", "Start the installed service.", lambda manager: manager.start())
_command("stop", "Stop the service until it is started or you log in again.", lambda manager: manager.stop())
_command("restart", "Stop the service, then start it.", lambda manager: manager.restart())
_command("status", "Show where the service stands; exits with 1 if it does not run.", lambda manager: manager.status())


@service.command(short_help="Show what the service printed before its own log was open.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many of the last.")
@click.pass_obj
def logs(session: Session, /, *, lines: int) -> int:
    """Show what the service printed before its own log was open; for everything else see `mlxd logs`."""
    from daemon.cli.tailing import tail

    for name in ("agent.out", "agent.err"):
        path = session.home.logs / name
        for line in tail(path, lines):
            write(line)
    note(f"The daemon's own log: mlxd logs (in {session.home.logs}).")
    return Exit.OK


def _manager(session: Session) -> ServiceManager:
    from daemon.config.model import load
    from daemon.installation import manager

    try:
        drain = load(session.home.config, home=session.home).drain_seconds
    except MlxdError as error:
        note(f"mlxd: {error.message}")
        return manager(session.home)
    return manager(session.home, drain_seconds=drain)


def _tell(found: ServiceStatus, *, as_json: bool, question: bool) -> int:
    from launchd.contract import Standing

    if as_json:
        write_json({**found._asdict(), "standing": str(found.standing)})
    else:
        write(f"{found.standing}: {found.detail}" + (f" (process {found.pid})" if found.pid else ""))
    return Exit.FAILED if question and found.standing is not Standing.RUNNING else Exit.OK
