"""`mlxd schedule`."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from daemon.cli.console import Exit, note, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport

_EXAMPLES = """
\b
mlxd schedule add nightly batch ~/prompts --cron "0 3 * * *" --param only_new=true --output ~/answers
mlxd schedule add hourly generate "Say something kind." --every 1h --catch-up skip
mlxd schedule show nightly
mlxd schedule next nightly
mlxd schedule backfill nightly --from 2026-11-01 --to 2026-11-08
"""
_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_name = click.argument("name")


def _path(name: str, *rest: str) -> str:
    return "/".join(["/v1/schedules", quote(name, safe=""), *rest])


def _shown(moment: str | None, zone: str) -> str:
    """Return an ISO time for people, as the clocks of *zone* show it."""
    if not moment:
        return ""
    try:
        clocks: tzinfo | None = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):  # a zone without a name, or one that only the daemon knows
        clocks = None
    return datetime.fromisoformat(moment).astimezone(clocks).strftime("%a %Y-%m-%d %H:%M:%S %Z")


@click.group(invoke_without_command=True, short_help="Jobs that come at their time.", epilog=_EXAMPLES)
@click.pass_context
def schedule(ctx: click.Context) -> int | None:
    """Jobs that come at their time: list, add, try, pause and remove schedules; without a command, list them."""
    return ctx.invoke(list_schedules) if ctx.invoked_subcommand is None else None


@schedule.command("list")
@_json
@click.pass_obj
def list_schedules(session: Session, /, *, as_json: bool = False) -> int:
    """List the schedules."""
    found = Transport(session.home.socket).ask("GET", "/v1/schedules")["schedules"]
    if as_json:
        write_json(found)
    elif not found:
        note("There is no schedule. `mlxd schedule add --help` shows how to make one.")
    else:
        from daemon.cli.display import table

        table(["schedule", "when", "task", "state", "next", "last job", ""], [_row(one) for one in found])
    return Exit.OK


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    last = (one["last"] or {}).get("job", "")
    return (
        one["name"],
        one["when"],
        one["task"],
        one["state"],
        _shown(one["due_at"], one["timezone"]),
        last,
        one["problem"] or "",
    )


@schedule.command(epilog=_EXAMPLES)
@_name
@click.argument("task")
@click.argument("input", required=False, metavar="[FILE|FOLDER|TEXT]")
@click.option("--cron", help='Minute, hour, day of month, month, day of week ("0 3 * * MON-FRI"), or @daily.')
@click.option("--every", help='Time between two jobs: "90s", "15m", "1h30m", "1d".')
@click.option("--at", help='One time: "2027-01-31T08:00".')
@click.option("--timezone", metavar="ZONE", help="Whose clocks count: Europe/Berlin. Default: this machine's.")
@click.option("--jitter", help="Put each time off by up to this much.")
@click.option("--catch-up", type=click.Choice(["skip", "once", "all"]), help="What becomes of missed times. [once]")
@click.option("--catch-up-window", metavar="TIME", help="What was missed longer ago is left. [31d]")
@click.option("--limit", type=int, help="Most jobs of --catch-up all. [10]")
@click.option(
    "--overlap", type=click.Choice(["skip", "queue", "cancel-running"]), help="When the job before goes on. [skip]"
)
@click.option("-m", "--model", help="Model: an alias, demo:lm, a folder, or a hub id.")
@click.option("--param", "pairs", multiple=True, metavar="KEY=VALUE", help="Any parameter; the value is JSON or text.")
@click.option("--params", "params_json", metavar="JSON", help="Parameters as a JSON object, or @FILE.")
@click.option("--lane", type=click.Choice(["interactive", "normal", "batch"]), help="Default: batch.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher runs first within its lane.")
@click.option("-o", "--output", metavar="DIR", help="Put result files here. Default: results/schedule-NAME.")
@_json
@click.pass_obj
def add(session: Session, /, *, as_json: bool, **options: Any) -> int:
    """Add the schedule NAME, which runs TASK; exactly one of --cron, --every and --at says when."""
    added = Transport(session.home.socket).ask("POST", "/v1/schedules", body=_definition(session, options))
    if as_json:
        write_json(added)
    else:
        write(f"{added['name']}: next {_shown(added['due_at'], added['timezone'])}")
    return Exit.OK


def _definition(session: Session, options: dict[str, Any]) -> dict[str, Any]:
    from daemon.cli.asking import Asked, build

    if options["input"] == "-":
        raise click.BadArgumentUsage("A schedule cannot read standard input: it would be gone by the next time.")
    asked = Asked(**{name: options.pop(name) for name in Asked.names() if name in options and name != "priority"})
    body = build(asked, cache=session.home.cache, waiting=False)
    said = {key: value for key, value in options.items() if value is not None}
    if asked.lane is not None:
        said["lane"] = asked.lane
    if "directory" in body["placement"]:
        said["output"] = body["placement"]["directory"]
    return {**said, "task": asked.task, "params": body["params"]}


@schedule.command()
@_name
@_json
@click.pass_obj
def show(session: Session, /, *, name: str, as_json: bool) -> int:
    """Show a schedule: what comes, what came, and what was missed and why."""
    found = Transport(session.home.socket).ask("GET", _path(name))
    if as_json:
        write_json(found)
        return Exit.OK
    from daemon.cli.display import details

    said = found["definition"] or {}
    details(
        {
            "schedule": found["name"],
            "state": found["state"],
            "problem": found["problem"],
            "when": f"{found['when']} ({found['timezone']})",
            "task": found["task"],
            "params": said.get("params") or None,
            "lane": said.get("lane"),
            "output": said.get("output"),
            "catch up": said.get("catch_up"),
            "overlap": said.get("overlap"),
            "defined": "in the configuration" if found["origin"] == "config" else "at run time",
        }
    )
    _histories(found)
    return Exit.OK


def _histories(found: dict[str, Any]) -> None:
    from daemon.cli.display import table

    zone = found["timezone"]
    if found["upcoming"]:
        write("")
        table(["next"], [(_shown(time, zone),) for time in found["upcoming"]])
    if found["fires"]:
        write("")
        table(
            ["time", "how", "job"],
            [(_shown(one["at"], zone), one["kind"], one["job"] or "waits for its turn") for one in found["fires"]],
        )
    if found["missed"]:
        write("")
        table(
            ["missed", "times", "why"],
            [(_missed(one["first"], one["last"], zone), one["count"], one["reason"]) for one in found["missed"]],
        )


def _missed(first: str, last: str, zone: str) -> str:
    return _shown(first, zone) if first == last else f"{_shown(first, zone)} to {_shown(last, zone)}"


@schedule.command()
@_name
@_json
@click.pass_obj
def pause(session: Session, /, *, name: str, as_json: bool) -> int:
    """Let a schedule rest; what passes meanwhile is not caught up."""
    return _told(Transport(session.home.socket).ask("POST", _path(name, "pause")), "rests", as_json=as_json)


@schedule.command()
@_name
@_json
@click.pass_obj
def resume(session: Session, /, *, name: str, as_json: bool) -> int:
    """Let a schedule go on, with its next time from now."""
    status = Transport(session.home.socket).ask("POST", _path(name, "resume"))
    return _told(status, f"next {_shown(status['due_at'], status['timezone'])}", as_json=as_json)


def _told(status: dict[str, Any], text: str, *, as_json: bool) -> int:
    write_json(status) if as_json else note(f"{status['name']}: {text}.")
    return Exit.OK


@schedule.command()
@_name
@_json
@click.pass_obj
def run(session: Session, /, *, name: str, as_json: bool) -> int:
    """Make the schedule's job now, whatever else goes on; its times stay as they are."""
    job = Transport(session.home.socket).ask("POST", _path(name, "run"))
    write_json(job) if as_json else write(job["id"])
    return Exit.OK


@schedule.command()
@_name
@_json
@click.pass_obj
def remove(session: Session, /, *, name: str, as_json: bool) -> int:
    """Forget a schedule that was added, and its history; its jobs stay."""
    Transport(session.home.socket).ask("DELETE", _path(name))
    write_json({"removed": name}) if as_json else note(f"{name} is removed.")
    return Exit.OK


@schedule.command("next")
@_name
@click.argument("count", type=click.IntRange(1, 100), default=5)
@_json
@click.pass_obj
def upcoming(session: Session, /, *, name: str, count: int, as_json: bool) -> int:
    """Show the next COUNT times (5), jitter included."""
    answer = Transport(session.home.socket).ask("GET", _path(name, "next"), query={"count": count})
    times = answer["times"]
    if as_json:
        write_json(times)
    elif not times:
        note("No time is left.")
    else:
        for time in times:
            write(_shown(time, answer["timezone"]))
    return Exit.OK


@schedule.command()
@_name
@click.option("--from", "start", required=True, metavar="TIME", help="2026-11-01, or 2026-11-01T08:00.")
@click.option("--to", "end", metavar="TIME", help="Default: now.")
@_json
@click.pass_obj
def backfill(session: Session, /, *, name: str, start: str, end: str | None, as_json: bool) -> int:
    """Make the jobs of past times that did not become any, one after the other."""
    span = {"start": _moment(start), "end": _moment(end) if end else datetime.now().astimezone().isoformat()}
    answer = Transport(session.home.socket).ask("POST", _path(name, "backfill"), body=span)
    if as_json:
        write_json(answer)
    else:
        note(f"{answer['inserted']} to do, {answer['known']} were done before.")
    return Exit.OK


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time; write 2026-11-01 or 2026-11-01T08:00.") from error
