"""What a job is likely to take: time by past jobs of its task, memory by the models it asks for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jobs.model import NewJob
from plugins.task import Task

#: Inputs of at least this many bytes (their median) take time by their size; smaller ones by their number.
BY_SIZE: Final = 1_000_000
_MB: Final = 1_000_000
#: Which runtime the built-in tasks ask for a model, and under which parameter they are told which one.
_MODELS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "generate": (("lm", "model"),),
    "batch": (("lm", "model"),),
    "transcribe": (("whisper", "model"),),
    "memo": (("whisper", "whisper"), ("lm", "lm")),
}

Defaults = Callable[[str], Mapping[str, Any]]


class Past(NamedTuple):
    """One job that was done: its input's size in bytes, None if not known, and how long it took, in seconds."""

    size: int | None
    seconds: float


class Expectation(NamedTuple):
    """How long something takes, in seconds (None: unknown), and how that is known."""

    seconds: float | None
    basis: str


def expect(past: Sequence[Past], size: int) -> Expectation:
    """Return how long a job with an input of *size* bytes takes, by the median of *past* jobs of the same task."""
    if not past:
        return Expectation(None, "unknown: no job of this task was done yet")
    sized = [(one.size, one.seconds) for one in past if one.size]
    count = f"{len(past)} past job{'' if len(past) == 1 else 's'}"
    if sized and statistics.median(bytes_ for bytes_, _ in sized) >= BY_SIZE:
        rate = statistics.median(seconds / (bytes_ / _MB) for bytes_, seconds in sized)
        return Expectation(rate * size / _MB, f"{rate:.3g} s per MB, the median of {count}")
    each = statistics.median(one.seconds for one in past)
    return Expectation(each, f"{each:.3g} s per file, the median of {count}")


def models_of(new: NewJob, task: Callable[[str], Task], defaults: Defaults) -> tuple[tuple[str, str | None], ...]:
    """Return (runtime, model reference or None for the default) of every model that *new* will ask for.

    A plugin's task says which runtime it uses by an attribute ``runtime``; without it nothing is known of it.
    """
    return tuple(dict.fromkeys(models_asked(new.task, new.params, task, defaults)))


def models_asked(
    name: str, params: Mapping[str, Any], task: Callable[[str], Task], defaults: Defaults
) -> Iterable[tuple[str, str | None]]:
    """Yield (runtime, model reference or None) in the order in which the task *name* asks for them."""
    given = {**defaults(name), **params}
    if isinstance(steps := given.get("steps"), (list, tuple)) and name == "pipeline":
        for step in steps:
            yield from models_asked(str(step.get("task")), step.get("params") or {}, task, defaults)
    elif name in _MODELS:
        yield from ((runtime, given.get(parameter)) for runtime, parameter in _MODELS[name])
    elif runtime := getattr(task(name), "runtime", None):
        yield str(runtime), given.get("model")
