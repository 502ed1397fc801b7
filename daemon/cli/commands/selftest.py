"""`mlxd selftest`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from daemon.cli.console import Exit, note, write_json
from daemon.cli.main import Session


@click.command(short_help="Check on this machine what mlxd relies on.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as a JSON list.")
@click.pass_obj
def selftest(session: Session, /, *, as_json: bool) -> int:
    """Check what docs/mac-checklist.md lists, as far as a program can; exit with 1 if something failed.

    Nothing is installed or changed. On Linux the checks that need a Mac say so, and the others are made.
    """
    from daemon.cli.client import Client
    from daemon.installation import program
    from daemon.selftest import Bench, passed
    from daemon.selftest import selftest as make_checks
    from launchd.receipts import Receipts

    receipts = Receipts(session.home.state / "shortcuts.json").all()
    bench = Bench(
        home=session.home,
        program=program(Path(sys.executable)),
        health=Client(session.home.socket).health,
        installed={one.name: one.path for one in receipts},
        uid=os.getuid(),
    )
    checks = make_checks(bench)
    if as_json:
        write_json([check.model_dump(mode="json") for check in checks])
    else:
        from daemon.cli.display import table

        table(["id", "", "what", "found"], [(one.id, str(one.result), one.what, one.detail) for one in checks])
        failed = [one.id for one in checks if one.result == "failed"]
        note(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    return Exit.OK if passed(checks) else Exit.FAILED
