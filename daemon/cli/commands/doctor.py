"""`mlxd doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from daemon.cli.console import Exit, note, write_json
from daemon.cli.main import Session

if TYPE_CHECKING:
    from daemon.health.findings import Finding
    from daemon.paths import Home


@click.command(short_help="Find out what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
@click.pass_obj
def doctor(session: Session, /, *, as_json: bool) -> int:
    """Look at everything mlxd needs and say what is wrong and what to do; exit with 1 if something is.

    A running daemon looks by itself, because its permissions are the ones that count.
    """
    from daemon.health.doctor import healthy

    findings = _examine(session.home)
    if as_json:
        write_json([finding.model_dump(mode="json") for finding in findings])
    else:
        _draw(findings)
    return Exit.OK if healthy(findings) else Exit.FAILED


def _examine(home: Home) -> list[Finding]:
    """Let the daemon examine itself; without one, look from here and say that this is something else."""
    from daemon.cli.client import Client
    from daemon.health.findings import note as remark
    from daemon.health.findings import ok
    from daemon.health.inside import examine_all
    from jobs.errors import MlxdError

    try:
        client = Client(home.socket)
        client.health()  # who does not even answer this is not waited for as long as an examination may take
        found = client.doctor()
    except MlxdError as error:
        said = (
            "Examined from this terminal, for no daemon answered. What a terminal may read proves little about a "
            "service, above all on a Mac."
        )
        advice = "Start the daemon (mlxd run, or mlxd service start), then ask again."
        return [remark("context", said, advice), *examine_all(home, {"health": error}, inside=False)]
    return [ok("context", "Examined by the daemon, with the permissions that count."), *found]


def _draw(findings: list[Finding]) -> None:
    from daemon.cli.display import table

    table(["", "what", "found"], [(str(one.grade), one.check, one.message) for one in findings])
    for one in findings:
        if one.advice:
            note(f"\n{one.check}: {one.message}\n  {one.advice}")
