"""Runs tasks one after another in one job, each with what those before it said; a finished step is not done again."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import InvalidParams, InvalidRequest, MlxdError, ModelError, OutputError, RequestFailed, Unavailable
from plugins.complaints import complaints
from plugins.task import TaskContext

_VERSION: Final = 1
#: ``{text}``, ``{file}`` and ``{steps.NAME.text}``; every other brace is just a brace.
_PLACEHOLDER: Final = re.compile(r"\{(text|file|steps\.([A-Za-z0-9_-]+)\.text)\}")
#: Parameters that name files or models. What a model wrote must never choose one of those.
_NOT_FOR_TEXT: Final = frozenset({"file", "folder", "output", "model", "draft_model", "adapter"})
#: A step that has one of these has its input already.
_INPUTS: Final = frozenset({"prompt", "messages", "file", "folder", "text"})
#: Longest string that a step's summary repeats.
_SUMMARY: Final = 300
#: Errors that get the step's name put before them; the others are about the job, not the step.
_STEP_ERRORS: Final = (InvalidRequest, RequestFailed, ModelError, Unavailable, OutputError)


class Step(BaseModel):
    """One step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(min_length=1, max_length=64, description="Which task to run.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Its parameters; in strings, {text} is the last step's text, {file} the pipeline's file and "
        "{steps.NAME.text} the text of an earlier step.",
    )
    name: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="Default: the task's name."
    )
    output: bool = Field(default=True, description="Whether the files that this step writes are kept.")


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a step can refer to."""

    #: The last step's text; before the first step the pipeline's own.
    text: str | None
    file: Path | None
    #: Step name -> its text.
    texts: Mapping[str, str | None]


def names(steps: Sequence[Step]) -> list[str]:
    """Return each step's name: its own, or its task's, with the step's number if that is taken."""
    found: list[str] = []
    for number, step in enumerate(steps, start=1):
        name = step.name or step.task
        found.append(f"{name}-{number}" if step.name is None and name in found else name)
    return found


def expand(params: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """Return *params* with the placeholders in their strings replaced, once: replaced text is not looked at again.

    Raises:
        InvalidParams: a placeholder stands for nothing, or text would become a path.

    """
    if not (_INPUTS & params.keys() or _mentions(params)):
        params = {**params, **_implied(given)}
    return {key: _expanded(value, key, given) for key, value in params.items()}


def _implied(given: Given) -> dict[str, str]:
    """Return the input of a step that names none: the file for the first one, afterwards the text."""
    return {"file": "{file}"} if given.text is None and given.file is not None else {"prompt": "{text}"}


def _mentions(value: Any) -> bool:
    if isinstance(value, str):
        return _PLACEHOLDER.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(_mentions, value.values()))
    return isinstance(value, list) and any(map(_mentions, value))


def _expanded(value: Any, key: str, given: Given) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _replacement(match, key, given), value)
    if isinstance(value, Mapping):
        return {name: _expanded(one, name, given) for name, one in value.items()}
    if isinstance(value, list):
        return [_expanded(one, key, given) for one in value]
    return value


def _replacement(match: re.Match[str], key: str, given: Given) -> str:
    placeholder, step = match.group(), match.group(2)
    if match.group(1) == "file":
        if given.file is None:
            raise InvalidParams(f"{key}: {placeholder} stands for nothing, the pipeline has no file")
        return str(given.file)
    if key in _NOT_FOR_TEXT:
        raise InvalidParams(f"{key}: {placeholder} is not allowed here, text never becomes a path or a model")
    text = given.text if step is None else given.texts.get(step)
    if text is None:
        what = "there is no text yet" if step is None else f"there is no text of an earlier step {step!r}"
        raise InvalidParams(f"{key}: {placeholder} stands for nothing, {what}")
    return text


def check(
    steps: Sequence[Step],
    *,
    text: str | None,
    file: Path | None,
    validate: Callable[[str, Mapping[str, Any]], Any] | None,
    refused: Collection[str],
) -> None:
    """Check every step before any runs, with sample texts in place of what will be said.

    Raises:
        InvalidParams: names the step. An unknown task passes through as `UnknownTask`.

    """
    called = names(steps)
    if len(set(called)) != len(called):
        raise InvalidParams("two steps have the same name")
    given = Given(text=text, file=file, texts={})
    for name, step in zip(called, steps, strict=True):
        if step.task in refused:
            raise InvalidParams(f"step {name}: a pipeline cannot be a step of a pipeline")
        try:
            params = expand(step.params, given)
            if validate is not None:
                validate(step.task, params)
        except InvalidParams as error:
            raise InvalidParams(f"step {name}: {error.message}") from error
        given = Given(text="text", file=file, texts={**given.texts, name: "text"})


def run_steps(
    ctx: TaskContext, steps: Sequence[Step], *, text: str | None, file: Path | None, stem: str
) -> list[dict[str, Any]]:
    """Run *steps* in order and return a summary of each with its full ``text``; go on where an earlier attempt stopped.

    Raises:
        MlxdError: what a step raised, its message naming the step.

    """
    called = names(steps)
    done = _restored(ctx.saved, steps, called)
    for number in range(len(done), len(steps)):
        ctx.check()
        step, name = steps[number], called[number]
        ctx.progress(number, len(steps), unit="steps", message=f"step {number + 1} of {len(steps)}: {name}")
        texts = {one["name"]: one["text"] for one in done}
        given = Given(text=done[-1]["text"] if done else text, file=file, texts=texts)
        done.append({"name": name, "task": step.task, **_summary(_run(ctx, step, name, given, f"{stem}.{name}"))})
        ctx.checkpoint({"version": _VERSION, "steps": done})
    ctx.progress(len(steps), len(steps), unit="steps")
    return done


def _run(ctx: TaskContext, step: Step, name: str, given: Given, stem: str) -> dict[str, Any]:
    quiet: dict[str, Any] = {} if step.output else {"outputs": False}
    try:
        return ctx.run(step.task, expand(step.params, given), stem=stem, **quiet)
    except ValidationError as error:
        found = "; ".join(f"{one['field']}: {one['message']}" for one in complaints(error, Step))
        raise InvalidParams(f"Step {name}: {found}", step=name) from error
    except MlxdError as error:
        if isinstance(error, _STEP_ERRORS):
            error.args = (f"Step {name}: {error.message}",)
            error.facts["step"] = name
        raise


def _restored(saved: Mapping[str, Any] | None, steps: Sequence[Step], called: Sequence[str]) -> list[dict[str, Any]]:
    """Return the finished steps that *saved* tells of, as far as they are still these steps."""
    if not saved or saved.get("version") != _VERSION:
        return []
    done = []
    for before, step, name in zip(saved["steps"], steps, called, strict=False):
        if (before["name"], before["task"]) != (name, step.task):
            break
        done.append(dict(before))
    return done


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text of *result* in full, and of the rest what is small."""
    text = result.get("text")
    small = {
        key: value
        for key, value in result.items()
        if isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= _SUMMARY)
    }
    # A remark on a step ("the file is cut short") is one on the whole; calls are what a step with tools is for.
    lists = {key: result[key] for key in ("notes", "tool_calls") if result.get(key)}
    return {**small, **lists, "text": text if isinstance(text, str) else None}
