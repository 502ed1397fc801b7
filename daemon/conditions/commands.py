"""Asking the system's own commands: by absolute path, with a limit, and never a reason to fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import Final

#: What a command line printed; None if the command is not here, failed, or did not answer in time.
Ask = Callable[[Sequence[str]], str | None]

#: Seconds; all of these commands answer within milliseconds.
_PATIENCE: Final = 3.0


def ask(command: Sequence[str], *, patience: float = _PATIENCE) -> str | None:
    """Run *command*, whose first word is an absolute path, and return what it printed, or None."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            check=True,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
