"""`mlxd run`."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import click

from daemon.cli.main import Session


@click.command(short_help="Run the daemon here, in the foreground.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file; default: the home's.")
@click.option("--supervised", is_flag=True, hidden=True, help="launchd or systemd started us.")
@click.pass_obj
def run(session: Session, /, *, config: Path | None, supervised: bool) -> int:
    """Run the daemon here until Ctrl-C or TERM; HUP makes it read its configuration again.

    For a daemon in the background that is there after a login, see `mlxd service install`.
    """
    started = time.monotonic()
    # Everything imported at the start stays for ever: looking through it for garbage takes a tenth of the start.
    gc.disable()
    from daemon import process

    return process.run(
        session.home,
        config_path=config.expanduser().absolute() if config else None,
        foreground=not supervised,
        supervised=supervised,
        started=started,
    )
