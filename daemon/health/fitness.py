"""Whether this machine is fit to run mlxd: its Python, its packages, its accelerator, its room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from daemon.health.findings import Finding, note, ok, problem
from daemon.health.machine import Machine
from daemon.views import MemoryStatus
from plugins.lm_prefix_disk_folder import PrefixFolder

_GB: Final = 10**9
_LITTLE_MEMORY: Final = 8 * _GB
_LITTLE_DISK: Final = 2 * _GB
_NO_DISK: Final = _GB // 5
_OLDEST_PYTHON: Final = (3, 11)
_FIRST_UNTRIED_PYTHON: Final = (3, 14)
_OLDEST_MACOS: Final = 14


def python(machine: Machine) -> Iterator[Finding]:
    """Say whether mlxd supports this Python."""
    version = ".".join(map(str, machine.python))
    if machine.python[:2] < _OLDEST_PYTHON:
        yield problem("python", f"Python {version} is too old.", "Install mlxd with Python 3.11, 3.12 or 3.13.")
    elif machine.python[:2] >= _FIRST_UNTRIED_PYTHON:
        yield note("python", f"Python {version} is newer than any that mlxd was tried with.", "Prefer Python 3.13.")
    else:
        yield ok("python", f"Python {version}.")


def packages(machine: Machine) -> Iterator[Finding]:
    """Say which engines are installed."""
    for name in ("mlx", "mlx-lm", "mlx-whisper"):
        version = machine.version(name)
        if version is None:
            yield problem(name, f"{name} is not installed.", "Install mlxd again, for example: uv tool install mlxd")
        else:
            yield ok(name, f"{name} {version}.")


def accelerator(machine: Machine) -> Iterator[Finding]:
    """Say what MLX computes on."""
    if machine.system == "darwin":
        yield from _metal(machine)
        return
    cuda = [name for name in ("mlx-cuda-13", "mlx-cuda-12", "mlx-cuda") if machine.version(name)]
    if cuda:
        yield ok("accelerator", f"MLX computes on CUDA ({cuda[0]} {machine.version(cuda[0])}).")
    else:
        yield note("accelerator", "MLX computes on the CPU here: fine for the demo models, slow for large ones.")


def _metal(machine: Machine) -> Iterator[Finding]:
    if machine.processor != "arm64":
        advice = "On an Apple silicon Mac: install a native (arm64) Python; this one runs under Rosetta."
        yield problem(
            "accelerator", f"MLX needs Apple silicon, but this Python is built for {machine.processor}.", advice
        )
    elif int(machine.macos.split(".")[0] or 0) < _OLDEST_MACOS:
        yield problem(
            "accelerator", f"MLX needs macOS {_OLDEST_MACOS} or later, this is {machine.macos}.", "Update macOS."
        )
    else:
        yield ok("accelerator", f"Metal on Apple silicon, macOS {machine.macos}.")


def memory(machine: Machine, budget: Callable[[int], int] | None) -> Iterator[Finding]:
    """Say how much memory there is; *budget* turns it into what models may use."""
    total = machine.memory()
    message = f"{_size(total)} of memory."
    if budget is not None:
        message = f"{_size(total)} of memory, of which models may use {_size(budget(total))} together."
    if total < _LITTLE_MEMORY:
        yield note("memory", message, "Only small models fit; quantised ones below 3 GB are a good start.")
    else:
        yield ok("memory", message)


def strain(memory: MemoryStatus) -> Iterator[Finding]:
    """Say that memory is short, as the running daemon sees it."""
    if memory.level == "warn":
        advice = "Close what is not needed; mlxd has trimmed its caches and begins no more jobs of the batch lane."
        yield note("memory", f"Memory is short: {memory.reason}.", advice)
    elif memory.level == "critical":
        advice = "Close what is not needed, or lower memory.budget; idle models were unloaded, and batch jobs wait."
        yield problem("memory", f"Memory is very short: {memory.reason}.", advice)


def disk(machine: Machine, folder: Path) -> Iterator[Finding]:
    """Say how much room is left where *folder* is."""
    free = machine.free(folder)
    message = f"{_size(free)} free where {folder} is."
    if free < _NO_DISK:
        yield problem("disk", message, "Make room: without it no job can be accepted.")
    elif free < _LITTLE_DISK:
        yield note("disk", message, "Make room before fetching models.")
    else:
        yield ok("disk", message)


def prefixes(folder: PrefixFolder) -> Iterator[Finding]:
    """Say how much of prompts is kept on the disk."""
    held = folder.held()
    if folder.limit == 0 and held.files:
        message = f"{_size(held.bytes)} of beginnings of prompts are still on the disk, though none are to be kept."
        yield note("prefixes", message, "Delete them: mlxd models prefixes --clear")
    else:
        yield ok("prefixes", f"Beginnings of prompts take {_size(held.bytes)} of {_size(folder.limit)} on the disk.")


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB"
