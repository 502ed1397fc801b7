"""What a prompt file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import InvalidInput
from plugins.front_matter import ALLOWED, of_file, split
from plugins.generate import Params


@pytest.mark.parametrize(
    ("block", "params"),
    [
        ("model: demo:lm", {"model": "demo:lm"}),
        ("system: Be brief: very.  ", {"system": "Be brief: very."}),
        ("max_tokens: 5\ntemperature: 0.5\n\n# a remark\nseed: 7", {"max_tokens": 5, "temperature": 0.5, "seed": 7}),
        ('stop: ["a", "b"]', {"stop": ["a", "b"]}),
        ("system: 'it''s'", {"system": "it's"}),
        ('format: "json"\njson_schema: {"type": "object"}', {"format": "json", "json_schema": {"type": "object"}}),
        ('system = "x"\nmax_tokens = 3', {"system": "x", "max_tokens": 3}),
        ('max_tokens = 3\n[json_schema]\ntype = "object"', {"max_tokens": 3, "json_schema": {"type": "object"}}),
        ('# first\nsystem = """\na: b\n"""', {"system": "a: b\n"}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_or_toml(block: str, params: dict[str, Any], end: str) -> None:
    """`key: value` a line, or TOML; values are JSON or plain text; the rest is the prompt."""
    said = split(f"---\n{block}\n---\nAsk.\n---\nMore.".replace("\n", end))
    assert dict(said.params) == params
    assert said.text == f"Ask.{end}---{end}More."


@pytest.mark.parametrize(
    "text",
    [
        "no front matter",
        "\n---\nmodel: x\n---\n",
        "---\nmodel: x\nwithout an end",
        "----\nmodel: x\n---\n",
        "---\ntitle: A note\ntags: [a, b]\n---\nText",
        "---\nJust a line above\n---\nand below",
        "---\n---\nText",
        "",
    ],
)
def test_what_is_not_ours_stays_in_the_text(text: str) -> None:
    """A block elsewhere, without an end, or one that speaks of none of our parameters."""
    assert split(text) == ({}, text)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("model: x\nfile: /etc/passwd", "cannot set 'file'. It may set: model"),
        ("modle: x", "did you mean 'model'"),
        ("model: x\nnonsense", "Line 3 of the front matter"),
        ("model: x\nmodel: y", "twice"),
        ("max_tokens: many", "'max_tokens' in the front matter has to be a whole number, got 'many'"),
        ("temperature: true", "has to be a whole number or a number"),
        ("json_schema: /etc/passwd", "has to be a table"),
        ("model = ", "not valid TOML"),
        ("model = " + 2000 * "[", "not valid TOML: brackets are nested too deeply"),
        ("temperature: NaN", "has to be"),
        ("json_schema = { a = 2020-01-01 }", "no word for"),
        ("temperature = inf", "no word for"),
        ("top_p: 1e400", "no word for"),
        ('system: "\\ud800"', "no word for"),
    ],
)
def test_mistakes_are_told(block: str, message: str) -> None:
    """A block that is ours and wrong is no prompt: the line or key is named."""
    with pytest.raises(InvalidInput, match=message.replace("(", r"\(")):
        split(f"---\n{block}\n---\nAsk.")


def test_what_it_may_set_are_parameters_of_generate() -> None:
    """No path, no folder, nothing that reads or writes a file."""
    assert set(ALLOWED) <= set(Params.model_fields)
    assert not {"file", "output", "template", "prompt", "max_input_bytes"} & set(ALLOWED)


def test_only_prompt_files_are_looked_at() -> None:
    """A recording is not read for it, and bytes that are no text do no harm."""
    assert of_file(Path("/a.wav"), lambda _path, _most: pytest.fail("read")) == {}
    assert of_file(Path("/a.MD"), lambda _path, most: b"---\nseed: 1\n---\n\xff"[:most]) == {"seed": 1}
    assert of_file(Path("/a.txt"), lambda _path, _most: b"\xef\xbb\xbf---\nseed: 2\n---\n") == {"seed": 2}


@pytest.mark.parametrize("block", ["title: Which model: a history", "note: see http://a/seed=1", "# model: x"])
def test_a_word_inside_a_line_is_no_key(block: str) -> None:
    """Only what stands at the beginning of a line makes a block ours; another one stays in the text as it is."""
    text = f"---\n{block}\n---\nAsk."
    assert split(text) == ({}, text)
