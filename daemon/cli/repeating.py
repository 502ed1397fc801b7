"""The job that made a file, once more: what a sidecar says, as a job to submit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from daemon.cli.verifying import input_state
from jobs.errors import InvalidInput
from jobs.provenance import Provenance, UsedModel

#: Task -> runtime -> the parameter that names its model.
_MODEL_PARAMS: Final[Mapping[str, Mapping[str, str]]] = {
    "generate": {"lm": "model"},
    "batch": {"lm": "model"},
    "transcribe": {"whisper": "model"},
    "memo": {"lm": "lm", "whisper": "whisper"},
}


def again(
    made: Provenance, params: Mapping[str, Any], config: Mapping[str, Any], *, directory: Path | None
) -> dict[str, Any]:
    """Return the body of the request that does *made* again, with what it was asked for (*params*).

    What the configuration (*config*, in force now) said otherwise then is said by the job itself now. Results go
    where the first ones are, under a free name, or into *directory*.

    Raises:
        InvalidInput: the input is gone, or is another one.

    """
    placement = {"directory": made.placement.directory, "stem": made.placement.stem}
    if directory is not None:
        placement["directory"] = directory
    return {
        "task": made.task,
        "params": {**_defaults(made, config), **_models(made, params, config), **params, **_input(made)},
        "lane": "interactive",
        "parent": made.job,
        "placement": {name: str(value) for name, value in placement.items() if value is not None},
        "source": {"kind": "retry", "detail": made.job},
        # To have the result made anew is the point.
        "reuse": False,
        "provenance": True,
    }


def _input(made: Provenance) -> dict[str, Any]:
    if made.input is None or made.input.sha256 is None:
        return {}
    state = input_state(made.input)
    if state["state"] == "same":
        return {"file": state["path"]}
    why = {"missing": "is gone", "changed": "is another one now"}.get(state["state"], "cannot be read")
    raise InvalidInput(
        f"The input {made.input.path} {why}, so the same work cannot be done again. Put the first one back "
        f"(SHA-256 {made.input.sha256}), there or into done/ beside it.",
        file=made.input.path,
    )


def _defaults(made: Provenance, config: Mapping[str, Any]) -> dict[str, Any]:
    now = config.get("tasks", {}).get(made.task, {})
    return {name: value for name, value in made.defaults.items() if now.get(name) != value}


def _models(made: Provenance, params: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Name the models that were the defaults then, where others are now."""
    known, now = _MODEL_PARAMS.get(made.task, {}), config.get("defaults", {})
    found: dict[str, Any] = {}
    for model in made.models:
        name = known.get(model.runtime)
        if name and name not in params and _was_default(model) and now.get(model.runtime) != model.name:
            found[name] = model.name
    return found


def _was_default(model: UsedModel) -> bool:
    return model.ref is None
