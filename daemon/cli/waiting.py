"""Waiting for a job at the command line: events in, a picture on standard error, the result on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Self

from daemon.cli.console import Exit, complain, exit_for_job, note, write, write_json
from daemon.cli.transport import PATIENCE, Transport, job_path
from jobs.errors import DaemonUnreachable

_SETTLED: Final = frozenset({"succeeded", "failed", "cancelled", "blocked", "quarantined"})
#: Seconds that one request waits, when there are no events to wait with.
_PIECE: Final = 60.0
#: Lines about outputs, at most: a folder may have thousands.
_MOST_PATHS: Final = 12


def finish(
    transport: Transport, job: dict[str, Any], *, timeout: float | None, as_json: bool, stream: bool = False
) -> int:
    """Wait for *job*, print its result, and return the exit status.

    *timeout* is in seconds. *stream* prints text as it comes; on a terminal that is done anyway. Ctrl-C ends the
    waiting and not the job.
    """
    screen = _screen(as_json=as_json, stream=stream)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with screen:
            job = watch(transport, job, screen, deadline=deadline)
    except KeyboardInterrupt:
        note(f"\nJob {job['id']} goes on. Wait for it: mlxd wait {job['id']}   Stop it: mlxd cancel {job['id']}")
        return Exit.INTERRUPTED
    except DaemonUnreachable:
        note(f"Job {job['id']} is not lost: it goes on when mlxd runs again. Wait for it: mlxd wait {job['id']}")
        raise
    if as_json:
        write_json(job)
    else:
        report(job, printed=screen.printed)
    return exit_for_job(job)


def watch(transport: Transport, job: dict[str, Any], screen: Screen, *, deadline: float | None) -> dict[str, Any]:
    """Follow *job* until it is settled or `time.monotonic` passes *deadline*; return it as it is then."""
    try:
        for kind, data in transport.events(job_path(job["id"], "events"), deadline=deadline):
            screen.see(kind, data)
            if kind == "state":
                job = data
                if job["state"] in _SETTLED:
                    return job
    except TimeoutError:
        return dict(transport.ask("GET", job_path(job["id"])))
    return ended(transport, job["id"], deadline)


def report(job: dict[str, Any], *, printed: str = "") -> None:
    """Print what came of *job*: its text on standard output, everything else on standard error.

    *printed* is the text that is on standard output already.
    """
    if job["state"] == "succeeded":
        text = str((job.get("result") or {}).get("text") or "")
        if text and not (printed and text.startswith(printed)):
            write(("\n" if printed else "") + text)
        elif text:
            write(text[len(printed) :])
        for call in calls(job.get("result") or {}):
            write(call)
        for remark in remarks(job.get("result") or {}):
            note(f"note: {remark}")
        for line in _wrote(job):
            note(line)
        if sys.stderr.isatty() and (told := pace(job.get("result") or {})):
            note(told)
        return
    if printed:
        write("")
    error = job.get("error") or {}
    waiting = f"Waiting: {job['waiting']}." if job.get("waiting") else "It has not ended yet."
    sentence = error.get("message") or {"cancelled": "It was cancelled."}.get(job["state"], waiting)
    complain(f"job {job['id']} is {job['state']}: {sentence}")


def _wrote(job: Mapping[str, Any]) -> list[str]:
    """Return a line for each output; of very many the first ones and the last, which is a batch's manifest."""
    paths = [output["path"] for output in job["outputs"]]
    if len(paths) <= _MOST_PATHS:
        return [f"wrote {path}" for path in paths]
    first, left = paths[: _MOST_PATHS - 2], len(paths) - _MOST_PATHS + 1
    return [*(f"wrote {path}" for path in first), f"... {left} more: mlxd show {job['id']}", f"wrote {paths[-1]}"]


def calls(result: dict[str, Any]) -> list[str]:
    """Return the tool calls of a result, each as a line of JSON: ``{"name": ..., "arguments": {...}}``."""
    made = result.get("tool_calls")
    functions = [one.get("function") for one in made if isinstance(one, dict)] if isinstance(made, list) else []
    return [json.dumps(one, ensure_ascii=False) for one in functions]


def remarks(result: dict[str, Any]) -> list[str]:
    """Return what a person should know of a result that is not all it might be, its steps' results included."""
    parts = [result, *(step for step in result.get("steps") or () if isinstance(step, dict))]
    return [str(remark) for part in parts if isinstance(part.get("notes"), list) for remark in part["notes"]]


def pace(result: dict[str, Any]) -> str:
    """Return how fast a result came: tokens a second, or the multiple of real time; empty if it does not say."""
    said = []
    if tokens := result.get("completion_tokens"):
        said.append(f"{tokens} tokens")
    if rate := result.get("tokens_per_second"):
        said.append(f"{rate:.0f} tokens/s")
    if factor := result.get("realtime_factor"):
        said.append(f"{factor:.1f}x real time")
    return ", ".join(said)


class Screen:
    """Shows nothing; `Typing` and `daemon.cli.display.Bar` show something."""

    #: What went to standard output as it came.
    printed = ""

    def see(self, kind: str, data: dict[str, Any]) -> None:
        """Take one event."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""


class Typing(Screen):
    """Prints tokens and segments on standard output as they come."""

    def __init__(self) -> None:
        self._broken = False

    def see(self, kind: str, data: dict[str, Any]) -> None:
        """Print a piece of text; after a gap or a second attempt leave it to the end, which has it whole."""
        if kind == "lagged" or (kind == "state" and self.printed and data["state"] == "queued"):
            self._broken = True
        # A token that says which item or step it belongs to is no part of one text.
        if kind != "token" or self._broken or {"item", "step"} & set(data):
            return
        text = str(data.get("text", ""))
        write(text, end="")
        self.printed += text


def _screen(*, as_json: bool, stream: bool) -> Screen:
    if not as_json and (stream or sys.stdout.isatty()):
        if sys.stderr.isatty():
            from daemon.cli.display import TypingWithBar

            return TypingWithBar()
        return Typing()
    if sys.stderr.isatty():
        from daemon.cli.display import Bar

        return Bar()
    return Screen()


def ended(transport: Transport, job_id: str, deadline: float | None) -> dict[str, Any]:
    """Wait without events: for several jobs, or because the stream ended first (the daemon restarts, or cut us off).

    Return the job when it is settled, or as it is at the *deadline* of `time.monotonic`.
    """
    while True:
        left = _PIECE if deadline is None else min(_PIECE, max(0.0, deadline - time.monotonic()))
        job = transport.ask("GET", job_path(job_id, "wait"), query={"timeout": left}, patience=left + PATIENCE)
        if job["state"] in _SETTLED or (deadline is not None and time.monotonic() >= deadline):
            return dict(job)
