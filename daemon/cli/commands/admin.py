"""`mlxd status|reload|stop`."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.console import Exit, note, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport


@click.command(short_help="Show the daemon at a glance.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def status(session: Session, /, *, as_json: bool) -> int:
    """Show whether the daemon runs, what it holds in memory, and what troubles it."""
    health = Transport(session.home.socket).ask("GET", "/v1/health")
    if as_json:
        write_json(health)
        return Exit.OK
    from daemon.cli.display import details, duration, size

    memory = health["memory"]
    details(
        {
            "status": health["status"],
            "version": health["version"],
            "process": health["pid"],
            "up for": duration(health["uptime_s"]),
            "home": health["home"],
            "jobs": _jobs(health),
            "resident": [model["ref"] for model in health["models"] if model["pid"]] or "no model",
            "memory": f"{size(memory['used_bytes'] or 0)} of {size(memory['budget_bytes'])} for models, "
            f"{size(memory['daemon_bytes'])} for itself{_short(memory)}",
            "lanes": [_lane(lane) for lane in health.get("lanes", ())],
            "problems": "; ".join(health["problems"]),
        }
    )
    return Exit.OK


def _jobs(health: dict[str, Any]) -> str:
    """Say how many jobs there are in each state, and how many were forgotten."""
    counts = [f"{count} {state}" for state, count in health["counts"].items() if count]
    forgotten = health.get("forgotten", 0)
    return ", ".join([*counts, *([f"{forgotten} older ones forgotten"] if forgotten else [])]) or "none"


def _short(memory: dict[str, Any]) -> str:
    """Say that memory is short, and why."""
    if memory.get("level", "normal") == "normal":
        return ""
    return f"; {memory['level']}: {memory['reason']}"


def _lane(lane: dict[str, Any]) -> str:
    """Say where a lane with conditions stands."""
    state = f"waiting: {lane['waiting']}" if lane["waiting"] else "nothing held back"
    unread = f" (cannot be checked here: {', '.join(lane['unread'])})" if lane["unread"] else ""
    return f"{lane['lane']}: {state}{unread}"


@click.command(short_help="Make the daemon read its configuration again.")
@click.option("--json", "as_json", is_flag=True, help="Print what changed as JSON.")
@click.pass_obj
def reload(session: Session, /, *, as_json: bool) -> int:
    """Make the daemon read its configuration and its plugins again."""
    report = Transport(session.home.socket).ask("POST", "/v1/reload")
    if as_json:
        write_json(report)
        return Exit.OK
    note(f"Changed: {', '.join(report['changed']) or 'nothing'}.")
    if report["needs_restart"]:
        note(f"In use only after a restart: {', '.join(report['needs_restart'])}.")
    return Exit.OK


@click.command(short_help="Make the daemon finish and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_obj
def stop(session: Session, /, *, as_json: bool) -> int:
    """Make the daemon take no new jobs, let running ones end or step aside, and stop.

    An installed service is stopped with `mlxd service stop`.
    """
    answer = Transport(session.home.socket).ask("POST", "/v1/shutdown")
    if as_json:
        write_json(answer)
    else:
        note("mlxd is stopping.")
    return Exit.OK
