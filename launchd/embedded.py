"""The one shell command inside every Quick Action, Shortcut and Folder Action, and the launcher that it calls.

The command names the launcher by its absolute path, because Automator and Shortcuts run it with a PATH of their own. It
hands on what was selected as ``"$@"`` or on standard input: nothing that a file name or a selection says ever becomes
part of the command itself. It means the same to sh, bash and zsh.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

#: File name of the launcher.
LAUNCHER_NAME: Final = "mlxd-run"
#: What puts standard input on the clipboard.
COPIER: Final = "/usr/bin/pbcopy"
#: Longest title in bytes: with ``.workflow`` it is a file name.
_LONGEST: Final = 200

_LAUNCHER: Final = """\
#!/bin/sh
# Written by `mlxd shortcuts install`; removed by `mlxd shortcuts remove`.
# What Automator, Shortcuts, Raycast, Alfred, Hazel and cron call: mlxd-run TASK [FILES]. See docs/shortcuts.md.
if [ ! -x {program} ]; then
    echo "mlxd is no longer at "{program}". Install it again, then run: mlxd shortcuts install" >&2
    exit 127
fi
PYTHONUTF8=1
export PYTHONUTF8
{environment}exec {command} run-task "$@"
"""


class Takes(StrEnum):
    """What an action works on."""

    #: Selected files, as arguments.
    FILES = "files"
    #: Selected folders, as arguments.
    FOLDER = "folder"
    #: Selected text, on standard input.
    TEXT = "text"


class Gives(StrEnum):
    """What becomes of the text that an action prints."""

    #: It is printed; a Quick Action on files then drops it, a Shortcut hands it on.
    PRINT = "print"
    #: It replaces the selected text.
    REPLACE = "replace"
    #: It goes to the clipboard.
    COPY = "copy"


@dataclass(frozen=True, kw_only=True)
class Action:
    """One entry of a menu.

    Raises:
        ValueError: the title cannot be a file name, or text that is not selected would be replaced.

    """

    #: What people see, and the file's name.
    title: str
    task: str
    takes: Takes
    gives: Gives = Gives.PRINT
    params: Mapping[str, Any] = field(default_factory=dict)
    #: Put result files beside each input.
    beside: bool = False
    #: Uniform type identifiers of the files it is offered for.
    types: tuple[str, ...] = ("public.item",)

    def __post_init__(self) -> None:
        bad = not self.title.strip() or self.title.startswith(".") or len(self.title.encode()) > _LONGEST
        if bad or any(character in "/:" or not character.isprintable() for character in self.title):
            raise ValueError(
                f"{self.title!r} cannot be a title: 1 to {_LONGEST} bytes in one line, no '/' and no ':', no dot first"
            )
        if self.gives is Gives.REPLACE and self.takes is not Takes.TEXT:
            raise ValueError("only selected text can be replaced by the result")


def launcher_text(command: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """Return the launcher: a shell script that becomes ``command run-task`` with the arguments it gets.

    *environment* says which home the daemon has; it is set whatever the caller's environment is.
    """
    lines = [f"{name}={shlex.quote(value)}\nexport {name}\n" for name, value in sorted(environment.items())]
    return _LAUNCHER.format(program=shlex.quote(command[0]), environment="".join(lines), command=shlex.join(command))


def command(action: Action, launcher: Path, *, copier: str = COPIER) -> str:
    """Return the shell command of *action*; *launcher* and *copier* are absolute paths."""
    words = [str(launcher), action.task]
    if action.params:
        words += ["--params", json.dumps(dict(action.params), sort_keys=True)]
    if action.beside:
        words.append("--beside")
    # Without files there is nothing to wait for: what Automator leaves on standard input is not the input.
    fed = shlex.join(words) + (" -" if action.takes is Takes.TEXT else ' -- "$@" </dev/null')
    if action.gives is Gives.PRINT:
        return f"exec {fed}\n"
    # Not through a pipe, which would hide the launcher's failure; and without the newline at the end.
    printed = "printf '%s' \"$result\""
    if action.gives is Gives.COPY:
        # Without a locale pbcopy takes the bytes for another encoding.
        printed += f" | LC_ALL=en_US.UTF-8 {shlex.quote(copier)}"
    return f"result=$({fed}) || exit $?\n{printed}\n"
