"""What every task that generates text lets the submitter choose, and what it asks of the `lm` runtime for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from jobs.errors import InvalidInput, InvalidParams, RequestFailed
from plugins.chat import Message, Tool
from plugins.inputs import AbsolutePath, read_text
from plugins.lm_plan import DRAFT_TOKENS

#: Fields that go into the request as they are.
_PASSED: Final = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")
#: The same for those who ask for them.
_PASSED_IF_SAID: Final = (
    *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs"),
    *("num_draft_tokens", "kv_bits", "kv_group_size", "quantized_kv_start"),
)
#: What an answer may have besides its text.
_BESIDE: Final = ("reasoning", "tool_calls", "logprobs")
#: Of these the log-probabilities go into a job's result, too, if they are no more than this many.
MOST_LOGPROBS: Final = 4096
_SCHEMA_LIMIT: Final = 1_000_000
#: What ``format = "json"`` means when no schema is given.
_ANY_OBJECT: Final = {"type": "object"}


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Sampling(BaseModel):
    """How text is generated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str | None = Field(default=None, min_length=1, description="Model reference; default: the configured one.")
    max_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Most tokens to generate.")
    temperature: float = Field(default=0.0, ge=0, le=5, description="Randomness; 0 always takes the likeliest token.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample from the likeliest tokens of this total share.")
    top_k: int = Field(default=0, ge=0, description="Sample from this many likeliest tokens; 0: from all.")
    min_p: float = Field(default=0.0, ge=0, le=1, description="Leave out tokens below this share of the likeliest.")
    repetition_penalty: float | None = Field(default=None, gt=0, description="Above 1: repeat less.")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, description="Above 0: repeat no recent token.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="The same, by how often it came.")
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default_factory=dict, max_length=1024, description="Token id -> added to its logit; -100 rules it out."
    )
    logprobs: int | None = Field(
        default=None, ge=0, le=20, description="Tell each token's log-probability, and of so many of the likeliest."
    )
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Makes sampling repeatable.")
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_one_or_more)] = Field(
        default_factory=list, max_length=16, description="End before any of these texts."
    )
    adapter: AbsolutePath | None = Field(
        default=None, description="Folder of a LoRA adapter (mlx-lm's format) to answer with."
    )
    draft_model: str | None = Field(
        default=None, min_length=1, description="Smaller model that guesses ahead: speculative decoding, served alone."
    )
    num_draft_tokens: int | None = Field(
        default=None, ge=0, le=32, description="Tokens the draft model guesses at a time; default 3, 0: no draft."
    )
    kv_bits: Literal[4, 8] | None = Field(
        default=None, description="Keep the key-value cache in so few bits: less memory for long contexts."
    )
    kv_group_size: Literal[32, 64, 128] | None = Field(
        default=None, description="Numbers that share a scale in such a cache; default 64."
    )
    quantized_kv_start: int | None = Field(
        default=None, ge=0, description="Tokens in the cache from which on kv_bits counts; default 5000."
    )
    format: Literal["text", "json"] = Field(default="text", description="json: the answer is one JSON object.")
    json_schema: dict[str, Any] | AbsolutePath | None = Field(
        default=None, description="JSON Schema the answer obeys, inline or as the absolute path of a file."
    )
    tools: list[Tool] = Field(
        default_factory=list, max_length=256, description="Functions the model may call, in OpenAI's form."
    )
    tool_choice: Literal["auto", "none"] = Field(default="auto", description="none: the tools are not offered.")
    parallel_tool_calls: bool = Field(default=True, description="Whether an answer may have more than one call.")

    @model_validator(mode="after")
    def _room_for_calls(self) -> Self:
        if self.tools and self.wants_json:
            raise ValueError("tools and JSON do not go together: a JSON schema leaves no room for a call")
        return self

    @property
    def wants_json(self) -> bool:
        """Whether the answer has to be JSON."""
        return self.format == "json" or self.json_schema is not None

    @property
    def lease(self) -> dict[str, str]:
        """Return what `TaskContext.models` is asked for besides the model."""
        drafted = self.draft_model is not None and self.num_draft_tokens != 0
        return {"draft_model": str(self.draft_model)} if drafted else {}

    def schema_for_request(self) -> dict[str, Any] | None:
        """Return the JSON Schema to send.

        Raises:
            InvalidInput: it is in a file that cannot be read or is not a JSON object.

        """
        if not isinstance(self.json_schema, Path):
            return self.json_schema or (_ANY_OBJECT if self.wants_json else None)
        try:
            schema = json.loads(read_text(self.json_schema, limit=_SCHEMA_LIMIT))
        except ValueError as error:
            raise InvalidInput(f"{self.json_schema} is not JSON: {error}.", file=str(self.json_schema)) from error
        if not isinstance(schema, dict):
            raise InvalidInput(f"{self.json_schema} is not a JSON Schema object.", file=str(self.json_schema))
        return schema

    def request(
        self, asked: str | Sequence[Message], *, schema: dict[str, Any] | None, stream: bool = True
    ) -> dict[str, Any]:
        """Return the request for the `lm` runtime; *asked* is one user's prompt or a chat."""
        chosen = self.model_dump(include=set(_PASSED))
        more = self.model_dump(include=set(_PASSED_IF_SAID), exclude_defaults=True)
        if self.adapter is not None:
            more["adapter"] = str(self.adapter)
        if self.draft_model is not None:
            more.setdefault("num_draft_tokens", DRAFT_TOKENS)
        if self.tools and self.tool_choice == "auto":
            more["tools"] = [one.model_dump() for one in self.tools]
            more |= {} if self.parallel_tool_calls else {"parallel_tool_calls": False}
        what: dict[str, Any] = (
            {"prompt": asked} if isinstance(asked, str) else {"messages": [one.turn() for one in asked]}
        )
        return {**what, **chosen, **more, "json_schema": schema, "stream": stream}


def chat(prompt: str | Sequence[Message], system: str | None) -> str | Sequence[Message]:
    """Return *prompt* with *system* before it, if there is one."""
    if not system:
        return prompt
    turns = [Message.model_construct(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    return [Message.model_construct(role="system", content=system), *turns]


class Reply(NamedTuple):
    """A model's answer, checked."""

    text: str
    #: The parsed answer, where JSON was asked for.
    data: Any
    #: What goes into the file.
    body: str
    #: ".txt" or ".json".
    suffix: str
    #: What the answer has besides its text: ``reasoning``, ``tool_calls``, ``logprobs``.
    beside: Mapping[str, Any] = MappingProxyType({})

    @property
    def asked_beside(self) -> bool:
        """Whether something is beside the text that was asked for, which thoughts are not."""
        return bool(self.beside.keys() - {"reasoning"})


def read_reply(params: Sampling, done: dict[str, Any]) -> Reply:
    """Return the answer in *done*, the runtime's result.

    Raises:
        InvalidParams: JSON was asked for and did not fit into ``max_tokens``.
        RequestFailed: JSON was asked for and something else came.

    """
    text = str(done["text"])
    beside = {name: done[name] for name in _BESIDE if done.get(name)}
    if not params.wants_json:
        return Reply(text, None, text if text.endswith("\n") else text + "\n", ".txt", beside)
    try:
        data = json.loads(text)
    except ValueError as error:
        if done.get("finish_reason") == "length":
            cut = f"The JSON answer was cut off after max_tokens={params.max_tokens}; allow more."
            raise InvalidParams(cut, text=text[:1000]) from error
        raise RequestFailed(f"The model's answer is not JSON: {error}.", text=text[:1000]) from error
    return Reply(text, data, json.dumps(data, ensure_ascii=False, indent=2) + "\n", ".json", beside)


def usage(done: dict[str, Any]) -> dict[str, Any]:
    """Return what the runtime said about *done* besides the text; too many log-probabilities are left to the file."""
    lines = done.get("logprobs") or ()
    much = sum(1 + len(line["top"]) for line in lines) > MOST_LOGPROBS
    left = {"text", "logprobs"} if much else {"text"}
    return {key: value for key, value in done.items() if key not in left and value not in (None, [])}


def parts_file(name: str) -> str:
    """Return what the file is called that holds what an answer has besides the text in the file *name*."""
    return str(PurePath(name).with_suffix(".parts.json"))


def parts_body(reply: Reply) -> str:
    """Return the content of that file."""
    return json.dumps(dict(reply.beside), ensure_ascii=False, indent=1) + "\n"
