"""`mlxd config`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.console import Exit, note, write, write_json
from daemon.cli.main import Session


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
        load(path, home=session.home)
    except ConfigError as error:
        if not as_json:
            raise
        write_json({"ok": False, "path": str(path), "message": error.message, **error.facts})
        return Exit.FAILED
    if as_json:
        write_json({"ok": True, "path": str(path), "exists": path.exists()})
    elif path.exists():
        note(f"{path} is in order.")
    else:
        note(f"There is no {path}: the defaults apply.")
    return Exit.OK


@config.command()
@click.option("--running", is_flag=True, help="What the daemon uses, instead of what the file says.")
@click.pass_obj
def show(session: Session, /, *, running: bool) -> int:
    """Print the whole configuration, defaults included, as JSON."""
    if running:
        from daemon.cli.transport import Transport

        write_json(Transport(session.home.socket).ask("GET", "/v1/config"))
    else:
        from daemon.config.model import load

        write_json(load(session.home.config, home=session.home).model_dump(mode="json"))
    return Exit.OK


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print every path of this home as JSON.")
@click.pass_obj
def path(session: Session, /, *, as_json: bool) -> int:
    """Print where the configuration file is, or would be."""
    if as_json:
        names = ("config", "state", "logs", "cache", "results", "plugins", "inbox", "socket", "ledger")
        write_json({name: str(getattr(session.home, name)) for name in names})
    else:
        write(str(session.home.config))
    return Exit.OK
