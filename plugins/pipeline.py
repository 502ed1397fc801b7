"""The tasks `pipeline` (steps in a list) and `memo`, its sample: a spoken memo to its transcript and action items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from jobs.errors import InvalidParams
from plugins.hookspecs import hookimpl
from plugins.inputs import AbsolutePath, check_file, opening
from plugins.steps import Step, check, run_steps
from plugins.task import VALIDATE, Task, TaskContext


class Params(BaseModel):
    """Parameters of `pipeline`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: list[Step] = Field(min_length=1, max_length=32, description="What to run, in order.")
    file: AbsolutePath | None = Field(default=None, description="Input of the first step, {file} in every step.")
    text: str | None = Field(default=None, min_length=1, max_length=10_000_000, description="{text} of the first step.")

    @model_validator(mode="after")
    def _steps_fit(self, info: ValidationInfo) -> Params:
        validate = (info.context or {}).get(VALIDATE)
        try:
            check(self.steps, text=self.text, file=self.file, validate=validate, refused={Pipeline.name})
        except InvalidParams as error:  # pydantic collects ValueErrors only
            raise ValueError(error.message) from error
        return self


class Pipeline:
    """Runs several tasks, each with the text of the one before."""

    name = "pipeline"
    summary = "Run several tasks in a row, each with the text of the one before"
    params: type[BaseModel] = Params
    repeatable = True

    def run(self, ctx: TaskContext, params: Params) -> dict[str, Any]:
        """Run the steps and return the last one's text with a summary of each."""
        stem = ctx.stem or (params.file.stem if params.file else "pipeline")
        done = run_steps(ctx, params.steps, text=params.text, file=params.file, stem=stem)
        return {"text": done[-1]["text"], "steps": _without_text(done)}


class MemoParams(BaseModel):
    """Parameters of `memo`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: AbsolutePath = Field(description="The recording.")
    whisper: str | None = Field(default=None, min_length=1, description="Speech model; default: the configured one.")
    lm: str | None = Field(default=None, min_length=1, description="Language model; default: the configured one.")
    language: str | None = Field(
        default=None, min_length=2, max_length=20, description="Language spoken, as 'en'; default: found out."
    )
    instruction: str = Field(
        default="List the action items:\n{text}",
        max_length=100_000,
        description="What to ask about the transcript, which is {text}.",
    )
    max_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Most tokens in the answer.")

    @field_validator("instruction")
    @classmethod
    def _has_text(cls, value: str) -> str:
        if "{text}" not in value:
            raise ValueError("instruction has no {text} in it, so the transcript would be lost")
        return value

    def steps(self) -> list[Step]:
        """Return the pipeline this is."""
        hear = {"file": "{file}", "model": self.whisper, "language": self.language}
        ask = {"prompt": self.instruction, "model": self.lm, "max_tokens": self.max_tokens}
        return [
            Step(task="transcribe", name="transcript", params=_given(hear)),
            Step(task="generate", name="actions", params=_given(ask)),
        ]


class Memo:
    """A spoken memo becomes its transcript and its action items, a file each."""

    name = "memo"
    summary = "Write down a spoken memo and list its action items"
    params: type[BaseModel] = MemoParams
    repeatable = True

    def run(self, ctx: TaskContext, params: MemoParams) -> dict[str, Any]:
        """Write ``<stem>.transcript.txt`` and ``<stem>.actions.txt`` and return both texts."""
        check_file(params.file, **opening(ctx.job.placement))
        stem = ctx.stem or params.file.stem
        transcript, actions = run_steps(ctx, params.steps(), text=None, file=params.file, stem=stem)
        return {
            "text": actions["text"],
            "transcript": transcript["text"],
            "steps": _without_text([transcript, actions]),
        }


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def _without_text(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "text"} for one in done]


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer `pipeline` and `memo`."""
    register(Pipeline())
    register(Memo())
