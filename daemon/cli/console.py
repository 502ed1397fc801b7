"""What every command shares: exit statuses, one-sentence errors, JSON, and text that cannot steer a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TextIO

from jobs import errors


class Exit(IntEnum):
    """What `mlxd` exits with."""

    OK = 0
    #: The job failed, or the command did.
    FAILED = 1
    #: The command line is wrong.
    USAGE = 2
    #: No daemon answers.
    UNREACHABLE = 3
    #: The daemon refused.
    REFUSED = 4
    #: The job was cancelled.
    CANCELLED = 5
    #: The job is blocked or quarantined.
    BLOCKED = 6
    #: ``--timeout`` passed; the job goes on.
    TIMEOUT = 124
    #: Ctrl-C; a job that was waited for goes on.
    INTERRUPTED = 130


#: For ``mlxd --help`` and the documentation.
EXIT_STATUSES: Final = (
    "0 ok, 1 the job (or the command) failed, 2 wrong usage, 3 no daemon answers, 4 refused by the daemon, "
    "5 cancelled, 6 blocked or quarantined, 124 timeout, 130 interrupted"
)

#: Exit status by a job's state.
_BY_STATE: Final = {
    "succeeded": Exit.OK,
    "failed": Exit.FAILED,
    "cancelled": Exit.CANCELLED,
    "blocked": Exit.BLOCKED,
    "quarantined": Exit.BLOCKED,
}
# Errors of this machine and not of a request.
_LOCAL: Final = (errors.ConfigError, errors.AlreadyRunning, errors.ServiceError, errors.OutputError)
# Everything below a space but tab and newline, DEL, C1, and the marks that turn the direction of writing around.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def exit_for_error(error: errors.MlxdError) -> Exit:
    """Return the status for an error that ended a command."""
    if isinstance(error, errors.DaemonUnreachable):
        return Exit.UNREACHABLE
    if isinstance(error, errors.JobCancelled):
        return Exit.CANCELLED
    return Exit.FAILED if isinstance(error, _LOCAL) else Exit.REFUSED


def exit_for_job(job: dict[str, Any]) -> Exit:
    """Return the status for a job that was waited for; one that has not ended ran into the timeout."""
    return _BY_STATE.get(job["state"], Exit.TIMEOUT)


def shown(text: str) -> str:
    """Return *text* with control characters visible: a model's answer must not steer the terminal."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def write(text: str, *, end: str = "\n", stream: TextIO | None = None) -> None:
    """Print *text*: as it is into a pipe or file, made harmless on a terminal."""
    out = stream or sys.stdout
    out.write((shown(text) if out.isatty() else text) + end)
    out.flush()


def note(text: str) -> None:
    """Tell the person something that is no result: on standard error."""
    write(text, stream=sys.stderr)


def complain(text: str) -> None:
    """Say what went wrong."""
    note(f"mlxd: {text}")


def write_json(value: Any) -> None:
    """Print *value* as JSON, with its letters as they are."""
    text = json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False, default=str)
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stdout.flush()


def is_text(text: str) -> bool:
    """Tell whether *text* can be written down; what the system calls a name may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def legible(text: str) -> str:
    """Return *text* with the bytes that are no characters as they are written in a shell."""
    return os.fsencode(text).decode(errors="backslashreplace")


def absolute(path: str) -> Path:
    """Return *path* as the daemon, which runs elsewhere, has to be told it.

    Raises:
        InvalidInput: a folder above has a name that cannot be told.

    """
    found = os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - `resolve` would follow the person's links
    if not is_text(found):
        raise errors.InvalidInput(f"The path {legible(found)} is not valid UTF-8. Rename that folder.")
    return Path(found)
