"""`mlxd folders`."""

from __future__ import annotations

import click

from daemon.cli.console import Exit, note, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport

#: Seconds that looking through all folders may take.
_PATIENCE = 300.0


@click.group(invoke_without_command=True, short_help="List the watched folders, or look through them now.")
@click.option("--json", "as_json", is_flag=True, help="Without a command: print a JSON list.")
@click.pass_context
def folders(ctx: click.Context, *, as_json: bool) -> int | None:
    """List the watched folders, or look through them now; without a command, list them."""
    return ctx.invoke(list_folders, as_json=as_json) if ctx.invoked_subcommand is None else None


@folders.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def list_folders(session: Session, /, *, as_json: bool = False) -> int:
    """List the watched folders."""
    found = Transport(session.home.socket).ask("GET", "/v1/folders")["folders"]
    if as_json:
        write_json(found)
    elif not found:
        note("No folder is watched.")
    else:
        from daemon.cli.display import table

        table(
            ["folder", "rules", "settling", "taken", ""],
            [
                (folder["path"], folder["rules"], folder["waiting"], folder["taken"], folder["problem"] or "")
                for folder in found
            ],
        )
    return Exit.OK


@folders.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_obj
def rescan(session: Session, /, *, as_json: bool) -> int:
    """Look through all watched folders now."""
    answer = Transport(session.home.socket).ask("POST", "/v1/folders/rescan", patience=_PATIENCE)
    if as_json:
        write_json(answer)
    else:
        note(f"{answer['files']} new file{'' if answer['files'] == 1 else 's'}.")
    return Exit.OK
