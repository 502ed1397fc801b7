"""launchctl's exit codes, and what a person can do about each.

Observed on macOS 26 unless launchctl(1) says it; ``launchctl error <code>`` prints Apple's own three words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NO_SUCH_PROCESS: Final = 3
IO_ERROR: Final = 5
EXISTS: Final = 17
IN_PROGRESS: Final = frozenset({36, 37})
NO_SUCH_DOMAIN: Final = 112
#: Ambiguous: never installed, not bootstrapped, switched off in Login Items, or its start failed.
UNKNOWN_SERVICE: Final = 113
WRONG_DOMAIN: Final = 125

#: Codes that pass by themselves: launchd is still busy with the job's former life.
PASSING: Final = IN_PROGRESS | {IO_ERROR}

_SENTENCES: Final[Mapping[int, str]] = {
    NO_SUCH_PROCESS: "launchd has no such process.",
    IO_ERROR: "launchd could not take the service (input/output error): an earlier copy may still be ending, "
    "or the file is damaged. Wait a minute, then run: mlxd service install",
    EXISTS: "launchd still holds an earlier copy of the service. Run: mlxd service uninstall, then install it again.",
    36: "launchd is still busy with the service. Wait a minute and try again.",
    37: "launchd is still busy with the service. Wait a minute and try again.",
    NO_SUCH_DOMAIN: "Nobody is logged in at the screen of this Mac, so there is no session to run in. "
    "Log in there once, or install over SSH, which runs the service without the screen.",
    UNKNOWN_SERVICE: "launchd does not know the service. Either it was never installed, or it was switched off under "
    "System Settings > General > Login Items & Extensions (switch on the row 'mlxd-agent'), or its start failed. "
    "Then run: mlxd service install",
    119: "The service is switched off. Switch on 'mlxd-agent' under System Settings > General > Login Items & "
    "Extensions, then run: mlxd service install",
    122: "launchd does not trust the file: it must belong to you and be writable by nobody else. "
    "Run: mlxd service install",
    124: "The login session is ending, so launchd takes nothing new. Log in again and repeat the command.",
    WRONG_DOMAIN: "launchd does not take the service in this session. Log in at the screen of this Mac and repeat it.",
    127: "There is no launchctl in the PATH; it belongs to macOS, in /bin. Call the command with PATH=/usr/bin:/bin.",
    134: "The service is not allowed in this kind of session. Run mlxd service install again from where you want it: "
    "at the screen, or over SSH.",
    155: "macOS has quarantined the launcher because it came from a download. "
    "Run: xattr -d com.apple.quarantine on the file, then mlxd service install",
}


def sentence(code: int, *, doing: str, said: str = "") -> str:
    """Say why *doing* failed with exit status *code*; *said* is what launchctl printed."""
    known = _SENTENCES.get(code)
    if known is None:
        words = " ".join(said.split())
        known = f"launchctl ended with {code}" + (f": {words}" if words else "") + "."
    return f"Could not {doing}. {known} (code {code})"
