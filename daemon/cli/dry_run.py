"""Shows a dry run of a watched folder to a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from daemon.cli.console import note, write
from daemon.cli.display import duration, size, table

_WORDS: Final = {
    "would_run": "runs",
    "would_fail": "would fail",
    "waits": "waits",
    "done": "done",
    "left_alone": "-",
    "cloud_pending": "in cloud",
}


def show(found: Mapping[str, Any]) -> None:
    """Print the answer of ``POST /v1/folders/test``."""
    if found["problem"]:
        note(f"{found['folder']} ({found['state']}): {found['problem']}")
    elif found["state"] == "paused":
        note(f"{found['folder']} is paused: nothing is taken until `mlxd folders resume {found['folder']}`.")
    files = found["files"]
    if files:
        table(
            ["file", "", "rule", "task", "results", "about", "memory", ""],
            [_row(one, Path(found["folder"])) for one in files],
        )
    more = f", {found['more']} more files not listed" if found["more"] else ""
    write(
        f"{found['would_run']} of {len(files)} would run{more}; in a row about {_time(found['seconds'])}, "
        f"models {size(found['memory_bytes']) if found['memory_bytes'] is not None else 'unknown'}. "
        "Nothing was written."
    )


def _row(one: Mapping[str, Any], folder: Path) -> tuple[Any, ...]:
    path = Path(one["path"])
    running = one["verdict"] == "would_run"
    return (
        path.relative_to(folder) if path.is_relative_to(folder) else path,
        _WORDS.get(one["verdict"], one["verdict"]),
        one["rule"] or "",
        one["task"] or "",
        f"{one['directory']}/{one['stem']}.*" if running else "",
        _time(one["seconds"]) if running else "",
        size(one["memory_bytes"]) if one["memory_bytes"] is not None and running else "",
        _remarks(one),
    )


def _remarks(one: Mapping[str, Any]) -> str:
    parts = [one["why"] or ""]
    if one["params"]:
        parts.append(", ".join(f"{key}={value!r}" for key, value in one["params"].items())[:200])
    if one["left_out"]:
        parts.append(f"left out, as {one['task']} does not have it: {', '.join(one['left_out'])}")
    if one["wait_s"]:
        parts.append(f"in {duration(one['wait_s'])}")
    return "; ".join(part for part in parts if part)


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)
