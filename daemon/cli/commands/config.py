"""`mlxd config`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.console import Exit, note, write, write_json
from daemon.cli.main import Session

if TYPE_CHECKING:
    from daemon.config.model import Config


@click.group(short_help="Check or show the configuration.")
def config() -> None:
    """Check or show the configuration."""


@config.command()
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Another file than the home's.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.pass_obj
def check(session: Session, /, *, file: Path | None, as_json: bool) -> int:
    """Check the file; every mistake is named with its key, what it has and what it wants."""
    from daemon.config.model import load
    from jobs.errors import ConfigError

    path = file or session.home.config
    try:
        loaded = load(path, home=session.home)
    except ConfigError as error:
        if not as_json:
            raise
        write_json({"ok": False, "path": str(path), "message": error.message, **error.facts})
        return Exit.FAILED
    warnings = _warnings(session, loaded)
    if as_json:
        write_json({"ok": True, "path": str(path), "exists": path.exists(), "warnings": warnings})
        return Exit.OK
    for warning in warnings:
        note(f"{path}: {warning}")
    if path.exists():
        note(f"{path} is in order.")
    else:
        note(f"There is no {path}: the defaults apply.")
    return Exit.OK


def _warnings(session: Session, config: Config) -> list[str]:
    """Return what is no mistake of the file, but will not work with the plugins that are here now."""
    from daemon.config.check import unknown_names
    from plugins.manager import PluginManager

    plugins = PluginManager(
        files=session.home.plugins, entry_points=config.plugins.entry_points, disabled=config.plugins.disabled
    )
    plugins.load()
    return unknown_names(config, tasks=plugins.tasks, runtimes=plugins.runtimes)


@config.command()
@click.option("--running", is_flag=True, help="What the daemon uses, instead of what the file says.")
@click.option("--origins", is_flag=True, help="Only the keys that are set, and by which file or variable.")
@click.option("--json", "as_json", is_flag=True, help="The same: it is always JSON.")
@click.pass_obj
def show(session: Session, /, *, running: bool, origins: bool, as_json: bool) -> int:  # noqa: ARG001 - for symmetry
    """Print the whole configuration, defaults included, as JSON."""
    if origins:
        from daemon.config import check as checks

        write_json(checks.origins(session.home.config, os.environ))
    elif running:
        from daemon.cli.transport import Transport

        write_json(Transport(session.home.socket).ask("GET", "/v1/config"))
    else:
        from daemon.config.model import load
        from daemon.config.withheld import without_secrets

        write_json(without_secrets(load(session.home.config, home=session.home).model_dump(mode="json")))
    return Exit.OK


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print every path of this home as JSON.")
@click.pass_obj
def path(session: Session, /, *, as_json: bool) -> int:
    """Print where the configuration file is, or would be."""
    if as_json:
        names = ("config", "state", "logs", "cache", "results", "plugins", "inbox", "socket", "token", "ledger")
        write_json({name: str(getattr(session.home, name)) for name in names})
    else:
        write(str(session.home.config))
    return Exit.OK
