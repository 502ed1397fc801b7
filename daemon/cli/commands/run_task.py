"""`mlxd run-task`: the one command that Shortcuts, Automator, Raycast, Alfred, Hazel and cron call."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from daemon.cli.console import Exit, complain, exit_for_error, exit_for_job, note, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport
from daemon.cli.waiting import Screen, watch
from jobs.errors import DaemonUnreachable, MlxdError

#: Escape sequences (colours, titles), and every other control character but tab and newline.
_CONTROL: Final = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[@-Z\\\\^_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Outcome(NamedTuple):
    """What came of one input."""

    input: Path | None
    #: The job as it ended, or None if it was refused.
    job: dict[str, Any] | None
    status: int
    #: Why it did not succeed.
    complaint: str = ""

    @property
    def text(self) -> str:
        """The result: what the task said, or where it wrote."""
        said = clean(str(((self.job or {}).get("result") or {}).get("text") or ""))
        return said or "\n".join(self.paths)

    @property
    def paths(self) -> list[str]:
        """The files written."""
        return [str(output["path"]) for output in (self.job or {}).get("outputs", [])]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        job = self.job or {}
        return {
            "input": None if self.input is None else str(self.input),
            "job": job.get("id"),
            "state": job.get("state", "refused"),
            "text": self.text,
            "outputs": self.paths,
            "error": self.complaint or None,
        }


@click.command("run-task", short_help="Run a task on files or text and print only its result.")
@click.argument("task")
@click.argument("files", nargs=-1, metavar="[FILES]...|-")
@click.option("--param", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter; the value may be JSON.")
@click.option("--params", "params_json", metavar="JSON", help="Parameters as a JSON object, or @FILE.")
@click.option("-m", "--model", help="Model reference or alias.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting (124); the job goes on.")
@click.option("--wait/--no-wait", default=True, help="Wait for the result (default), or print the job's id.")
@click.option("-o", "--output", metavar="DIR", help="Put result files here; - (default): only print the result.")
@click.option("--beside", is_flag=True, help="Put result files beside each input.")
@click.option("--print", "what", type=click.Choice(["text", "paths"]), default="text", help="What to print.")
@click.option("--lane", type=click.Choice(["interactive", "normal", "batch"]), help="Default: by task and --wait.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all results.")
@click.pass_obj
def run_task(session: Session, /, *, files: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Run TASK on each of FILES, or on the text on standard input, and print the result and nothing else.

    For Shortcuts, Automator, Raycast, Alfred, Hazel and cron. Standard input is read if no file is given and it is no
    terminal, or for -. Results come in the order of the files, as UTF-8 with one newline at the end; everything else is
    said on standard error, and every failure is one sentence there and a status other than 0. The daemon has to run;
    nothing is started.
    """
    _speak_utf8()
    from daemon.cli.asking import Asked
    from daemon.cli.handing import hand_over

    output = None if options["output"] == "-" else options["output"]
    if options["beside"] and output is not None:
        raise click.UsageError("--beside and --output exclude each other.")
    named = {name: options[name] for name in ("task", "pairs", "params_json", "model", "lane")}
    asked = Asked(**named, output=output)
    transport = Transport(session.home.socket)
    jobs = hand_over(asked, files, beside=options["beside"], waiting=options["wait"], cache=session.home.cache)
    submitted: list[Outcome] = []
    for one in jobs:
        submitted.append(_submit(transport, one.input, one.body, first=not submitted))
    if options["wait"]:
        submitted = _wait(transport, submitted, options["timeout"])
    return _report(submitted, what=options["what"] if options["wait"] else "ids", as_json=as_json)


def clean(text: str) -> str:
    """Return *text* without escape sequences, control characters and newlines at the end."""
    return _CONTROL.sub("", text.replace("\r\n", "\n")).rstrip("\n")


def _speak_utf8() -> None:
    """Say UTF-8 whatever the locale is; Automator and cron set none."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")


def _submit(transport: Transport, source: Path | None, body: dict[str, Any], *, first: bool) -> Outcome:
    try:
        return Outcome(source, transport.ask("POST", "/v1/jobs", body=body), Exit.OK)
    except MlxdError as error:
        # Nobody there, and nothing begun: one sentence for all of the files.
        if first and isinstance(error, DaemonUnreachable):
            raise
        return Outcome(source, None, exit_for_error(error), error.message)


def _wait(transport: Transport, submitted: Sequence[Outcome], timeout: float | None) -> list[Outcome]:
    """Wait for every job, in order; one that fails does not spare the others."""
    deadline = None if timeout is None else time.monotonic() + timeout
    done = []
    try:
        for one in submitted:
            if one.job is None:
                done.append(one)
                continue
            try:
                with _screen() as screen:
                    done.append(_ended(one.input, watch(transport, one.job, screen, deadline=deadline), timeout))
            except MlxdError as error:  # the daemon has stopped; what it acknowledged it keeps
                told = f"{error.message} The job is kept; then wait for it: mlxd wait {one.job['id']}"
                done.append(Outcome(one.input, one.job, exit_for_error(error), told))
    except KeyboardInterrupt:
        left = " ".join(str(one.job["id"]) for one in submitted[len(done) :] if one.job)
        note(f"\nThe jobs go on. Stop them: mlxd cancel {left}")
        raise
    return done


def _ended(source: Path | None, job: dict[str, Any], timeout: float | None) -> Outcome:
    status = exit_for_job(job)
    if status == Exit.OK:
        return Outcome(source, job, status)
    if status == Exit.TIMEOUT:
        told = f"not done after {timeout:g} s; it goes on. Wait for it: mlxd wait {job['id']}"
    else:
        told = (job.get("error") or {}).get("message") or f"The job is {job['state']}: mlxd show {job['id']}"
    return Outcome(source, job, status, told)


def _screen() -> Screen:
    if not sys.stderr.isatty():
        return Screen()
    from daemon.cli.display import Bar

    return Bar()


def _report(outcomes: Sequence[Outcome], *, what: str, as_json: bool) -> int:
    """Print results and complaints; return the first status that is not 0."""
    if as_json:
        write_json({"ok": not any(one.status for one in outcomes), "results": [one.as_json() for one in outcomes]})
    else:
        _print(_printed(one, what) for one in outcomes if not one.status)
    for one in outcomes:
        if one.complaint:
            about = f"{one.input.name}: " if one.input is not None and len(outcomes) > 1 else ""
            complain(about + " ".join(one.complaint.split()))
    return next((int(one.status) for one in outcomes if one.status), int(Exit.OK))


def _printed(one: Outcome, what: str) -> str:
    if what == "ids":
        return str((one.job or {}).get("id"))
    return "\n".join(one.paths) if what == "paths" else one.text


def _print(texts: Iterable[str]) -> None:
    if text := "\n".join(one for one in texts if one):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
