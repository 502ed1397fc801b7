"""Front matter: what a prompt file says about itself, between two lines ``---`` at its very beginning.

Either TOML (``key = value``) or one ``key: value`` a line, where a value is a JSON value or plain text. It comes with
the file, perhaps from a stranger, so it may set a few parameters of the text's generation and nothing else: no path,
no folder, no task. A block that speaks of none of them (a note's title and tags) is not ours and stays in the text.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from jobs import toml
from jobs.errors import InvalidInput

#: What front matter may set, and the types it may have.
ALLOWED: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "model": (str,),
        "system": (str,),
        "max_tokens": (int,),
        "temperature": (int, float),
        "top_p": (int, float),
        "top_k": (int,),
        "min_p": (int, float),
        "repetition_penalty": (int, float),
        "presence_penalty": (int, float),
        "frequency_penalty": (int, float),
        "logit_bias": (dict,),
        "logprobs": (int,),
        "tools": (list,),
        "tool_choice": (str,),
        "seed": (int,),
        "stop": (str, list),
        "num_draft_tokens": (int,),
        "kv_bits": (int,),
        "kv_group_size": (int,),
        "quantized_kv_start": (int,),
        "format": (str,),
        # A table, never the path of a file that somebody else would like to have read.
        "json_schema": (dict,),
    }
)
#: Longest block, characters; a longer one is part of the text.
MOST: Final = 64 * 1024
#: Files whose beginning is looked at before they become jobs.
SUFFIXES: Final = frozenset({".txt", ".md", ".markdown", ".prompt"})

_FENCE: Final = re.compile(r"---[ \t]*(?:\r\n|\n|\r)")
_END: Final = re.compile(r"^---[ \t]*(?:\r\n|\n|\r|\Z)", re.MULTILINE)
_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)[ \t]*:(?:[ \t]+(.*))?")
_KEY: Final = re.compile(r"^[ \t]*([A-Za-z_][A-Za-z0-9_-]*)[ \t]*[:=]", re.MULTILINE)
_LIKENESS: Final = 0.8
_TYPES: Final = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


class Said(NamedTuple):
    """A prompt file taken apart."""

    params: Mapping[str, Any]
    #: The text without its front matter.
    text: str


def split(text: str) -> Said:
    """Return what *text* says about itself, and the rest of it.

    Raises:
        InvalidInput: it has front matter with a mistake in it; the message names the line or the key.

    """
    opening = _FENCE.match(text)
    closing = _END.search(text, opening.end(), opening.end() + MOST) if opening else None
    if opening is None or closing is None:
        return Said({}, text)
    block = text[opening.end() : closing.start()]
    if not any(_resembles(key) for key in _KEY.findall(block)):
        return Said({}, text)
    return Said(_checked(_parse(block)), text[closing.end() :])


def of_file(path: Path, read: Callable[[Path, int], bytes]) -> Mapping[str, Any]:
    """Return what the prompt file *path* says about itself; *read* gives its first bytes. Raises as `split` does."""
    if path.suffix.lower() not in SUFFIXES:
        return {}
    head = read(path, MOST + 16)
    # What cannot be decoded is the task's to complain about; a character cut in two is not a mistake.
    return split(head.decode("utf-8", errors="replace").removeprefix("\ufeff")).params


def _parse(block: str) -> dict[str, Any]:
    """Read *block* as TOML if its first key is followed by ``=``, else line by line."""
    first = next((line for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if re.match(r"[ \t]*(\[|[A-Za-z0-9_.\"'-]+[ \t]*=)", first):
        try:
            return toml.parse(block.replace("\r\n", "\n").replace("\r", "\n"))
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"The front matter is not valid TOML: {error}.") from None
    found: dict[str, Any] = {}
    for number, line in enumerate(block.splitlines(), start=2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise InvalidInput(f"Line {number} of the front matter is not `key: value`; it is {line.strip()[:40]!r}.")
        if match[1] in found:
            raise InvalidInput(f"The front matter says {match[1]!r} twice (line {number}).")
        found[match[1]] = _value(match[2] or "")
    return found


def _value(text: str) -> Any:
    """Return *text* as the JSON value it is, or as itself."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text


def _checked(params: dict[str, Any]) -> dict[str, Any]:
    for key, value in params.items():
        if key not in ALLOWED:
            near = difflib.get_close_matches(key, ALLOWED, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f". It may set: {', '.join(ALLOWED)}"
            raise InvalidInput(f"The front matter cannot set {key!r}{hint}.", key=key)
        wanted = ALLOWED[key]
        if not isinstance(value, wanted) or isinstance(value, bool):
            what = " or ".join(dict.fromkeys(_TYPES[one] for one in wanted))
            raise InvalidInput(f"{key!r} in the front matter has to be {what}, got {value!r:.40}.", key=key)
        if not _sayable(value):
            raise InvalidInput(
                f"{key!r} in the front matter holds what JSON has no word for: a date, a number that is none, half of "
                "a character.",
                key=key,
            )
    return params


def _sayable(value: Any) -> bool:
    """Tell whether *value* can be written down: TOML has dates and infinities, JSON halves of characters."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _resembles(key: str) -> bool:
    return key in ALLOWED or bool(difflib.get_close_matches(key, ALLOWED, n=1, cutoff=_LIKENESS))
