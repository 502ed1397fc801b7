"""The parameters of `batch`, and of one line of its JSONL file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from jobs.errors import InvalidParams
from plugins.chat import Message
from plugins.complaints import complaints
from plugins.generate import TEXT
from plugins.generation import Sampling
from plugins.inputs import AbsolutePath
from plugins.items import Item


class Params(Sampling):
    """Parameters of `batch`: exactly one of *folder* and *file*, and what `generate` knows about sampling."""

    folder: AbsolutePath | None = Field(default=None, description="Folder of prompt files.")
    globs: list[str] = Field(
        default=["*.txt", "*.md"], min_length=1, description="Which files of the folder are prompts."
    )
    recursive: bool = Field(default=True, description="Take the folder's subfolders too.")
    only_new: bool = Field(
        default=False, description="Folder: leave out prompts that are older than their output already there."
    )
    file: AbsolutePath | None = Field(default=None, description=".jsonl with prompts or messages, or .csv (UTF-8).")
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000_000,
        description="Prompt around each item: '{text}' is a file's text, '{column}' a field of a CSV or JSONL line.",
    )
    system: str | None = Field(default=None, max_length=1_000_000, description="How the model should behave.")
    limit: int | None = Field(default=None, ge=1, description="Most items to do in this job; the others are left.")
    only_failed: AbsolutePath | None = Field(
        default=None, description="Manifest of an earlier batch: do only what failed or was left there."
    )
    retries: int = Field(default=1, ge=0, le=10, description="How often a failed item is asked again.")
    concurrency: int = Field(default=32, ge=1, le=256, description="Most items in flight at a time.")
    on_error: Literal["continue", "fail"] = Field(
        default="continue", description="Whether one failed item fails the whole job at once."
    )
    max_input_bytes: int = Field(default=10_000_000, ge=1, description="Largest prompt file to take, in bytes.")
    max_items_bytes: int = Field(default=256_000_000, ge=1, description="Largest .jsonl or .csv to take, in bytes.")

    @model_validator(mode="after")
    def _one_input(self) -> Params:
        if (self.folder is None) == (self.file is None):
            raise ValueError("exactly one of folder and file is needed")
        if self.file is not None and self.file.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
            raise ValueError(f"file must be a .jsonl or a .csv, got {self.file.name!r}")
        if self.file is not None and self.file.suffix.lower() == ".csv" and self.template is None:
            raise ValueError("a .csv needs a template, in which {column} stands for that column's value")
        if self.folder is not None and self.template is not None and TEXT not in self.template:
            raise ValueError("template has no {text} in it, so the prompts would be lost")
        return self


class Line(Sampling):
    """What a line of a JSONL file may say; what it does not say is the batch's."""

    prompt: str | None = Field(default=None, min_length=1, max_length=10_000_000)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=10_000)
    system: str | None = None
    raw: bool = False

    @model_validator(mode="after")
    def _one_input(self) -> Line:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of prompt and messages is needed")
        if self.model_fields_set & {"model", "draft_model"}:
            raise ValueError("the model is the same for the whole batch, and so is the draft model")
        if self.raw and (self.prompt is None or self.system is not None):
            raise ValueError("raw text has no turns: it needs prompt, without system")
        if self.raw and self.tools:
            raise ValueError("raw text has no place for tools")
        return self


def line_of(item: Item, params: Params) -> Line:
    """Return what *item*, a line, asks for; *params* fills in what the line does not say.

    Raises:
        InvalidParams: the line says something that is not understood; names its number.

    """
    try:
        own = Line.model_validate(dict(item.params))
    except ValidationError as error:
        found = "; ".join(f"{one['field']}: {one['message']}" for one in complaints(error, Line))
        raise InvalidParams(f"line {item.key}: {found}") from error
    shared = {name: getattr(params, name) for name in Sampling.model_fields}
    return own.model_copy(update={name: value for name, value in shared.items() if name not in own.model_fields_set})
