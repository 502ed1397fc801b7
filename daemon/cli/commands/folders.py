"""`mlxd folders`."""

from __future__ import annotations

import click

from daemon.cli.console import Exit, absolute, note, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport

#: Seconds that looking through all folders may take.
_PATIENCE = 300.0


@click.group(
    invoke_without_command=True,
    short_help="List, try out, pause and resume the watched folders, or look through them now.",
)
@click.option("--json", "as_json", is_flag=True, help="Without a command: print a JSON list.")
@click.pass_context
def folders(ctx: click.Context, *, as_json: bool) -> int | None:
    """List, try out, pause and resume the watched folders; without a command, list them."""
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
            ["folder", "state", "rules", "events", "waiting", "taken", "in cloud", ""],
            [
                (
                    folder["path"],
                    folder["state"],
                    folder["rules"],
                    folder["events"],
                    folder["waiting"],
                    folder["taken"],
                    folder["cloud_pending"] or "",
                    folder["problem"] or "",
                )
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


@folders.command()
@click.argument("path")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Most files listed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_obj
def test(session: Session, /, *, path: str, limit: int, as_json: bool) -> int:
    """Tell what would become of a file, or of all files in a watched folder, and why. Nothing is written.

    Example: mlxd folders test ~/mlxd/inbox
    """
    wanted = {"path": str(absolute(path)), "limit": limit}
    found = Transport(session.home.socket).ask("POST", "/v1/folders/test", body=wanted, patience=_PATIENCE)
    if as_json:
        write_json(found)
    else:
        from daemon.cli.dry_run import show

        show(found)
    return Exit.OK


@folders.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print the folder as JSON.")
@click.pass_obj
def pause(session: Session, /, *, path: str, as_json: bool) -> int:
    """Take nothing more of a watched folder, also after a restart; jobs that were made of its files go on."""
    return _tell(session, "pause", path, as_json=as_json)


@folders.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print the folder as JSON.")
@click.pass_obj
def resume(session: Session, /, *, path: str, as_json: bool) -> int:
    """Go on with a paused folder; what has gathered in it is taken."""
    return _tell(session, "resume", path, as_json=as_json)


def _tell(session: Session, verb: str, path: str, *, as_json: bool) -> int:
    found = Transport(session.home.socket).ask("POST", f"/v1/folders/{verb}", body={"path": str(absolute(path))})
    if as_json:
        write_json(found)
    else:
        note(f"{found['path']} is {'paused' if verb == 'pause' else 'watched again'}.")
    return Exit.OK
