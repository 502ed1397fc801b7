"""`mlxd jobs|show|wait|cancel|retry`."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.console import Exit, complain, exit_for_error, note, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport, job_path, pages
from jobs.errors import DaemonUnreachable, MlxdError

_STATES = ["queued", "running", "succeeded", "failed", "cancelled", "blocked", "quarantined"]


@click.command(short_help="List jobs.")
@click.option("-s", "--state", "states", multiple=True, type=click.Choice(_STATES), help="May be given again.")
@click.option("-t", "--task", help="Only jobs of this task.")
@click.option("--lane", type=click.Choice(["interactive", "normal", "batch"]))
@click.option("--source", help="cli, api, folder, schedule, retry, ...")
@click.option("--rule", help="Only jobs of this folder rule.")
@click.option("--parent", help="Only jobs that belong to or repeat this one.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def jobs(session: Session, /, *, states: tuple[str, ...], limit: int, as_json: bool, **filters: str | None) -> int:
    """List jobs, newest first."""
    found = list(pages(Transport(session.home.socket), {"state": list(states), **filters}, limit=limit))
    if as_json:
        write_json(found)
    elif not found:
        note("No jobs.")
    else:
        from daemon.cli.display import ago, table

        table(
            ["id", "task", "state", "lane", "from", "when", ""],
            [
                (
                    job["id"],
                    job["task"],
                    job["state"],
                    job["lane"],
                    job["source"]["kind"],
                    ago(job["created_at"]),
                    _gist(job),
                )
                for job in found
            ],
        )
    return Exit.OK


@click.command(short_help="Show one job.")
@click.argument("job")
@click.option("--text", "only_text", is_flag=True, help="Print the result's text and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def show(session: Session, /, *, job: str, only_text: bool, as_json: bool) -> int:
    """Show one job by its id or a unique beginning of it."""
    found = Transport(session.home.socket).ask("GET", job_path(job))
    if as_json:
        write_json(found)
    elif only_text:
        write(str((found.get("result") or {}).get("text") or ""))
    else:
        _show(found)
    return Exit.OK


@click.command(short_help="Wait for the end of jobs.")
@click.argument("jobs", nargs=-1, required=True)
@click.option("--any/--all", "first", help="Of several, wait for the first that ends; default: for all.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting (124).")
@click.option("--follow", is_flag=True, help="Print text as it comes (of one job).")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; of several, those that ended as a list.")
@click.pass_obj
def wait(
    session: Session, /, *, jobs: tuple[str, ...], first: bool, timeout: float | None, follow: bool, as_json: bool
) -> int:
    """Wait for a job's end, print its result, and exit with its status.

    Of several jobs a line is printed as each ends, and the status is that of the first that did not succeed.
    """
    transport = Transport(session.home.socket)
    found = [transport.ask("GET", job_path(job)) for job in jobs]
    if len(found) > 1:
        from daemon.cli.waiting_many import finish_many

        ids = list(dict.fromkeys(job["id"] for job in found))
        return finish_many(transport, ids, first=first, timeout=timeout, as_json=as_json)
    from daemon.cli.waiting import finish

    return finish(transport, found[0], timeout=timeout, as_json=as_json, stream=follow)


@click.command(short_help="Take jobs back.")
@click.argument("jobs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as a JSON list.")
@click.pass_obj
def cancel(session: Session, /, *, jobs: tuple[str, ...], as_json: bool) -> int:
    """Take jobs back; one that runs stops at its next step."""
    return _each(session, jobs, "cancel", as_json=as_json)


@click.command(short_help="Try jobs again.")
@click.argument("jobs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as a JSON list.")
@click.pass_obj
def retry(session: Session, /, *, jobs: tuple[str, ...], as_json: bool) -> int:
    """Release blocked or quarantined jobs; repeat ended ones as new jobs."""
    return _each(session, jobs, "retry", as_json=as_json)


def _each(session: Session, ids: tuple[str, ...], verb: str, *, as_json: bool) -> int:
    """Do the same to several jobs; one that refuses does not spare the others."""
    transport = Transport(session.home.socket)
    done: list[dict[str, Any]] = []
    status = Exit.OK
    for one in ids:
        try:
            done.append(transport.ask("POST", job_path(one, verb)))
        except DaemonUnreachable:
            raise
        except MlxdError as error:
            complain(error.message)
            status = exit_for_error(error)
            continue
        if not as_json:
            job = done[-1]
            stopping = job["state"] == "running" and job["cancel_requested"]
            write(f"{job['id']} {'stopping' if stopping else job['state']}")
    if as_json:
        write_json(done)
    return status


def _gist(job: dict[str, Any]) -> str:
    """Return the one thing worth a glance: what is wrong, how far it is, or what it works on."""
    if job["error"] and job["state"] != "succeeded":
        return _short(job["error"]["message"])
    if job["state"] == "running" and job["progress"]:
        progress = job["progress"]
        if progress["message"]:
            return _short(progress["message"])
        return (
            f"{progress['done']:.4g}"
            + (f"/{progress['total']:.4g}" if progress["total"] else "")
            + f" {progress['unit']}"
        )
    if job.get("waiting"):
        return _short(f"waiting: {job['waiting']}")
    return _short(str(job["params"].get("file") or job["params"].get("folder") or job["source"]["detail"] or ""))


def _short(text: str, limit: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _show(job: dict[str, Any]) -> None:
    from daemon.cli.display import ago, details, speed
    from daemon.cli.waiting import remarks

    progress, error = job["progress"] or {}, job["error"] or {}
    done = f"{progress.get('done', 0):.4g}" + (f" of {progress['total']:.4g}" if progress.get("total") else "")
    details(
        {
            "job": job["id"],
            "task": job["task"],
            "state": job["state"],
            "why": error.get("message"),
            "waiting": job.get("waiting"),
            "lane": job["lane"],
            "from": " ".join(filter(None, (job["source"]["kind"], job["source"]["rule"], job["source"]["detail"]))),
            "parent": job["parent"],
            "submitted": ago(job["created_at"]),
            "started": ago(job["started_at"]),
            "ended": ago(job["finished_at"]),
            "attempts": job["attempts"],
            "progress": f"{done} {progress['unit']} {progress['message']} {speed(progress)}".strip()
            if progress
            else "",
            "notes": remarks(job["result"] or {}),
            "outputs": [output["path"] for output in job["outputs"]],
        }
    )
    text = (job["result"] or {}).get("text")
    if text:
        write(f"\n{text}")
