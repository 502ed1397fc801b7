"""Thoughts, calls and words are told apart as an answer grows."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tool_parsers import json_tools, mistral, pythonic

from plugins.lm_parts import CALLED, SAID, THOUGHT, Formats, Spelling

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def wrapper(parser=json_tools, **more):
    """Return what mlx-lm's tokenizer wrapper says of a model that thinks and calls tools."""
    return SimpleNamespace(
        **{
            "has_thinking": True,
            "think_start": "<think>",
            "think_end": "</think>",
            "think_start_tokens": (7,),
            "think_end_tokens": (8,),
            "has_tool_calling": True,
            "tool_call_start": parser.tool_call_start,
            "tool_call_end": parser.tool_call_end,
            "tool_parser": parser.parse_tool_call,
            "structural_markers": (),
            "response_transitions": {},
            "response_initial_state": None,
            **more,
        }
    )


def read(pieces, *, tokenizer=None, tools=TOOLS, cut=False, prompt=(1, 2)):
    """Return the parts of an answer that came in *pieces*, and what was told of it, joined by kind."""
    parts = Formats(tokenizer or wrapper()).parts(list(prompt), tools=tools)
    told = [piece for text in pieces for piece in parts.feed(text)] + parts.finish(cut=cut)
    said = "".join(what for kind, what in told if kind == SAID)
    thought = "".join(what for kind, what in told if kind == THOUGHT)
    assert thought == parts.reasoning
    assert [{k: v for k, v in what.items() if k != "index"} for kind, what in told if kind == CALLED] == parts.calls
    return said, parts


def test_a_call_is_parsed_and_is_no_part_of_the_text():
    """Name and arguments come as JSON values, with an id that a strict template takes; blanks around it go."""
    said, parts = read(["I look.\n", CALL, "\n"])
    (call,) = parts.calls
    assert said == "I look."
    assert call["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert call["type"] == "function"
    assert len(call["id"]) == 9
    assert call["id"].isalnum()
    assert parts.notes == []


def test_ids_are_the_same_for_the_same_work_and_differ_otherwise():
    """A repeated job gives the same result; two calls, and the calls of two prompts, can be told apart."""
    ids = [call["id"] for call in read([CALL + CALL])[1].calls]
    again = [call["id"] for call in read([CALL, CALL])[1].calls]
    other = [call["id"] for call in read([CALL, CALL], prompt=[3])[1].calls]
    assert ids == again
    assert len({*ids, *other}) == 4


def test_thoughts_are_apart_from_words():
    """Also when the template has opened them in the prompt; the line breaks around them are nobody's."""
    said, parts = read(["<think>\nHm, ", "cold?\n</think>\n\nYes."])
    assert (said, parts.reasoning) == ("Yes.", "Hm, cold?\n")
    said, parts = read(["Hm.</think>\n\nYes."], prompt=[1, 7])
    assert (said, parts.reasoning) == ("Yes.", "Hm.")
    assert read(["Yes."], prompt=[1, 7, 2, 8])[0] == "Yes."
    said, parts = read(["Hm"], prompt=[1, 7], cut=True)
    assert (said, parts.reasoning) == ("", "Hm")
    assert "still thinking" in parts.notes[0]


def test_words_alone_stay_as_they_are():
    """Blanks at the beginning and the end, half a mark, a mark in other letters: nothing is taken away."""
    for text in ("  Hi \n", "a <tool", "a < b <th", "\n", " <TOOL_CALL>x", "</think>"):
        assert read(list(text))[0] == text


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("{'name': weather}", "Expecting"),
        ('{"name": "weather"', "Expecting"),
        ('{"arguments": {}}', "names no function"),
        ("[1, 2]", "names no function"),
        ('{"name": "weather", "arguments": [1]}', "not an object"),
        ('{"name": "weather", "arguments": NaN}', "not JSON"),
    ],
)
def test_a_call_that_cannot_be_read_stays_in_the_text(call, why):
    """As the model wrote it, with a remark that says what is wrong; what follows it is read on."""
    written = f"<tool_call>{call}</tool_call>"
    said, parts = read(["So: ", written, " and ", CALL])
    assert said == f"So: {written} and"
    assert why in parts.notes[0]
    assert len(parts.calls) == 1


def test_half_a_call_is_never_taken_for_a_whole_one():
    """Cut off by the limit it stays text, also where a lenient parser would read it; ended by the model it is read."""
    said, parts = read(["<|tool_call_start|>[weather(city='Oslo')]"], tokenizer=wrapper(pythonic), cut=True)
    assert said == "<|tool_call_start|>[weather(city='Oslo')]"
    assert "cut off" in parts.notes[0]
    said, parts = read(["<|tool_call_start|>[weather(city='Oslo')]"], tokenizer=wrapper(pythonic))
    assert said == ""
    assert parts.calls[0]["function"]["arguments"] == {"city": "Oslo"}


def test_several_calls_in_one_are_several():
    """A format without an end mark holds all of them until the answer ends."""
    text = '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}weather[ARGS]{"city": "Rome"}'
    said, parts = read(list(text), tokenizer=wrapper(mistral))
    assert said == ""
    assert [call["function"]["arguments"]["city"] for call in parts.calls] == ["Oslo", "Rome"]


def test_where_one_call_is_wanted_nothing_follows_it():
    """The answer is complete with it; a second one, or words behind it, are not told."""
    parts = Formats(wrapper()).parts([1], tools=TOOLS, single=True)
    told = parts.feed("So: " + CALL + CALL + "more")
    assert parts.complete
    assert [kind for kind, _ in told] == [SAID, CALLED]
    assert parts.finish(cut=False) == []
    assert not Formats(wrapper()).parts([1], tools=TOOLS).complete


def test_what_is_none_of_the_tools_is_told():
    """The call is there, and a remark says that nobody offered such a tool."""
    said, parts = read([CALL.replace('"weather"', '"oven"')])
    assert said == ""
    assert "'oven', which is none of the tools" in parts.notes[0]


def test_without_tools_the_words_for_a_call_are_words():
    """Who describes tools in the prompt himself reads the calls himself."""
    assert read([CALL, "!"], tools=[])[0] == CALL + "!"
    assert Formats(wrapper(has_thinking=False)).parts([1], tools=[]) is None
    assert Formats(SimpleNamespace()).parts([1], tools=TOOLS) is None


def test_arguments_that_python_knows_and_json_does_not_are_refused():
    """A parser that reads Python's literals may find a set: the text stays."""
    said, parts = read(["<|tool_call_start|>[weather(city={1, 2})]<|tool_call_end|>"], tokenizer=wrapper(pythonic))
    assert said.startswith("<|tool_call_start|>")
    assert "not JSON" in parts.notes[0]


@given(
    texts=st.lists(
        st.sampled_from(["Hi", " ", "\n", CALL, "<think>so</think>", "<tool_call>no</tool_call>", "<to", "é😀", ">"]),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_however_the_text_is_cut_the_parts_are_the_same(texts, cuts):
    """Pieces are what tokens happen to be: they change nothing."""
    text = "".join(texts)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[begin:end] for begin, end in itertools.pairwise(places)]
    said, parts = read([text])
    said_cut, parts_cut = read(pieces)
    assert (said, parts.reasoning, json.dumps(parts.calls)) == (
        said_cut,
        parts_cut.reasoning,
        json.dumps(parts_cut.calls),
    )


def test_a_token_is_spelled_as_it_stands_in_a_text():
    """A tokenizer that drops the blank of the first token is asked for the second one."""
    words = {1: "a", 2: " b"}
    tokenizer = SimpleNamespace(
        encode=lambda text, add_special_tokens: [1],
        decode=lambda tokens, clean_up_tokenization_spaces: "".join(words[token] for token in tokens).lstrip(),
    )
    assert Spelling(tokenizer)(2) == " b"
