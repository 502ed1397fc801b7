"""The turns of a chat and the tools a model may call, in OpenAI's form, as a submitter writes them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _parsed(value: Any) -> Any:
    """Return arguments as an object: OpenAI writes them as JSON inside a string."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON: {error}") from error


def _said(value: Any) -> Any:
    return "" if value is None else value


class Called(BaseModel):
    """Which function was called, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=256)
    arguments: Annotated[dict[str, Any], BeforeValidator(_parsed)] = Field(default_factory=dict)


class ToolCall(BaseModel):
    """A call that the model made, as a result tells it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str | None = Field(default=None, max_length=256)
    type: Literal["function"] = "function"
    function: Called


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_said)] = Field(default="", max_length=10_000_000)
    #: What the assistant called in this turn.
    tool_calls: list[ToolCall] = Field(default_factory=list, max_length=256)
    #: Which call this turn of the role ``tool`` answers.
    tool_call_id: str | None = Field(default=None, max_length=256)
    name: str | None = Field(default=None, max_length=256)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"only the assistant makes tool_calls, this turn is the {self.role}'s")
        if "content" not in self.model_fields_set and not self.tool_calls:
            raise ValueError("content is missing")
        return self

    def turn(self) -> dict[str, Any]:
        """Return the turn as a chat template gets it."""
        turn = {"role": self.role, "content": self.content, **self.model_dump(exclude_none=True)}
        return turn if self.tool_calls else {name: value for name, value in turn.items() if name != "tool_calls"}


class Function(BaseModel):
    """What can be called; ``parameters`` is a JSON Schema."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(min_length=1, max_length=256)


class Tool(BaseModel):
    """A tool the model may call."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Literal["function"]
    function: Function
