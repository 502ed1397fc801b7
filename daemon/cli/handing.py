"""From what Automator, Shortcuts, Raycast, Hazel or cron hand over to the jobs to submit: `mlxd run-task`.

Other than at `mlxd submit` nothing is guessed: an argument is a file that exists, whatever its name looks like, and
text comes on standard input.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from daemon.cli.asking import Asked, build, given_params
from jobs.errors import InvalidInput, InvalidParams

#: Tasks of ours that take single files.
_FILE_TASKS: Final = frozenset({"generate", "transcribe", "memo", "pipeline"})
#: Tasks of ours that can do nothing without an input.
_NEEDY: Final = frozenset({"generate", "transcribe", "memo", "batch"})
#: Parameters that are an input.
_INPUTS: Final = frozenset({"file", "folder", "prompt", "messages", "text"})
_STDIN: Final = "-"


class Handed(NamedTuple):
    """One job to submit."""

    #: The file or folder it is about; None: standard input, or nothing.
    input: Path | None
    #: The request's body.
    body: dict[str, Any]


def hand_over(asked: Asked, files: tuple[str, ...], *, beside: bool, waiting: bool, cache: Path) -> list[Handed]:
    """Return the jobs for *files*, one each, or the one for standard input.

    *asked* says all but the input; *beside* puts each file's results into its folder, and a folder's beside it. Every
    file is looked at before anything is returned, so that a mistyped last name leaves nothing half done.

    Raises:
        InvalidInput: a file is missing, or there is nothing to work on.
        InvalidParams: a parameter cannot be understood, or the input is given twice.

    """
    params = given_params(asked)
    if files in ((), (_STDIN,)):
        return [Handed(None, _without_files(asked, params, explicit=bool(files), waiting=waiting, cache=cache))]
    if twice := sorted(_INPUTS & set(params)):
        raise InvalidParams(f"The input is given twice: as a file and as the parameter {twice[0]!r}.")
    found = [existing(name) for name in files]
    # Many at once are no conversation: whoever waits for a single answer goes first.
    lane = asked.lane or ("normal" if len(found) > 1 and asked.task != "batch" else None)
    handed = []
    for path in found:
        one = replace(
            asked,
            params_json=json.dumps({**params, _parameter(asked.task, path): str(path)}),
            pairs=(),
            lane=lane,
            output=_beside(path) if beside else asked.output,
        )
        handed.append(Handed(path, build(one, cache=cache, waiting=waiting)))
    return handed


def existing(name: str) -> Path:
    """Return the absolute path of what *name* means, as it is written on the disk.

    A name in composed letters finds the file in decomposed ones, and the other way round, on every file system; a
    leading ``~`` is the home folder if there is no file of that very name. Links are not resolved.

    Raises:
        InvalidInput: there is nothing of that name, or it cannot be told to the daemon.

    """
    if not name:
        raise InvalidInput("A file name is empty.")
    # Not `resolve`, which would follow the person's links.
    given = Path(os.path.abspath(name))  # noqa: PTH100
    # Not Path.expanduser, which fails where "~x" is no user but a file's name.
    candidates = [given, Path(os.path.expanduser(name))] if name.startswith("~") else [given]  # noqa: PTH111
    found = next((path for path in candidates if _is_there(path)), None) or _respelt(given)
    if found is None:
        raise InvalidInput(f"There is no file {name}.", file=str(given))
    try:
        str(found).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The name {name!r} is not UTF-8. Rename the file.") from error
    return found


def _beside(path: Path) -> str:
    return str(path.with_name(f"{path.name} results") if path.is_dir() else path.parent)


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - other than Path.exists it takes a name that is too long


def _respelt(path: Path) -> Path | None:
    """Find *path* with its letters composed in another way, folder by folder."""
    current = Path(path.anchor)
    for part in path.parts[1:]:
        exact = current / part
        if not os.path.lexists(exact):
            wanted = unicodedata.normalize("NFC", part)
            try:
                names = os.listdir(current)  # noqa: PTH208 - names are compared, not paths
            except OSError:
                return None
            twin = next((each for each in sorted(names) if unicodedata.normalize("NFC", each) == wanted), None)
            if twin is None:
                return None
            exact = current / twin
        current = exact
    return current if _is_there(current) else None


def _parameter(task: str, path: Path) -> str:
    if not path.is_dir():
        return "file"
    if task in _FILE_TASKS:
        raise InvalidInput(f"{path} is a folder; {task} takes files. For a folder of prompts: mlxd run-task batch")
    return "folder"


def _without_files(
    asked: Asked, params: dict[str, Any], *, explicit: bool, waiting: bool, cache: Path
) -> dict[str, Any]:
    said = replace(asked, params_json=json.dumps(params), pairs=())
    if explicit or (not _INPUTS & set(params) and _something_on_stdin()):
        return build(replace(said, input=_STDIN), cache=cache, waiting=waiting)
    if asked.task in _NEEDY and not _INPUTS & set(params):
        raise InvalidInput(f"There is nothing to work on: {asked.task} wants files, or text on standard input.")
    return build(said, cache=cache, waiting=waiting)


def _something_on_stdin() -> bool:
    """Wait for the first byte on standard input, unless a person sits there, and say whether it came."""
    stdin: Any = sys.stdin  # None where it was closed before we began
    if stdin is None or stdin.closed or stdin.isatty():
        return False
    return bool(stdin.buffer.peek(1))
