"""The task `generate`: a prompt, a chat or a text file in; text or JSON out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError, model_validator

from jobs.errors import InvalidInput, InvalidParams
from plugins import front_matter
from plugins.chat import Message
from plugins.complaints import complaints
from plugins.following import follow
from plugins.generation import Sampling, chat, parts_body, parts_file, read_reply, usage
from plugins.hookspecs import hookimpl
from plugins.inputs import AbsolutePath, opening, read_text
from plugins.task import Task, TaskContext

#: Where `template` takes the text.
TEXT: Final = "{text}"
_INPUTS: Final = ("prompt", "messages", "file")


class Params(Sampling):
    """Parameters of `generate`: exactly one of *prompt*, *messages* and *file*."""

    prompt: str | None = Field(default=None, min_length=1, max_length=10_000_000, description="What to ask.")
    messages: list[Message] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="A chat so far, as [{role, content}, ...]; tool_calls and the role tool as OpenAI writes them.",
    )
    file: AbsolutePath | None = Field(default=None, description="A UTF-8 text file that holds the prompt.")
    system: str | None = Field(default=None, max_length=1_000_000, description="How the model should behave.")
    template: str | None = Field(
        default=None, max_length=1_000_000, description="Put around prompt or file: '{text}' stands for it."
    )
    raw: bool = Field(default=False, description="Continue the text as it is, without the model's chat template.")
    output: str | None = Field(
        default=None, min_length=1, max_length=255, description="Name of the result file; default: after the input."
    )
    max_input_bytes: int = Field(default=10_000_000, ge=1, description="Largest file to take, in bytes.")
    front_matter: bool = Field(
        default=True, description="Let a block between two '---' lines at the file's beginning set parameters."
    )

    @model_validator(mode="after")
    def _one_input(self) -> Params:
        given = [name for name in _INPUTS if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"exactly one of prompt, messages and file is needed, got {got}")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("prompt is blank")
        return self

    @model_validator(mode="after")
    def _fitting(self) -> Params:
        if self.template is not None and TEXT not in self.template:
            raise ValueError("template has no {text} in it, so the input would be lost")
        if self.template is not None and self.messages is not None:
            raise ValueError("template needs prompt or file, not messages")
        if self.raw and (self.messages is not None or self.system is not None):
            raise ValueError("raw text has no turns: it needs prompt or file, without system")
        if self.raw and self.tools:
            raise ValueError("raw text has no place for tools: leave one of the two out")
        if self.system is not None and any(one.role == "system" for one in self.messages or ()):
            raise ValueError("system is given twice: as a parameter and in messages")
        return self


class Generate:
    """Asks a language model once."""

    name = "generate"
    summary = "Answer a prompt, a chat or a text file with a language model"
    params: type[BaseModel] = Params
    repeatable = True

    def run(self, ctx: TaskContext, params: Params) -> dict[str, Any]:
        """Stream the answer to whoever follows, write it to a file and return it with its usage."""
        params, text = _read(ctx, params)
        request = params.request(_asked(params, text), schema=params.schema_for_request())
        request |= {"raw": True} if params.raw else {}
        with ctx.models(params.model, runtime="lm", **params.lease) as model:
            done = follow(model, request, _teller(ctx, params.max_tokens))
        reply = read_reply(params, done)
        name = _output_name(ctx, params, reply.suffix)
        written = ctx.output(name, reply.body)
        if reply.asked_beside:
            ctx.output(parts_file(name), parts_body(reply))
        result = {"text": reply.text, "model": params.model or model.info.get("ref"), **usage(done)}
        if params.wants_json:
            result["json"] = reply.data
        if done.get("notes"):
            result["notes"] = list(done["notes"])
        return {**result, "output": str(written.path)}


def _read(ctx: TaskContext, params: Params) -> tuple[Params, str]:
    """Return the prompt's text, and *params* with what its file says about itself.

    Only what the job itself was asked for counts more than the file.
    """
    if params.file is None:
        return params, params.prompt or ""
    # A watched folder is where strangers' files land: there, links are not followed.
    text = read_text(params.file, limit=params.max_input_bytes, **opening(ctx.job.placement))
    ctx.input_read()
    if not params.front_matter:
        return params, text.strip()
    said = front_matter.split(text)
    asked = ctx.job.params if ctx.job.task == Generate.name else {}
    own = {key: value for key, value in said.params.items() if key not in asked}
    if not said.text.strip():
        raise InvalidInput(f"{params.file} has no text after its front matter.", file=str(params.file))
    return _with(params, own), said.text.strip()


def _with(params: Params, own: Mapping[str, Any]) -> Params:
    if not own:
        return params
    try:
        return Params.model_validate({**params.model_dump(exclude_unset=True), **own})
    except ValidationError as error:
        found = "; ".join(f"{one['field']}: {one['message']}" for one in complaints(error, Params))
        raise InvalidParams(f"The front matter of {params.file} is not right: {found}") from error


def _asked(params: Params, text: str) -> str | Sequence[Message]:
    if params.messages is not None:
        return chat(params.messages, params.system)
    return chat((params.template or TEXT).replace(TEXT, text), params.system)


def _teller(ctx: TaskContext, most: int) -> Callable[[str, Mapping[str, Any]], None]:
    def tell(kind: str, data: Mapping[str, Any]) -> None:
        ctx.emit(kind, data)
        if kind in ("token", "reasoning"):
            ctx.progress(float(data.get("n", 0)), most, unit="tokens")
        elif kind == "prefill":
            message = f"reading the prompt, {data.get('done')} of {data.get('total')} tokens"
            ctx.progress(0, most, unit="tokens", message=message)

    return tell


def _output_name(ctx: TaskContext, params: Params, suffix: str) -> str:
    """Name the result after the input; beside it, as ``note.out.txt``, so that it is never taken for an input."""
    if params.output is not None:
        return params.output
    stem = ctx.stem or (params.file.stem if params.file else "reply")
    beside = params.file is not None and _same_folder(params.file.parent, ctx.directory)
    return f"{stem}.out{suffix}" if beside else f"{stem}{suffix}"


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer `generate`."""
    register(Generate())
