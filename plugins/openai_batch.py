"""OpenAI's Batch format: its request lines in, its response lines out. Values in, values out.

The format (https://platform.openai.com/docs/guides/batch): ``{"custom_id", "method", "url", "body"}`` a line, and
``{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}`` a line of the results. The model
that a line names is not asked: one model, the job's, answers the whole batch, and the response says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"

#: Passed on as they are where they say something.
_SAME: Final = (
    *("temperature", "top_p", "seed", "stop", "max_tokens", "top_k", "min_p", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "tools", "parallel_tool_calls"),
)
#: Say nothing that a local model could heed.
_IGNORED: Final = frozenset(
    ("model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity")
) | {"reasoning_effort", "stream_options"}
#: Key -> the values that ask for nothing. Any other value is more than mlxd can do, and the line says so.
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "echo": (False,),
    "suffix": ("",),
    "functions": ([],),
    "tool_choice": ("auto",),
    "modalities": (["text"],),
}
_ROLES: Final = {"developer": "system"}


def is_request(data: Mapping[str, Any]) -> bool:
    """Tell whether a line is a request of this format."""
    return "custom_id" in data and "body" in data


def endpoint(data: Mapping[str, Any]) -> str:
    """Return the URL of a request line.

    Raises:
        ValueError: it is none that mlxd answers.

    """
    url, method = data.get("url"), data.get("method", "POST")
    if url not in (CHAT, TEXT):
        raise ValueError(f"url must be {CHAT} or {TEXT}, got {url!r}")
    if method != "POST":
        raise ValueError(f"method must be POST, got {method!r}")
    return str(url)


def parameters(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line of a batch says instead of the request line *data*.

    Raises:
        ValueError: it asks for something that mlxd cannot do.

    """
    url, body = endpoint(data), data["body"]
    if not isinstance(body, Mapping):
        raise ValueError("body is not a JSON object")  # noqa: TRY004 - a line's mistake, told with the line
    said = {name: value for name, value in body.items() if value is not None and name not in _IGNORED}
    found = {name: said.pop(name) for name in _SAME if name in said}
    found = {name: value for name, value in found.items() if value not in ([], {})}
    if (most := said.pop("max_completion_tokens", None)) is not None:
        found["max_tokens"] = most
    found |= _format(said.pop("response_format", None))
    found |= _logprobs(said.pop("logprobs", None), said.pop("top_logprobs", None), url)
    if said.get("tool_choice") == "none":
        found["tool_choice"] = said.pop("tool_choice")
    found |= _chat(said.pop("messages", None)) if url == CHAT else _text(said.pop("prompt", None))
    for name, value in said.items():
        if value not in _ONLY.get(name, ()):
            raise ValueError(f"{name} is not supported" if name in _ONLY else f"{name} is not known")
    return found


def _chat(messages: Any) -> dict[str, Any]:
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is missing")
    return {"messages": [_message(one) for one in messages]}


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ValueError("a message is not a JSON object")  # noqa: TRY004 - as above
    role, content = str(message.get("role")), message.get("content")
    if isinstance(content, list):
        kinds = {part.get("type") if isinstance(part, Mapping) else None for part in content}
        if kinds != {"text"}:
            raise ValueError("a message has parts that are no text")
        content = "".join(str(part.get("text", "")) for part in content)
    calls = message.get("tool_calls")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise ValueError("a message has no text")  # noqa: TRY004 - as above
    more = {"tool_calls": calls, "tool_call_id": message.get("tool_call_id"), "name": message.get("name")}
    return {"role": _ROLES.get(role, role), "content": content, **{key: value for key, value in more.items() if value}}


def _text(prompt: Any) -> dict[str, Any]:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise ValueError("prompt must be one text")  # noqa: TRY004 - as above
    return {"prompt": prompt, "raw": True}


def _logprobs(wanted: Any, top: Any, url: str) -> dict[str, Any]:
    """Return how many of the likeliest tokens are to be told: a number for texts, a switch and a number for chats."""
    if url == TEXT:
        return {} if wanted is None or wanted is False else {"logprobs": wanted}
    if wanted in (None, False):
        if top:
            raise ValueError("top_logprobs needs logprobs to be true")
        return {}
    if wanted is not True:
        raise ValueError(f"logprobs must be true or false, got {wanted!r}")
    return {"logprobs": top or 0}


def _format(wanted: Any) -> dict[str, Any]:
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    if kind in (None, "text"):
        return {}
    if kind == "json_object":
        return {"format": "json"}
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    if isinstance(schema, Mapping) and isinstance(schema.get("schema"), Mapping):
        return {"json_schema": dict(schema["schema"])}
    raise ValueError(f"response_format {kind!r} is not supported")


def answered(
    *,
    request_id: str,
    custom_id: str,
    url: str,
    created: int,
    model: str | None,
    text: str | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the response line of an answered request.

    *facts* are its token counts, ``finish_reason``, and what the answer has besides its text.
    """
    read, wrote = facts.get("prompt_tokens"), facts.get("completion_tokens")
    choice: dict[str, Any] = {"index": 0, "finish_reason": facts.get("finish_reason") or None, "logprobs": None}
    choice |= {"message": _reply(text, facts)} if url == CHAT else {"text": text}
    if (lines := facts.get("logprobs")) is not None:
        choice["logprobs"] = _chat_logprobs(lines) if url == CHAT else _text_logprobs(lines)
    body = {
        "id": f"{'chatcmpl' if url == CHAT else 'cmpl'}-{request_id}",
        "object": "chat.completion" if url == CHAT else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": None
        if read is None or wrote is None
        else {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote},
    }
    return _line(request_id, custom_id, 200, body, None)


def _reply(text: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    calls = facts.get("tool_calls")
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not text else text}
    if thoughts := facts.get("reasoning"):
        message["reasoning"] = thoughts
    if calls:
        message["tool_calls"] = [{**call, "function": _written(call["function"])} for call in calls]
    return message


def _written(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as this format has them: JSON in a string."""
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _chat_logprobs(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    content = [{**_token(line), "top_logprobs": [_token(one) for one in line["top"]]} for line in lines]
    return {"content": content, "refusal": None}


def _token(line: Mapping[str, Any]) -> dict[str, Any]:
    text = str(line["text"])
    # A token that is a part of a character has no text of its own, and its bytes are not kept.
    own = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": line["logprob"], "bytes": own}


def _text_logprobs(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    texts = [str(line["text"]) for line in lines]
    return {
        "tokens": texts,
        "token_logprobs": [line["logprob"] for line in lines],
        "top_logprobs": [{str(one["text"]): one["logprob"] for one in line["top"]} for line in lines],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0))[: len(texts)],
    }


def refused(*, request_id: str, custom_id: str, kind: str, message: str, ours: bool) -> dict[str, Any]:
    """Return the response line of a request that failed: status 400 for the line's fault, 500 where it is *ours*."""
    status = 500 if ours else 400
    error = {"message": message, "type": "server_error" if ours else "invalid_request_error", "code": kind}
    return _line(request_id, custom_id, status, {"error": {**error, "param": None}}, {"code": kind, "message": message})


def _line(request_id: str, custom_id: str, status: int, body: dict[str, Any], error: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": request_id, "body": body}
    return {"id": f"batch_req_{request_id}", "custom_id": custom_id, "response": response, "error": error}
