"""Whether what a plugin registers has the shape of the contract; pure."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def task_fault(task: Any) -> str | None:
    """Return what is wrong with *task*, or None if it obeys `plugins.task.Task`."""
    if fault := _common_fault(task, "task"):
        return fault
    params = getattr(task, "params", None)
    if not (isinstance(params, type) and issubclass(params, BaseModel)):
        return f"task {task.name!r}: params must be a pydantic model class, got {params!r}"
    if not callable(getattr(task, "run", None)):
        return f"task {task.name!r}: it has no method run(ctx, params)"
    return None


def runtime_fault(runtime: Any) -> str | None:
    """Return what is wrong with *runtime*, or None if it obeys `plugins.runtime.Runtime`."""
    if fault := _common_fault(runtime, "runtime"):
        return fault
    for method in ("estimate", "load"):
        if not callable(getattr(runtime, method, None)):
            return f"runtime {runtime.name!r}: it has no method {method}(model, options)"
    return None


def _common_fault(thing: Any, kind: str) -> str | None:
    if isinstance(thing, type):
        return f"{kind} {thing.__name__}: register an instance, not the class"
    name = getattr(thing, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{kind} {type(thing).__name__}: name must be 1 to 64 letters, digits, '.', '_' or '-', got {name!r}"
    if not isinstance(getattr(thing, "summary", None), str):
        return f"{kind} {name!r}: summary must be a line of text"
    return None
