"""`mlxd logs`."""

from __future__ import annotations

import itertools

import click

from daemon.cli.console import Exit, note, write
from daemon.cli.main import Session


@click.command(short_help="Show the daemon's log.")
@click.argument("job", required=False)
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many of the last.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are, one JSON object a line.")
@click.pass_obj
def logs(session: Session, /, *, job: str | None, lines: int, follow: bool, as_json: bool) -> int:
    """Show the daemon's log, or what it says about JOB. The log never holds prompts or results."""
    from daemon.cli import tailing
    from daemon.log import log_file, render

    path = log_file(session.home)
    if not path.exists() and not follow:
        note(f"There is no log yet at {path}.")
        return Exit.OK
    past = tailing.tail(path, lines, about=job or "")
    if job and not past:
        note(f"The log {path} says nothing about {job}.")
    more = tailing.follow(path, about=job or "") if follow else iter(())
    for line in itertools.chain(past, more):
        write(line if as_json else render(line))
    return Exit.OK
