"""Whether what a plugin registers has the shape of the contract; pure."""

from __future__ import annotations

import inspect
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
    if inspect.iscoroutinefunction(task.run):
        return f"task {task.name!r}: run must be an ordinary function, it has a thread to itself"
    return None


def stranger_fault(task: Any) -> str | None:
    """Return what `task_fault` does, or that the parameters have no JSON Schema.

    One such would spoil the list of all tasks. Making the schema takes a millisecond or two, so it is asked of
    strangers only; our tests ask the tasks that we ship.
    """
    if fault := task_fault(task):
        return fault
    try:
        task.params.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a stranger's types may do anything when asked for their schema
        return f"task {task.name!r}: its params have no JSON Schema: {str(error).splitlines()[0]}"
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
