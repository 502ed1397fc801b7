"""From what a person typed after `mlxd submit` to the body of a request. Imports as little as it can."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from daemon.cli.console import absolute
from jobs import toml
from jobs.errors import InvalidInput, InvalidParams

#: Tasks whose input is a recording.
_RECORDINGS: Final = frozenset({"transcribe", "memo"})
#: Flags whose name is the parameter's.
_PLAIN: Final = (
    "model",
    "draft_model",
    "prompt",
    "system",
    "template",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "limit",
    "retries",
    "language",
    "initial_prompt",
)
_STDIN: Final = "-"


@dataclass(kw_only=True)
class Asked:
    """The options of `mlxd submit` that make up a job, as they were typed."""

    task: str
    input: str | None = None
    model: str | None = None
    draft_model: str | None = None
    adapter: str | None = None
    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    limit: int | None = None
    retries: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    tools: str | None = None
    language: str | None = None
    formats: str | None = None
    words: bool = False
    translate: bool = False
    initial_prompt: str | None = None
    steps: str | None = None
    pairs: tuple[str, ...] = ()
    params_json: str | None = None
    lane: str | None = None
    priority: int = 0
    key: str | None = None
    output: str | None = None
    stem: str | None = None
    reuse: bool | None = None

    @classmethod
    def names(cls) -> list[str]:
        """Return the options' names."""
        return [field.name for field in fields(cls)]


def build(asked: Asked, *, cache: Path, waiting: bool) -> dict[str, Any]:
    """Return the job to submit; *cache* is where a recording from standard input is put down.

    Raises:
        InvalidInput: a file is missing, or is not what was said.
        InvalidParams: an option cannot be understood.

    """
    placement: dict[str, Any] = {}
    params = given_params(asked)
    _take_input(asked, params, placement, cache)
    if asked.output is not None:
        placement["directory"] = str(absolute(asked.output))
    if asked.stem is not None:
        placement["stem"] = asked.stem
    return {
        "task": asked.task,
        "params": params,
        "lane": asked.lane or _lane(asked.task, waiting=waiting),
        "priority": asked.priority,
        "idempotency_key": asked.key,
        "placement": placement,
        "source": {"kind": "cli"},
        **({"reuse": asked.reuse} if asked.reuse is not None else {}),
    }


def takes_recording(asked: Asked) -> bool:
    """Tell whether `build` will put a recording from standard input down."""
    return asked.input == _STDIN and asked.task in _RECORDINGS


def forget(body: dict[str, Any]) -> None:
    """Remove the recording that was put down for a job nobody took."""
    if spooled := body["placement"].get("input"):
        Path(spooled).unlink(missing_ok=True)


def _lane(task: str, *, waiting: bool) -> str:
    if task == "batch":
        return "batch"
    return "interactive" if waiting else "normal"


def given_params(asked: Asked) -> dict[str, Any]:
    """Return the parameters, which can be said in three ways; the more particular way wins. Raises as `build` does."""
    params: dict[str, Any] = _object(asked.params_json) if asked.params_json is not None else {}
    params.update(_pair(text) for text in asked.pairs)
    params.update({name: getattr(asked, name) for name in _PLAIN if getattr(asked, name) is not None})
    if asked.stop:
        params["stop"] = list(asked.stop)
    if asked.schema is not None:
        params["json_schema"] = _object("@" + asked.schema)
    if asked.tools is not None:
        params["tools"] = _tools(asked.tools)
    if asked.adapter is not None:
        params["adapter"] = str(absolute(asked.adapter))
    if asked.formats is not None:
        params.update(_formats(asked))
    if asked.words:
        params["word_timestamps"] = True
        params.setdefault("formats", ["txt", "json"])
    if asked.translate:
        params["task"] = "translate"
    if asked.steps is not None:
        params["steps"] = _steps(asked.steps)
    return params


def _formats(asked: Asked) -> dict[str, Any]:
    if asked.task in {"generate", "batch"}:
        return {"format": asked.formats}
    return {"formats": [part.strip() for part in (asked.formats or "").split(",") if part.strip()]}


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidParams(f"--param wants KEY=VALUE, got {text!r}.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _object(text: str) -> dict[str, Any]:
    what = text[1:] if text.startswith("@") else "--params"
    if text.startswith("@"):
        text = _read(what)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidParams(f"{what} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidParams(f"{what} must be a JSON object.")
    return value


def _tools(name: str) -> Any:
    try:
        value = json.loads(_read(name))
    except ValueError as error:
        raise InvalidParams(f"{name} is not JSON: {error}.") from error
    return value.get("tools", value) if isinstance(value, dict) else value


def _steps(name: str) -> Any:
    text = _read(name)
    try:
        if name.endswith(".toml"):
            value: Any = toml.parse(text)
        else:
            value = json.loads(text)
    except ValueError as error:
        raise InvalidParams(f"{name} cannot be read: {error}.") from error
    return value.get("steps", value) if isinstance(value, dict) else value


def _read(name: str) -> str:
    try:
        return absolute(name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {name}.") from error
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8 text: {error}.") from error


def _take_input(asked: Asked, params: dict[str, Any], placement: dict[str, Any], cache: Path) -> None:
    """Turn the second argument into the task's parameter for its kind of input."""
    given = asked.input
    if given is None and _wants_stdin(asked.task, params):
        given = _STDIN
    if given is None:
        return
    if given != _STDIN:
        name, value = _named(asked.task, given)
    elif asked.task in _RECORDINGS:
        spooled = str(_spool(cache))
        # The daemon removes it when the job has succeeded, like any input that it is told to delete.
        placement.update({"input": spooled, "after": "delete", "stem": "stdin"})
        name, value = "file", spooled
    else:
        name, value = _text_name(asked.task), _stdin_text()
    if name in params:
        raise InvalidParams(f"The input is given twice: as an argument and as {name!r}.")
    params[name] = value


def _wants_stdin(task: str, params: dict[str, Any]) -> bool:
    """Return whether `... | mlxd submit generate` can only mean one thing."""
    has_input = {"prompt", "messages", "file"} & set(params)
    return task == "generate" and not has_input and not sys.stdin.isatty()


def _text_name(task: str) -> str:
    return "prompt" if task == "generate" else "text"


def _named(task: str, given: str) -> tuple[str, str]:
    path = absolute(given)
    if task == "batch" and path.is_dir():
        return "folder", str(path)
    if _is_there(path):
        if path.is_dir():
            raise InvalidInput(f"{given} is a folder; `mlxd submit batch` takes folders.")
        return "file", str(path)
    if task in _RECORDINGS or task == "batch" or _looks_like_a_path(given):
        raise InvalidInput(f"There is no file {given}.", file=str(path))
    return _text_name(task), given


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name: it is a text
        return False


def _looks_like_a_path(text: str) -> bool:
    """Guess, for an input that does not exist: a mistyped name should not become a prompt."""
    one_word = not any(character.isspace() for character in text)
    return one_word and ("/" in text or bool(Path(text).suffix[1:].isalnum() and Path(text).suffix))


def _stdin_text() -> str:
    data = sys.stdin.buffer.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise InvalidInput("Standard input is empty.")
    return text


def _spool(cache: Path) -> Path:
    """Put a recording from standard input down in a private file, which the daemon can read."""
    import shutil
    import tempfile

    folder = cache / "stdin"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="stdin-", dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        size = file.tell()
    if size == 0:
        Path(name).unlink()
        raise InvalidInput("Standard input is empty.")
    return Path(name)
