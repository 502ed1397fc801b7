"""`mlxd selftest`: what docs/mac-checklist.md asks for, as far as a program can see it.

Each check has an id that stays, what it looks at, and one of three results. "cannot-tell" is no failure: on Linux the
checks that are about macOS say so. Nothing is installed or changed; what is written lies in a folder that goes away.
"""

from __future__ import annotations

import plistlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from daemon.cli.console import Exit
from daemon.paths import Home
from jobs.errors import MlxdError
from jobs.model import Frozen
from launchd.contract import Run, run_command
from launchd.embedded import Action, Takes, command, launcher_text
from launchd.schema import SOCKET_PATH_MAX


class Result(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    CANNOT_TELL = "cannot-tell"


class Check(Frozen):
    """One thing that was checked."""

    #: Stable; "mac-..." for what needs a Mac.
    id: str
    #: What was looked at.
    what: str
    result: Result
    #: What was found, or why nothing could be.
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the checks work with; the defaults are the real thing."""

    home: Home
    #: The command that is this mlxd.
    program: tuple[str, ...]
    #: Asks the daemon for its health; raises an `MlxdError`.
    health: Callable[[], Any]
    #: Names of what `mlxd shortcuts` installed -> its path.
    installed: Mapping[str, Path] = field(default_factory=dict)
    uid: int = 0
    platform: str = sys.platform
    run: Run = run_command
    #: A folder to work in, which is removed afterwards.
    scratch: Path = Path()

    @property
    def mac(self) -> bool:
        """Whether the checks about macOS can be made."""
        return self.platform == "darwin"


#: What a check found: its result and a detail.
Found = tuple[Result, str]
#: Id, what is looked at, the check.
Row = tuple[str, str, Callable[[Bench], Found]]

#: What a program that is started by Automator or cron has.
_BARE: Final = ("env", "-i", "PATH=/usr/bin:/bin")
#: Names that a careless command would take apart, run, or lose.
HOSTILE: Final = (
    "a b.m4a",
    "-rf",
    'it\'s "quoted".txt',
    "two\nlines",
    "$(touch hit) `touch hit`; touch hit",
    "tab\there  twice",
    "Gr\u00fc\u00dfe \U0001f399.wav",
    "u\u0308 decomposed",
    "*?[a-z]{x,y}",
    "\\ back\\nslash\\",
    "~",
    "",
)


def selftest(bench: Bench) -> list[Check]:
    """Make every check, in the order in which to read them."""
    from daemon.health.mac_checks import MAC

    with tempfile.TemporaryDirectory(prefix="mlxd-selftest-") as folder:
        at_work = replace(bench, scratch=Path(folder))
        return [*_made(PORTABLE, at_work), *_made(MAC, at_work, needs_mac=True)]


def passed(checks: Iterable[Check]) -> bool:
    """Return whether nothing failed."""
    return all(check.result is not Result.FAILED for check in checks)


def judged(good: object, detail: str) -> Found:
    """Return ok or failed."""
    return (Result.OK if good else Result.FAILED), detail


def unknown(detail: str) -> Found:
    """Return that nothing could be found out."""
    return Result.CANNOT_TELL, detail


def _made(rows: Sequence[Row], bench: Bench, *, needs_mac: bool = False) -> list[Check]:
    checks = []
    for name, what, check in rows:
        if needs_mac and not bench.mac:
            result, detail = unknown("This needs a Mac.")
        else:
            result, detail = _guarded(check, bench)
        checks.append(Check(id=name, what=what, result=result, detail=detail))
    return checks


def _guarded(check: Callable[[Bench], Found], bench: Bench) -> Found:
    try:
        return check(bench)
    # One thing that cannot be examined must not hide the others.
    except (OSError, ValueError, MlxdError, subprocess.SubprocessError, sqlite3.Error) as error:
        return Result.FAILED, f"{type(error).__name__}: {error}"


def bare(words: Sequence[str], *, text: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run *words* as Automator would: nearly no environment, *text* on standard input."""
    return subprocess.run(
        [*_BARE, *words], input=text.encode(), capture_output=True, timeout=60, check=False, cwd=folder
    )


def _shells() -> list[str]:
    return [shell for name in ("sh", "bash", "zsh") if (shell := shutil.which(name, path="/bin:/usr/bin"))]


def _recorder(bench: Bench) -> Path:
    """Write a launcher that prints each argument, ended by NUL, and then its standard input."""
    recorder = bench.scratch / "it's a recorder"
    recorder.write_text("#!/bin/sh\nfor each do printf '%s\\0' \"$each\"; done\ncat\n")
    recorder.chmod(0o700)
    return recorder


def _arguments(bench: Bench) -> Found:
    action = Action(title="t", task="x", takes=Takes.FILES, params={"note": 'it\'s "so"'})
    script = command(action, _recorder(bench))
    fixed = ["x", "--params", '{"note": "it\'s \\"so\\""}', "--"]
    expected = b"".join(word.encode() + b"\0" for word in [*fixed, *HOSTILE])
    for shell in _shells():
        done = bare([shell, "-c", script, "-", *HOSTILE], text="not for the launcher", folder=bench.scratch)
        if done.stdout != expected or done.returncode:
            return judged(good=False, detail=f"{shell} handed over {done.stdout!r} instead of {expected!r}")
    return judged(
        not (bench.scratch / "hit").exists(), f"{len(HOSTILE)} hostile names, unchanged by {', '.join(_shells())}"
    )


def _text(bench: Bench) -> Found:
    action = Action(title="t", task="x", takes=Takes.TEXT)
    text = "Gr\u00fc\u00dfe \U0001f399\n\n$(x) `y` 'z'\\n\n"
    got = {shell: bare([shell, "-c", command(action, _recorder(bench))], text=text).stdout for shell in _shells()}
    wrong = [shell for shell, out in got.items() if out != b"x\0-\0" + text.encode()]
    return judged(not wrong, f"changed by {wrong[0]}" if wrong else f"unchanged by {', '.join(got)}")


def _launcher(bench: Bench) -> Found:
    launcher = bench.scratch / "mlxd-run"
    launcher.write_text(launcher_text(bench.program, {"MLXD_HOME": str(bench.scratch / "Gr\u00fc\u00dfe")}))
    launcher.chmod(0o700)
    done = bare([str(launcher), "generate", "-"], text="Gr\u00fc\u00dfe")
    said = done.stderr.decode(errors="replace").strip()
    good = done.returncode == Exit.UNREACHABLE and not done.stdout and "Gr\u00fc\u00dfe" in said and "\n" not in said
    return judged(good, f"without HOME and LANG it ends with {done.returncode} and says: {said[-300:]}")


def _socket_path(bench: Bench) -> Found:
    length = len(str(bench.home.socket).encode())
    return judged(length <= SOCKET_PATH_MAX, f"{length} of at most {SOCKET_PATH_MAX} bytes: {bench.home.socket}")


def _daemon(bench: Bench) -> Found:
    try:
        health = bench.health()
    except MlxdError as error:
        return unknown(error.message)
    return judged(health.pid, f"mlxd {health.version} answers (process {health.pid})")


def _durability(bench: Bench) -> Found:
    from jobs.database import Database

    path = bench.scratch / "ledger.sqlite3"
    database = Database(path)
    database.close()
    with closing(sqlite3.connect(path)) as plain:
        mode = plain.execute("PRAGMA journal_mode").fetchone()[0]
    return judged(mode == "wal", f"a fresh ledger is in mode {mode}, written with fullfsync")


def _bundle(bench: Bench) -> Found:
    from launchd.shortcut import render
    from launchd.workflow import bundle

    action = Action(title="t", task="x", takes=Takes.FILES)
    files = {**bundle(action, bench.scratch / "mlxd-run"), "t.shortcut": render(action, bench.scratch / "mlxd-run")}
    for data in files.values():
        plistlib.loads(data)
    return judged(files, f"{len(files)} property lists, each read back")


PORTABLE: Final[Sequence[Row]] = (
    ("arguments", "File names reach the launcher unchanged, whatever is in them", _arguments),
    ("text", "Selected text reaches the launcher unchanged", _text),
    ("launcher", "The launcher works with nothing but PATH=/usr/bin:/bin", _launcher),
    ("bundles", "Quick Actions and Shortcuts are property lists", _bundle),
    ("socket-path", "The socket's path fits, on a Mac too", _socket_path),
    ("ledger", "A ledger can be made here", _durability),
    ("daemon", "The daemon answers", _daemon),
)
