"""What an answer consists of: what is said, what is thought, and which tools are called, told apart as it grows.

mlx-lm knows each model's words for that; its state machine finds them in the text, its parsers read the calls. A call
that cannot be read stays in the text as it came, with a remark: a model's slip fails no job.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from plugins.lm_request import LmRequest

#: Kinds of pieces: words of the answer, words before it, a call.
SAID: Final = "token"
THOUGHT: Final = "reasoning"
CALLED: Final = "tool_call"

#: Letters and digits of a call's id: what the strictest chat templates (Mistral's) demand.
_ID_LENGTH: Final = 9

#: Kind, and what it is: text, or a call.
Piece = tuple[str, Any]


class Call(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Any]
    #: The model's own id for it, if it gives one.
    id: str | None = None


class Formats:
    """How one model marks the parts of its answers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._machines: dict[bool, Any] = {}
        self.calls_tools = bool(getattr(tokenizer, "has_tool_calling", False))
        self._thinks = bool(getattr(tokenizer, "has_thinking", False))
        self._marked = bool(getattr(tokenizer, "structural_markers", ()) or self._transitions)

    def of(self, request: LmRequest, prompt: Sequence[int]) -> Parts | None:
        """Return what tells the parts of the answer to *request* apart; None if all of it is text."""
        if request.whole:
            return None
        return self.parts(prompt, tools=request.described, single=not request.parallel_tool_calls)

    def parts(self, prompt: Sequence[int], *, tools: Sequence[Mapping[str, Any]], single: bool = False) -> Parts | None:
        """Return what tells the parts of the answer to *prompt* apart; None if it can only have one.

        *single*: at most one call.
        """
        calls = bool(tools) and self.calls_tools
        if not (calls or self._thinks or self._marked):
            return None
        reader = Reader(self._tokenizer.tool_parser, tools) if calls else None
        marks = (self._tokenizer.tool_call_start or "", self._tokenizer.tool_call_end or "")
        machine, initial = self._machine(calls=calls), self._beginning(prompt)
        return Parts(machine, initial=initial, reader=reader, marks=marks, prompt=prompt, single=single)

    @property
    def _transitions(self) -> Mapping[str, Any]:
        return getattr(self._tokenizer, "response_transitions", None) or {}

    def _machine(self, *, calls: bool) -> Any:
        if calls not in self._machines:
            from mlx_lm.generate import make_text_state_machine

            make: Any = make_text_state_machine
            # Without tools the words for a call are words like any other.
            view = SimpleNamespace(
                has_thinking=self._thinks,
                think_start=self._tokenizer.think_start,
                think_end=self._tokenizer.think_end,
                has_tool_calling=calls,
                tool_call_start=self._tokenizer.tool_call_start,
                tool_call_end=self._tokenizer.tool_call_end,
                structural_markers=self._tokenizer.structural_markers,
                response_transitions=self._transitions,
            )
            self._machines[calls] = make(view)
        return self._machines[calls]

    def _beginning(self, prompt: Sequence[int]) -> str:
        """Return the state in which the answer begins: some templates open the model's thoughts themselves."""
        if initial := getattr(self._tokenizer, "response_initial_state", None):
            return str(initial)
        if not self._thinks:
            return "normal"
        opened = _last(prompt, self._tokenizer.think_start_tokens)
        return "reasoning" if opened > _last(prompt, self._tokenizer.think_end_tokens) else "normal"


class Reader:
    """Reads the text of calls, knowing which *tools* there are."""

    def __init__(self, parser: Callable[..., Any], tools: Sequence[Mapping[str, Any]]) -> None:
        self._parser = parser
        self._tools = [dict(tool) for tool in tools]
        self.known = {str(tool["function"]["name"]) for tool in tools}

    def read(self, text: str) -> list[Call]:
        """Return the calls in *text*.

        Raises:
            ValueError: it is none that can be read.

        """
        try:
            found = self._parser(text, self._tools)
        except Exception as error:  # mlx-lm's parsers are written for what a model should say, and this is what it said
            raise ValueError(str(error) or type(error).__name__) from error
        calls = [_call(one) for one in (found if isinstance(found, list) else [found])]
        if not calls:
            raise ValueError("there is no call in it")
        return calls


class Parts:
    """Tells the parts of the answer to *prompt* apart, which begins in the *machine*'s state *initial*.

    *marks* are what begins and ends a call; *single* says that nothing may follow one.
    """

    def __init__(
        self,
        machine: Any,
        *,
        initial: str,
        reader: Reader | None,
        marks: tuple[str, str],
        prompt: Sequence[int],
        single: bool = False,
    ) -> None:
        self._machine = machine
        self._state = machine.make_state(initial=initial)
        self._at = initial
        self._reader = reader
        self._marks = marks
        self._prompt = prompt
        self._single = single
        #: The text of the call that is being written.
        self._call: str | None = None
        #: Blanks that may turn out to stand between parts.
        self._blank = ""
        #: Whether something that is no part of the text stands before what is said next.
        self._cut = self._at == "reasoning"
        self._any_said = False
        #: What was thought so far.
        self.reasoning = ""
        #: The calls so far, in OpenAI's form with the arguments as an object.
        self.calls: list[dict[str, Any]] = []
        #: Remarks for people.
        self.notes: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether nothing more is wanted."""
        return self._single and bool(self.calls)

    def feed(self, text: str) -> list[Piece]:
        """Take the next *text* of the answer and return what is certain by now."""
        self._state, segments = self._machine.split(self._state, text)
        return self._take(segments)

    def finish(self, *, cut: bool) -> list[Piece]:
        """Take the end of the answer, *cut* if it was the limit of tokens, and return the rest of it."""
        self._state, rest, at = self._machine.flush(self._state)
        pieces = self._take([(at, rest)])
        if self._call is not None:
            pieces += self._end_call(closed=False, cut=cut)
        if self._blank and not self._cut:
            pieces.append((SAID, self._blank))
        if cut and self._at == "reasoning":
            self.notes.append("The model was still thinking when max_tokens was reached; allow more.")
        return pieces

    def _take(self, segments: Sequence[tuple[str, str]]) -> list[Piece]:
        pieces: list[Piece] = []
        for at, text in segments:
            if self._call is not None and at != "tool":
                pieces += self._end_call(closed=True, cut=False)
            if self.complete:
                break
            if at == "tool":
                self._call = (self._call or "") + text
            elif at == "reasoning":
                self._blank, self._cut = "", True
                pieces += self._think(text)
            elif at == "normal":
                pieces += self._say(text)
            self._at = at
        return pieces

    def _think(self, text: str) -> list[Piece]:
        # The line breaks between the words for thinking and the thought are nobody's.
        text = text if self.reasoning else text.lstrip()
        self.reasoning += text
        return [(THOUGHT, text)] if text else []

    def _say(self, text: str) -> list[Piece]:
        """Hold blanks back until words follow: those around thoughts and calls belong to neither."""
        text = self._blank + text
        words = text.rstrip()
        self._blank = text[len(words) :]
        if not words:
            return []
        words = words if self._any_said or not self._cut else words.lstrip()
        self._cut, self._any_said = False, True
        return [(SAID, words)]

    def _end_call(self, *, closed: bool, cut: bool) -> list[Piece]:
        text, self._call = self._call or "", None
        written = self._marks[0] + text + (self._marks[1] if closed else "")
        if self._reader is None:  # nobody offered tools: words like any other
            return self._say(written)
        try:
            # Lenient parsers would read half a call as a whole one.
            calls = [] if cut and self._marks[1] else self._reader.read(text)
        except ValueError as error:
            self.notes.append(f"A tool call could not be read ({error}); it stands in the text as the model wrote it.")
            return self._say(written)
        if not calls:
            self.notes.append("A tool call was cut off by max_tokens; it stands in the text as far as it came.")
            return self._say(written)
        self._blank, self._cut = "", True
        return [self._called(call) for call in (calls[:1] if self._single else calls)]

    def _called(self, call: Call) -> Piece:
        if self._reader is not None and call.name not in self._reader.known:
            self.notes.append(f"The model called {call.name!r}, which is none of the tools.")
        number = len(self.calls)
        made = {
            "id": call.id or _call_id(self._prompt, number),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        self.calls.append(made)
        return CALLED, {"index": number, **made}


def _call(found: Any) -> Call:
    """Return what a parser of mlx-lm *found* as a call whose arguments are JSON."""
    name = found.get("name") if isinstance(found, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ValueError("it names no function")
    arguments = found.get("arguments", {})
    try:
        said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        plain = json.loads(said)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its arguments are not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError("its arguments are not an object")  # noqa: TRY004 - told with every other mistake of a call
    own = found.get("id")
    return Call(name, plain, own if isinstance(own, str) and own else None)


def _call_id(prompt: Sequence[int], number: int) -> str:
    """Return an id that is the same for the same work, and another one in the next turn of a conversation."""
    return hashlib.sha256(array("q", [number, *prompt]).tobytes()).hexdigest()[:_ID_LENGTH]


def _last(tokens: Sequence[int], sought: Sequence[int] | None) -> int:
    """Return where *sought* last begins in *tokens*, -1 if nowhere."""
    if not sought:
        return -1
    end = len(tokens)
    backwards = list(tokens)[::-1]
    at = -1
    while True:
        try:
            at = backwards.index(sought[0], at + 1)
        except ValueError:
            return -1
        begin = end - 1 - at
        if tuple(tokens[begin : begin + len(sought)]) == tuple(sought):
            return begin


class Spelling:
    """The text of single tokens, for those who ask for probabilities."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        self._before: tuple[list[int], int] | None = None

    def __call__(self, token: int) -> str:
        """Return what *token* adds to a text; a part of a character is U+FFFD."""
        if token not in self._known:
            before, length = self._anchor()
            self._known[token] = self._decoded([*before, token])[length:]
        return self._known[token]

    def _anchor(self) -> tuple[list[int], int]:
        # Behind another token: at the beginning of a text some tokenizers drop a token's blank.
        if self._before is None:
            before = list(self._tokenizer.encode("a", add_special_tokens=False))
            self._before = before, len(self._decoded(before))
        return self._before

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
