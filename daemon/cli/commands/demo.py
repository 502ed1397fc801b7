"""`mlxd demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Play the demo with the embedded models.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Play it here, in a folder to keep.")
def demo(*, keep: Path | None) -> int:
    """Start a daemon in a folder of its own and show what it does, with the models that come with mlxd."""
    from daemon.demo import main

    return main(keep=keep.expanduser().absolute() if keep else None)
