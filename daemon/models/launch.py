"""How a runner process is started: its arguments, its first message, its environment, its log."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

# What a runner may see of the daemon's environment. Tokens and passwords are none of its business, it never logs in.
_ALLOWED: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LD_PRELOAD", "LD_LIBRARY_PATH"}
    | {"HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "VIRTUAL_ENV"}
)
_ALLOWED_PREFIXES: Final = (
    "LC_",
    "MLX_",
    "OMP_",
    "OPENBLAS_",
    "CUDA_",
    "NVIDIA_",
    "COVERAGE_",
    "NUMBA_",
    "MLXD_FAILPOINTS",
)

# A runner never talks to the network: models are fetched by `mlxd models pull`, beforehand.
_FIXED: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

#: A runner's log that has grown beyond this many bytes is put aside when the next runner of the model starts.
MAX_LOG: Final = 1024 * 1024

_TAIL: Final = 2000


@dataclass(frozen=True, kw_only=True)
class PluginPlace:
    """Where a runner finds plugins: what the daemon's own plugin manager was made with."""

    files: Path | None = None
    entry_points: bool | Collection[str] = False
    disabled: Collection[str] = ()

    def message(self) -> dict[str, Any]:
        """Return it as JSON."""
        entry_points = self.entry_points if isinstance(self.entry_points, bool) else sorted(self.entry_points)
        return {
            "files": None if self.files is None else str(self.files),
            "entry_points": entry_points,
            "disabled": sorted(self.disabled),
        }


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything one runner needs to know."""

    runtime: str
    model: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    #: For people: names the thread and stands in messages.
    label: str = ""
    plugins: PluginPlace = field(default_factory=PluginPlace)
    #: Longest time until the model is loaded, seconds.
    start_timeout_s: float = 300.0
    #: Longest silence while there is work, seconds.
    silence_timeout_s: float = 300.0
    #: What the runner prints is appended here; None keeps it in a nameless temporary file.
    log: Path | None = None
    #: Variables from the configuration; they win over what is inherited, not over what keeps a runner offline.
    env: Mapping[str, str] = field(default_factory=dict)
    #: MLX's limits in bytes; None leaves MLX's own.
    memory_limit: int | None = None
    cache_limit: int | None = None
    #: Whether the model's memory is kept from being paged out (macOS).
    wired: bool = False
    #: Whether requests that ran out of memory together are asked again at no cost; not for ever, if less does not help.
    forgiving: bool = True

    @property
    def arguments(self) -> list[str]:
        """Return the interpreter's arguments; the wire's descriptor is appended."""
        # -I: neither the current folder nor PYTHONPATH may put another module in the place of ours.
        return ["-I", "-X", "utf8", "-m", "daemon.models.runner"]

    def message(self) -> dict[str, Any]:
        """Return the first message."""
        return {
            "op": "load",
            "runtime": self.runtime,
            "model": str(self.model),
            "log": None if self.log is None else str(self.log),
            "options": dict(self.options),
            "plugins": self.plugins.message(),
            "limits": {"memory": self.memory_limit, "cache": self.cache_limit, "wired": self.wired},
        }

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what the runner may see of *environ*."""
        kept = {key: value for key, value in environ.items() if key in _ALLOWED or key.startswith(_ALLOWED_PREFIXES)}
        return {**kept, **self.env, **_FIXED}


class Stderr:
    """Where a runner's output goes, and how its last words are read back."""

    def __init__(self, path: Path | None) -> None:
        self.file: BinaryIO = _open_log(path) if path is not None else tempfile.TemporaryFile()  # noqa: SIM115 - see close
        self._from = self.file.seek(0, 2)

    def tail(self) -> str:
        """Return the end of what this runner wrote."""
        end = self.file.seek(0, 2)
        self.file.seek(max(self._from, end - _TAIL))
        return self.file.read(_TAIL).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Give the descriptor back."""
        self.file.close()


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size > MAX_LOG:
        path.replace(path.with_name(path.name + ".1"))
    path.touch(mode=0o600)
    return path.open("a+b")
