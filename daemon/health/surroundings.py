"""What lies around the daemon: its PATH, its socket, its installed definition, and whether the machine falls asleep."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from daemon.health.findings import Finding, note, ok, problem
from daemon.health.machine import Machine
from launchd.schema import SOCKET_PATH_MAX

#: Where the system's own programs lie, which hooks, notifications and keeping awake need.
_SYSTEM: Final = ("/usr/bin", "/bin")
_REINSTALL: Final = "Write it anew: mlxd service install"
_MASKED: Final = "masked"
_PMSET_SLEEP: Final = re.compile(r"^\s*sleep\s+(\d+)", re.MULTILINE)


def path_variable(machine: Machine) -> Iterator[Finding]:
    """Say whether the programs that mlxd calls are found."""
    folders = [folder for folder in machine.environ.get("PATH", "").split(":") if folder]
    lacking = [folder for folder in _SYSTEM if folder not in folders]
    unsafe = [folder for folder in folders if not folder.startswith("/") or _open_to_others(Path(folder))]
    if lacking:
        message = f"PATH lacks {' and '.join(lacking)}: {':'.join(folders) or 'it is empty'}."
        yield problem("path", message, f"If mlxd runs as a service: {_REINSTALL}", fault="path")
    elif unsafe:
        message = f"PATH has a folder that others may write to, or that depends on where one is: {', '.join(unsafe)}."
        yield note("path", message, "Take it out of PATH where mlxd is started, or: chmod go-w the folder.")
    else:
        yield ok("path", f"PATH is {':'.join(folders)}.")


def _open_to_others(folder: Path) -> bool:
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False  # not there: nothing is found in it
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def socket(path: Path, *, uid: int, answers: bool | None) -> Iterator[Finding]:
    """Say whether the socket can be used; *answers*: whether the daemon did (None: nobody asked)."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        advice = f"Set MLXD_HOME to a shorter folder: at most {SOCKET_PATH_MAX} bytes fit."
        yield problem("socket", f"The socket's path is {length} bytes long: {path}", advice, fault="socket-path")
        return
    try:
        facts = path.lstat()
    except OSError:
        facts = None
    if facts is None and answers:
        advice = "Start it again: mlxd stop, then mlxd run (or: mlxd service restart)"
        yield problem("socket", f"{path} is gone, though the daemon runs.", advice, fault="socket-gone")
    elif facts is not None and (not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != uid):
        yield problem("socket", f"{path} is no socket of yours.", f"Remove it: rm '{path}'", fault="socket-foreign")
    elif facts is not None and stat.S_IMODE(facts.st_mode) & 0o077:
        yield problem("socket", f"Others may connect to {path}.", f"Close it: chmod 600 '{path}'", fault="socket-open")
    elif facts is not None and answers is False:
        yield note("socket", f"{path} is left over; nobody answers there.", "Start the daemon: mlxd run")
    else:
        yield ok("socket", f"The socket is {path} ({length} of at most {SOCKET_PATH_MAX} bytes).")


def definition(differences: Sequence[str]) -> Iterator[Finding]:
    """Say whether the installed service is what this mlxd would install."""
    if differences:
        message = f"The installed service is not this mlxd's: {'; '.join(differences)}."
        yield problem("service", message, _REINSTALL, fault="service-stale")


def sleep(machine: Machine) -> Iterator[Finding]:
    """Say whether the machine falls asleep while work waits."""
    yield _mac_sleep(machine) if machine.system == "darwin" else _linux_sleep(machine)


def _mac_sleep(machine: Machine) -> Finding:
    answer = machine.run(["/usr/bin/pmset", "-g", "custom"])
    sections = re.split(r"^(\w[\w ]*):$", answer.out, flags=re.MULTILINE)
    minutes = {
        name: int(match.group(1))
        for name, text in zip(sections[1::2], sections[2::2], strict=False)
        if (match := _PMSET_SLEEP.search(text))
    }
    if answer.code or not minutes:
        return note("sleep", "When this Mac falls asleep cannot be told.", "See for yourself: pmset -g custom")
    soon = minutes.get("AC Power", 0)
    if soon:
        return note(
            "sleep",
            f"On mains power this Mac sleeps after {soon} minutes without use; jobs wait until it wakes.",
            "To keep it awake: System Settings > Energy (or Battery > Options) > Prevent automatic sleeping, or: "
            "sudo pmset -c sleep 0. To keep it awake only while jobs run, set keep_awake for their lane.",
            fault="sleep",
        )
    return ok("sleep", "On mains power this Mac does not fall asleep by itself.")


def _linux_sleep(machine: Machine) -> Finding:
    if machine.run(["systemctl", "is-enabled", "suspend.target"]).out.strip() == _MASKED:
        return ok("sleep", "This machine never suspends (suspend.target is masked).")
    answer = machine.run(["loginctl", "show-session", "--property=IdleAction", "--property=IdleActionUSec"])
    facts = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
    action = facts.get("IdleAction", "")
    if answer.code or not action:
        return ok("sleep", "No login manager puts this machine to sleep.")
    if action in ("ignore", "lock"):
        return ok("sleep", "The login manager does not put this machine to sleep.")
    return note(
        "sleep",
        f"This machine does {action!r} after {facts.get('IdleActionUSec', '?')} without use; jobs wait until it wakes.",
        "To keep it awake: IdleAction=ignore in /etc/systemd/logind.conf, or: sudo systemctl mask suspend.target",
        fault="sleep",
    )
