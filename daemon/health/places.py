"""The watched folders, as whoever examines may see them: denied, absent and hanging are three different faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from daemon.config.folders import FolderConfig
from daemon.health.findings import Finding, ok, problem
from daemon.health.machine import Access, Machine
from daemon.views import FolderState, FolderStatus

# Folders that macOS asks the person about before a background program may read them.
_PROTECTED: Final = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")
_BY_STATE: Final = {
    FolderState.NEEDS_PERMISSION: "folder-denied",
    FolderState.MISSING: "folder-missing",
    FolderState.UNREACHABLE: "folder-hanging",
}
#: Folders looked into at a time: each may take the whole deadline.
_AT_ONCE: Final = 8


def watched(
    machine: Machine, configured: Sequence[FolderConfig], told: Sequence[FolderStatus], *, inside: bool
) -> Iterator[Finding]:
    """Say of each folder whether it can be used.

    *told* is what the daemon's watcher says. Where that is silent, the folder is tried from here, with a deadline;
    *inside* says that here is the daemon itself, whose permissions are the ones that count.
    """
    known = {status.path: status for status in told}
    for status in told:
        if status.problem:
            fault = _BY_STATE.get(status.state, "folder")
            yield problem("folder", f"{status.path}: {status.problem}", _advice(machine, status.path), fault=fault)
        elif not inside:
            yield ok("folder", f"{status.path} is watched.")
    if told and not inside:
        return
    open_ones = [one for one in configured if one.enabled and not (one.path in known and known[one.path].problem)]
    if not open_ones:
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(open_ones)), thread_name_prefix="doctor") as pool:
        for folder, access in zip(open_ones, pool.map(lambda one: machine.look(one.path), open_ones), strict=True):
            yield _judged(machine, folder, access, inside=inside)


def _judged(machine: Machine, folder: FolderConfig, access: Access, *, inside: bool) -> Finding:
    path = folder.path
    if access is Access.READABLE:
        where = "is watched, and the daemon may read it" if inside else "can be read (from here)"
        return ok("folder", f"{path} {where}.")
    if access is Access.MISSING:
        if folder.create:
            return ok("folder", f"{path} does not exist yet; the daemon makes it.")
        advice = f"Make it: mkdir -p '{path}', or change the configuration."
        return problem("folder", f"{path} does not exist.", advice, fault="folder-missing")
    if access is Access.NOT_A_FOLDER:
        advice = "Move it away, or change the configuration."
        return problem("folder", f"{path} is a file, not a folder.", advice, fault="folder-not-a-folder")
    if access is Access.BLOCKED:
        message = f"{path} gives no answer: a permission prompt may be open, or it is on a server or in a cloud."
        return problem("folder", message, _waiting_advice(machine, path), fault="folder-hanging")
    return problem("folder", f"{path} may not be read.", _advice(machine, path), fault="folder-denied")


def _waiting_advice(machine: Machine, path: Path) -> str:
    if _protected(machine, path):
        return f"Look for the system's question on the screen and answer it. {_advice(machine, path)}"
    return f"See whether it answers you, and whether its server or volume is there: ls '{path}'; mount"


def _advice(machine: Machine, path: Path) -> str:
    if _protected(machine, path):
        return (
            "macOS protects this folder. Allow it under System Settings > Privacy & Security > Files & Folders (or "
            "Full Disk Access) for the program named there, or watch a folder outside Desktop, Documents and Downloads."
        )
    return f"Look at its permissions: ls -ld '{path}'"


def _protected(machine: Machine, path: Path) -> bool:
    return machine.system == "darwin" and any(f"/{name}/" in f"{path}/" for name in _PROTECTED)
