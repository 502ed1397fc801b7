"""``[shortcuts.<name>]``: menu entries of one's own."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from jobs.model import Frozen


class ShortcutConfig(Frozen):
    """``[shortcuts.<name>]``: a task with its parameters, as `mlxd shortcuts install <name>` puts it into the menus."""

    #: Name of a task.
    task: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: What the menu says; None: "<Name> with mlxd".
    title: str | None = Field(default=None, min_length=1, max_length=100)
    #: Its parameters.
    params: dict[str, Any] = Field(default_factory=dict)
    #: What is selected.
    input: Literal["files", "text", "folder"] = "files"
    #: What becomes of the text: printed (a Shortcut hands it on), put in place of the selected text, or copied.
    result: Literal["print", "replace", "copy"] = "print"
    #: Put result files beside each input; None: yes for files and folders, no for text.
    beside: bool | None = None

    @model_validator(mode="after")
    def _replaceable(self) -> Self:
        if self.result == "replace" and self.input != "text":
            raise ValueError("only text can be replaced by the result: input must be 'text'")
        return self
