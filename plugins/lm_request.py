"""What a language model is asked: validated parameters, and the prompt as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jobs.model import Lane
from plugins.sampling import Draw

#: More characters than this many per token of context are refused without being tokenised.
_LONGEST_TOKEN: Final = 256


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


def _text(value: Any) -> Any:
    return "" if value is None else value


class Message(BaseModel):
    """One turn of a chat; what else it has (``tool_calls``, ``tool_call_id``, ...) is for the chat template."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1)
    content: Annotated[str, BeforeValidator(_text)] = ""


class Function(BaseModel):
    """A function that can be called; what else it has (``description``, ``parameters``) is for the chat template."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)


class Tool(BaseModel):
    """A tool in OpenAI's form."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: Function


class LmRequest(BaseModel):
    """A request to the runtime ``lm``."""

    model_config = ConfigDict(extra="ignore")

    #: A text: one user's turn for a model with a chat template, otherwise what is to be continued.
    prompt: str | None = None
    #: A chat, instead of *prompt*.
    messages: list[Message] | None = None
    #: Continue *prompt* as it is, even if the model has a chat template.
    raw: bool = False
    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    temperature: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False)
    #: Taken off the logit of each token that came lately, and once more for each time it came.
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    #: Token -> what is added to its logit before anything is drawn: -100 rules it out.
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict, max_length=1024)
    #: Tell each token's log-probability, and those of so many of the likeliest; None tells nothing and costs nothing.
    logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    #: Texts that end the answer; they are not part of it.
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)] = Field(
        default_factory=list, max_length=64
    )
    json_schema: dict[str, Any] | None = None
    #: What the model may call.
    tools: list[Tool] = Field(default_factory=list)
    #: Whether an answer may have more than one call.
    parallel_tool_calls: bool = True
    #: Whether each piece of text is told as it comes.
    stream: bool = True
    #: Added by the runner.
    lane: Lane = Lane.NORMAL

    @model_validator(mode="after")
    def _something(self) -> LmRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        said = self.prompt if self.messages is None else "".join(one.content for one in self.messages)
        if not (said or "").strip():
            raise ValueError("the prompt is empty")
        if self.tools and (self.raw or self.json_schema is not None):
            which = "raw text has no place for them" if self.raw else "a JSON schema leaves no room for a call"
            raise ValueError(f"tools cannot be used here: {which}")
        return self

    @property
    def draw(self) -> Draw:
        """Return the sampling parameters."""
        return Draw(self.temperature, self.top_p, self.top_k, self.min_p)

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Return the chat."""
        if self.messages is None:
            return [{"role": "user", "content": self.prompt}]
        return [one.model_dump() for one in self.messages]

    @property
    def whole(self) -> bool:
        """Whether the answer is all text: nothing in it is looked for."""
        return self.raw or self.json_schema is not None

    @property
    def described(self) -> list[dict[str, Any]]:
        """Return the tools as the chat template gets them."""
        return [one.model_dump() for one in self.tools]

    @property
    def plain(self) -> str:
        """Return the text for a model without a chat template."""
        return "\n\n".join(str(turn["content"]) for turn in self.turns)


def parse(request: Mapping[str, Any]) -> LmRequest:
    """Return *request* validated.

    Raises:
        ValueError: with every mistake in one sentence.

    """
    try:
        return LmRequest.model_validate(dict(request))
    except ValidationError as error:
        raise ValueError("; ".join(_complaint(one) for one in error.errors(include_url=False))) from error


def _complaint(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what[:1].upper() + what[1:]


class Prompt(NamedTuple):
    """A prompt as tokens."""

    tokens: list[int]
    notes: tuple[str, ...]


class Limits(NamedTuple):
    """What a model can take."""

    #: Tokens of prompt and answer together.
    context: int
    #: Tokens the model has embeddings for.
    vocabulary: int


def tokenise(request: LmRequest, tokenizer: Any, limits: Limits) -> Prompt:
    """Return the prompt of *request* as tokens.

    Raises:
        ValueError: it is too long (with the numbers), asks for more than the model can do, or the model's chat template
            refuses it.

    """
    _check_tokens_named(request, limits)
    if request.tools and not getattr(tokenizer, "has_tool_calling", False):
        raise ValueError(
            "This model cannot be given tools: mlx-lm finds no format for tool calls in its chat template. Leave tools "
            "out, or take a model that was trained for them (Qwen 3, Mistral, GLM 4.7, Gemma 4, LFM 2, ...)."
        )
    characters = sum(map(_length, [*request.turns, *request.described]))
    if characters > limits.context * _LONGEST_TOKEN:
        raise ValueError(
            f"The prompt has {characters:,} characters; prompt and answer together may have {limits.context:,} tokens."
        )
    notes: tuple[str, ...] = ()
    if request.raw or not tokenizer.has_chat_template:
        if request.messages is not None:
            notes = ("The model has no chat template: it got the messages as plain text.",)
        tokens = _plain(request.plain, tokenizer)
    else:
        tokens = _chat(request, tokenizer)
    _check(tokens, limits)
    return Prompt(tokens, notes)


def _length(said: Mapping[str, Any]) -> int:
    """Return the characters of a turn of the chat or of a tool's description, about."""
    others = {name: value for name, value in said.items() if name not in ("role", "content")}
    return len(str(said.get("content") or "")) + (len(json.dumps(others)) if others else 0)


def _plain(text: str, tokenizer: Any) -> list[int]:
    special = tokenizer.bos_token is None or not text.startswith(tokenizer.bos_token)
    return list(tokenizer.encode(text, add_special_tokens=special))


def _chat(request: LmRequest, tokenizer: Any) -> list[int]:
    more = {"tools": request.described} if request.tools else {}
    try:
        return list(tokenizer.apply_chat_template(request.turns, add_generation_prompt=True, **more))
    except Exception as error:  # a template is the model's own program and may raise anything
        raise ValueError(f"The model's chat template does not take these messages: {error}") from error


def _check_tokens_named(request: LmRequest, limits: Limits) -> None:
    """MLX does not check indices: a bias on a token that does not exist would be written into strange memory."""
    for token in request.logit_bias:
        if not 0 <= token < limits.vocabulary:
            raise ValueError(f"logit_bias: {token} is no token of this model, it has 0 to {limits.vocabulary - 1}")


def _check(tokens: Sequence[int], limits: Limits) -> None:
    if not tokens:
        raise ValueError("The prompt is empty.")
    if len(tokens) >= limits.context:
        raise ValueError(
            f"The prompt has {len(tokens):,} tokens; prompt and answer together may have {limits.context:,}."
        )
    if max(tokens) >= limits.vocabulary or min(tokens) < 0:
        # MLX does not check indices: an embedding that does not exist would end the process.
        raise ValueError("The tokenizer gives tokens that the model does not know: they do not belong together.")
