"""Tells by a program: a notification, a command of the person's, a shortcut.

Whatever is told goes in as an argument of its own, on standard input, or in a file; nothing is ever put into source
code or through a shell. What the programs print is thrown away.
"""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from jobs.errors import InvalidRequest, RequestFailed
from plugins.task import TaskContext

#: Seconds between two looks at whether the job should stop, while a program runs.
_CHECK_EVERY: Final = 0.5
#: Characters of a result that a notification shows.
_SHOWN: Final = 200
#: AppleScript that shows its arguments; the title comes first, because osascript takes a first "-x" for an option.
_SCRIPT: Final = (
    "on run argv",
    "display notification (item 3 of argv) with title (item 1 of argv) subtitle (item 2 of argv)",
    "end run",
)

#: Command line, standard input, seconds, what to ask now and then -> exit status. Raises `OSError`, `TimeoutError`.
Run = Callable[[Sequence[str], bytes, float, Callable[[], None]], int]


def run(argv: Sequence[str], data: bytes, timeout: float, check: Callable[[], None]) -> int:
    """Run *argv* with *data* on its standard input and return its exit status.

    *check* is called now and then and may raise. Then, and after *timeout* seconds, its whole process group is killed;
    what a program that ended left running is its own business.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it took too long.

    """
    deadline = time.monotonic() + timeout
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True) as child:
        unsent: bytes | None = data
        try:
            while True:
                try:
                    child.communicate(unsent, timeout=min(_CHECK_EVERY, max(0.0, deadline - time.monotonic())))
                except subprocess.TimeoutExpired:
                    unsent = None  # it remembers what is left to send
                    check()
                    if time.monotonic() >= deadline:
                        raise TimeoutError from None
                else:
                    return child.returncode
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise


def notification(
    target: Mapping[str, Any],
    about: Mapping[str, Any],
    ctx: TaskContext,
    *,
    run: Run = run,
    system: str = sys.platform,
) -> str:
    """Show a notification on the screen.

    Raises:
        InvalidRequest: this machine cannot.
        RequestFailed: it did not work this time.

    """
    subtitle, text = f"{about['task']} {about['state']}", _gist(about)
    if system == "darwin":
        script = [word for line in _SCRIPT for word in ("-e", line)]
        argv = ["/usr/bin/osascript", *script, "mlxd", subtitle, text]
    elif system == "linux":
        # The body may hold markup, so what is told is escaped.
        body = html.escape(text, quote=False)
        argv = ["/usr/bin/notify-send", "--app-name=mlxd", "--", f"mlxd: {subtitle}", body]
    else:
        raise InvalidRequest(f"mlxd knows no notifications on {system}.")
    _succeed(run, argv, b"", target, ctx, hint="On Debian and Ubuntu: apt install libnotify-bin.")
    return "Shown."


def command(target: Mapping[str, Any], about: Mapping[str, Any], ctx: TaskContext, *, run: Run = run) -> str:
    """Run the person's command with what is told, as JSON, on its standard input.

    Raises:
        InvalidRequest: it is not there, or may not be run.
        RequestFailed: it ended with a status other than 0, or took too long.

    """
    _succeed(run, list(target["command"]), json.dumps(about, ensure_ascii=False).encode() + b"\n", target, ctx)
    return f"{Path(target['command'][0]).name} ran."


def shortcut(
    target: Mapping[str, Any],
    about: Mapping[str, Any],
    ctx: TaskContext,
    *,
    run: Run = run,
    system: str = sys.platform,
) -> str:
    """Run a shortcut; its input is a file: the result's text if the entry includes it, otherwise what is told as JSON.

    Raises:
        InvalidRequest: there are no shortcuts here.
        RequestFailed: it did not work this time.

    """
    if system != "darwin":
        raise InvalidRequest("Shortcuts exist on macOS only.")
    text = (about.get("result") or {}).get("text") if isinstance(about.get("result"), Mapping) else None
    with tempfile.TemporaryDirectory(prefix="mlxd-") as folder:
        file = Path(folder, f"{about['job']}.txt" if text else f"{about['job']}.json")
        file.write_text(str(text) if text else json.dumps(about, ensure_ascii=False), encoding="utf-8")
        argv = ["/usr/bin/shortcuts", "run", target["shortcut"], "-i", str(file)]
        _succeed(run, argv, b"", target, ctx)
    return f"The shortcut {target['shortcut']!r} ran."


def _succeed(
    run: Run, argv: Sequence[str], data: bytes, target: Mapping[str, Any], ctx: TaskContext, *, hint: str = ""
) -> None:
    """Run *argv*; whatever does not end with status 0 raises."""
    timeout = float(target["timeout"])
    try:
        status = run(argv, data, timeout, ctx.check)
    except TimeoutError:
        raise RequestFailed(f"{argv[0]} did not end within {timeout:g} s.") from None
    except OSError as error:
        raise InvalidRequest(f"{argv[0]} cannot be run: {error.strerror or error}. {hint}".strip()) from None
    if status:
        raise RequestFailed(f"{argv[0]} ended with status {status}.", status=status)


def _gist(about: Mapping[str, Any]) -> str:
    """Return one line about a job: why it failed, what it says (if that is told), or what it wrote."""
    if error := about.get("error"):
        return " ".join(str(error["message"]).split())
    result = about.get("result")
    if isinstance(result, Mapping) and result.get("text"):
        text = " ".join(str(result["text"]).split())
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    names = [Path(path).name for path in about.get("outputs", ())]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else f"Job {about['job']}"  # noqa: PLR2004
