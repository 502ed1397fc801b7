"""`mlxd revert`."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.console import Exit, complain, note, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport, job_path

#: Seconds that moving a job's files back may take.
_PATIENCE = 300.0


@click.command(short_help="Take a job back: its input returns, its outputs go to the trash.")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print what came of each file as JSON.")
@click.pass_obj
def revert(session: Session, /, *, job: str, as_json: bool) -> int:
    """Bring the job's input back to where it was and put its results into the trash.

    What has changed since is left alone, with the reason. The file is not done again by itself: `mlxd retry` does that.
    """
    found = Transport(session.home.socket).ask("POST", job_path(job, "revert"), patience=_PATIENCE)
    if as_json:
        write_json(found)
    else:
        _show(found)
    return Exit.FAILED if found["kept"] else Exit.OK


def _show(found: dict[str, Any]) -> None:
    if found["already"]:
        note(f"Job {found['job']} was taken back before.")
    if found["input"] and found["input"]["now"]:
        write(f"back      {found['input']['now']}")
    for one in found["trashed"]:
        write(f"trashed   {one['path']} -> {one['now']}")
    for one in found["kept"]:
        complain(f"{one['path']} was left alone: {one['why']}.")
