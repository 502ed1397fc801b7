"""The checks of `mlxd selftest` that need a Mac; the numbers are those of docs/mac-checklist.md."""

from __future__ import annotations

import ctypes
import fcntl
import os
import plistlib
import socket
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daemon.api.peers import peer_uid
from daemon.selftest import Bench, Found, Row, judged, unknown
from launchd import folder_action, shortcut, workflow
from launchd.agent import LABEL
from launchd.contract import ServiceFailure
from launchd.embedded import Action, Takes
from launchd.files import LAUNCHER_NAME

#: `fcntl`'s number on macOS: flush to the drive's own platter.
_FULLFSYNC: Final = 51
_MISSING: Final = 127
_OWNER_ONLY: Final = 0o600


def _definition() -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def _agent_lint(bench: Bench) -> Found:
    path = _definition()
    if not path.is_file():
        return unknown("The service is not installed: mlxd service install")
    answer = bench.run(["/usr/bin/plutil", "-lint", str(path)])
    return judged(answer.code == 0, " ".join((answer.out or answer.err).split()))


def _agent_name(_: Bench) -> Found:
    path = _definition()
    if not path.is_file():
        return unknown("The service is not installed: mlxd service install")
    program = Path(plistlib.loads(path.read_bytes())["ProgramArguments"][0])
    good = program.name == LAUNCHER_NAME and os.access(program, os.X_OK)
    return judged(good, f"Login Items shows '{program.name}', started from {program}")


def _printed(bench: Bench) -> str | None:
    for domain in ("gui", "user"):
        answer = bench.run(["/bin/launchctl", "print", f"{domain}/{bench.uid}/{LABEL}"])
        if answer.code == 0:
            return answer.out
    return None


def _agent_running(bench: Bench) -> Found:
    printed = _printed(bench)
    if printed is None:
        return unknown("launchd does not know the service: mlxd service status")
    pids = [line.strip() for line in printed.splitlines() if line.strip().startswith("pid = ")]
    return judged(len(pids) == 1, f"launchd has it, {pids[0]}" if pids else "launchd has it, but no process")


def _agent_limits(bench: Bench) -> Found:
    printed = _printed(bench)
    if printed is None:
        return unknown("launchd does not know the service: mlxd service status")
    lines = {line.strip() for line in printed.splitlines()}
    path = _definition()
    described = plistlib.loads(path.read_bytes()) if path.is_file() else {}
    wanted = {
        f"minimum runtime = {described.get('ThrottleInterval', 10)}",
        f"exit timeout = {described.get('ExitTimeOut', 45)}",
    }
    return judged(
        wanted <= lines, "missing: " + ", ".join(sorted(wanted - lines)) if wanted - lines else "as installed"
    )


def _socket_mode(bench: Bench) -> Found:
    path = bench.home.socket
    if not path.exists():
        return unknown(f"There is no socket at {path}: the daemon does not run")
    facts = path.lstat()
    good = stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == _OWNER_ONLY
    return judged(good, f"{stat.filemode(facts.st_mode)} {path}")


def _peer(_: Bench) -> Found:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        found = peer_uid(here)
    return judged(found == os.geteuid(), f"the kernel says {found}, we are {os.geteuid()}")


def _activation(_: Bench) -> Found:
    system = ctypes.CDLL("/usr/lib/libSystem.B.dylib")
    return judged(hasattr(system, "launch_activate_socket"), "launch_activate_socket in libSystem")


def _fullfsync(bench: Bench) -> Found:
    path = bench.scratch / "flushed"
    with path.open("wb") as file:
        file.write(b"x")
        file.flush()
        fcntl.fcntl(file.fileno(), _FULLFSYNC)
    return judged(good=True, detail="F_FULLFSYNC is taken")


def _names(bench: Bench) -> Found:
    name = "Gr\u00fc\u00dfe.txt"
    (bench.scratch / unicodedata.normalize("NFD", name)).write_text("x")
    same = (bench.scratch / unicodedata.normalize("NFC", name)).exists()
    return judged(same, "composed and decomposed names are the same file" if same else "they are two files")


def _pressure(bench: Bench) -> Found:
    answer = bench.run(["/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level"])
    return judged(answer.out.strip() in {"1", "2", "4"}, f"level {answer.out.strip() or answer.err.strip()}")


def _tools(_: Bench) -> Found:
    wanted = (
        "/bin/launchctl",
        "/usr/bin/plutil",
        "/usr/bin/osascript",
        "/usr/bin/pbcopy",
        "/usr/bin/caffeinate",
        shortcut.SHORTCUTS,
        workflow.PBS,
    )
    missing = [path for path in wanted if not Path(path).exists()]
    return judged(not missing, f"missing: {', '.join(missing)}" if missing else f"{len(wanted)} programs of macOS")


def _bundles_lint(bench: Bench) -> Found:
    bundles = {**workflow.bundle(_SAMPLE, bench.scratch / "mlxd-run"), "s.shortcut": shortcut.render(*_sample(bench))}
    for number, data in enumerate(bundles.values()):
        path = bench.scratch / f"{number}.plist"
        path.write_bytes(data)
        answer = bench.run(["/usr/bin/plutil", "-lint", str(path)])
        if answer.code:
            return judged(good=False, detail=" ".join((answer.out or answer.err).split()))
    return judged(bundles, f"plutil takes all {len(bundles)}")


_SAMPLE: Final = Action(title="mlxd selftest", task="generate", takes=Takes.TEXT)


def _sample(bench: Bench) -> tuple[Action, Path]:
    return _SAMPLE, bench.scratch / "mlxd-run"


def _sign(bench: Bench) -> Found:
    unsigned = bench.scratch / "unsigned.shortcut"
    unsigned.write_bytes(shortcut.render(*_sample(bench)))
    try:
        mode = shortcut.sign(unsigned, bench.scratch / "signed.shortcut", run=bench.run)
    except ServiceFailure as error:
        return (unknown if error.code == _MISSING else lambda told: judged(good=False, detail=told))(str(error))
    return judged(good=True, detail=f"signed for {mode}")


def _installed(bench: Bench) -> Found:
    services = {name: path for name, path in bench.installed.items() if path.suffix == ".workflow"}
    if not services:
        return unknown("No Quick Action is installed: mlxd shortcuts install")
    answer = bench.run([workflow.PBS, "-dump_pboard"])
    if answer.code or "NSMenuItem" not in answer.out:
        return unknown(f"pbs (status {answer.code}) does not tell which services there are")
    missing = [path.stem for path in services.values() if path.stem not in answer.out]
    return judged(
        not missing, f"not in the menus: {', '.join(missing)}" if missing else f"all {len(services)} are known"
    )


def _system_events(bench: Bench) -> Found:
    answer = bench.run([folder_action.OSASCRIPT, "-l", "JavaScript", "-e", "1 + 1"])
    return judged(answer.out.strip() == "2", "osascript runs JavaScript" if not answer.code else answer.err.strip())


MAC: Final[Sequence[Row]] = (
    ("mac-agent-plist", "1: the launch agent's property list", _agent_lint),
    ("mac-agent-running", "2: the service runs, once", _agent_running),
    ("mac-agent-name", "3: the name under Login Items", _agent_name),
    ("mac-socket-mode", "9: the socket is for its owner alone", _socket_mode),
    ("mac-activation", "10: launchd can hand over its socket", _activation),
    ("mac-agent-limits", "13: the limits that launchd applies", _agent_limits),
    ("mac-peer", "The kernel says who is at the other end of a socket", _peer),
    ("mac-names", "20: composed and decomposed file names", _names),
    ("mac-pressure", "25: the level of memory pressure can be read", _pressure),
    ("mac-fullfsync", "28: flushing to the drive itself", _fullfsync),
    ("mac-tools", "The programs of macOS that mlxd calls", _tools),
    ("mac-bundles", "30: macOS reads our property lists", _bundles_lint),
    ("mac-services", "31: the installed Quick Actions are in the menus", _installed),
    ("mac-sign", "34: a Shortcut can be signed", _sign),
    ("mac-osascript", "37: osascript works", _system_events),
)
