"""Turns pydantic's findings into sentences for the person who wrote the parameters; pure."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

#: Longest piece of a wrong value that is repeated: enough to recognise it, too little to leak a prompt into a log.
_SHOWN = 40


def complaints(error: ValidationError, model: type[BaseModel]) -> list[dict[str, str]]:
    """Return each problem of *error* as ``{"field", "message"}``; *model* serves to guess misspelt names."""
    found = []
    for problem in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"]) or "params"
        found.append({"field": field, "message": _message(problem, model)})
    return found


def _message(problem: Any, model: type[BaseModel]) -> str:
    kind, text = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _names(model), n=1)
        return "there is no such parameter" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return "it is needed"
    if kind in ("value_error", "assertion_error"):
        return str(text).partition(", ")[2] or str(text)
    shown = repr(problem["input"])
    got = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return f"{text[:1].lower()}{text[1:]}, got {got}"


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
