"""`mlxd plugins`."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.console import Exit, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport


@click.command(short_help="List plugins and the tasks they offer.")
@click.option("--tasks", is_flag=True, help="List tasks with their parameters instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def plugins(session: Session, /, *, tasks: bool, as_json: bool) -> int:
    """List plugins, broken ones with the reason, and the tasks they offer."""
    what = "tasks" if tasks else "plugins"
    found = Transport(session.home.socket).ask("GET", f"/v1/{what}")[what]
    if as_json:
        write_json(found)
    elif tasks:
        _show_tasks(found)
    else:
        from daemon.cli.display import table

        table(
            ["plugin", "kind", "tasks", "runtimes", ""],
            [(one["name"], one["kind"], one["tasks"], one["runtimes"], one["problem"] or "") for one in found],
        )
    return Exit.OK


def _show_tasks(tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        write(f"{task['name']}: {task['summary']}")
        required = task["params"].get("required", [])
        for name, schema in task["params"].get("properties", {}).items():
            told = schema.get("description", schema.get("title", ""))
            write(f"    {name}{' (required)' if name in required else ''}  {told}")
