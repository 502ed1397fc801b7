"""From the command line to the body of a request."""

import io
import json
from pathlib import Path

import pytest

from daemon.cli.asking import Asked, build
from jobs.errors import InvalidInput, InvalidParams
from jobs.model import NewJob


class Stdin:
    """Standard input with these bytes."""

    def __init__(self, data=b"", *, terminal=False):
        self.buffer = io.BytesIO(data)
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Stdin(terminal=True))


def ask(task, given=None, *, waiting=False, **options):
    body = build(Asked(task=task, input=given, **options), cache=Path.cwd() / "cache", waiting=waiting)
    NewJob.model_validate(body)  # whatever comes out is a job that the daemon can read
    return body


def test_a_text_is_a_prompt():
    """Words that are no file are the prompt of generate and the text of other tasks."""
    assert ask("generate", "Why is the sky blue?")["params"] == {"prompt": "Why is the sky blue?"}
    assert ask("pipeline", "some words")["params"] == {"text": "some words"}
    assert ask("generate", "x" * 5000)["params"] == {"prompt": "x" * 5000}


def test_a_file_is_given_as_an_absolute_path(tmp_path):
    """The daemon runs elsewhere: it gets the whole path."""
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "prompts").mkdir()
    assert ask("generate", "a.txt")["params"] == {"file": str(tmp_path / "a.txt")}
    assert ask("batch", "prompts")["params"] == {"folder": str(tmp_path / "prompts")}
    assert ask("batch", "a.txt")["params"] == {"file": str(tmp_path / "a.txt")}


@pytest.mark.parametrize(
    ("task", "given"), [("transcribe", "no"), ("batch", "no"), ("generate", "no.txt"), ("x", "a/b")]
)
def test_a_file_that_is_missing_is_named(task, given):
    """A mistyped file name does not become a prompt."""
    with pytest.raises(InvalidInput, match=f"There is no file {given}"):
        ask(task, given)


def test_a_folder_goes_to_batch(tmp_path):
    """Other tasks say so."""
    with pytest.raises(InvalidInput, match="is a folder"):
        ask("transcribe", str(tmp_path))


def test_flags_become_parameters(tmp_path):
    """Each flag has its parameter; what was not given is not sent."""
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    asked = ask(
        "generate",
        model="demo:lm",
        prompt="p",
        system="s",
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        seed=1,
        stop=("a", "b"),
        schema="schema.json",
        formats="json",
        draft_model="small",
        adapter="lora",
    )
    assert asked["params"] == {
        "model": "demo:lm",
        "draft_model": "small",
        "adapter": str(tmp_path / "lora"),
        "prompt": "p",
        "system": "s",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "stop": ["a", "b"],
        "json_schema": {"type": "object"},
        "format": "json",
    }


def test_flags_of_transcribe(tmp_path):
    """Formats are a list, words want json, translate is a task of Whisper."""
    (tmp_path / "a.wav").write_bytes(b"x")
    said = ask("transcribe", "a.wav", formats="txt, srt", words=True, translate=True, language="en")["params"]
    assert said["formats"] == ["txt", "srt"]
    assert (said["word_timestamps"], said["task"], said["language"]) == (True, "translate", "en")
    assert ask("transcribe", "a.wav", words=True)["params"]["formats"] == ["txt", "json"]


def test_any_parameter_can_be_given(tmp_path):
    """--param takes JSON or text, --params an object or a file; the more particular one wins."""
    (tmp_path / "p.json").write_text('{"a": 1, "b": 2, "c": 3}')
    said = ask("x", params_json="@p.json", pairs=("b=true", "d=two words", 'e="7"', "f=a=b", "c=[1]"), seed=9)
    assert said["params"] == {"a": 1, "b": True, "c": [1], "d": "two words", "e": "7", "f": "a=b", "seed": 9}
    assert ask("x", params_json='{"a": null}')["params"] == {"a": None}


@pytest.mark.parametrize(
    "options",
    [{"pairs": ("novalue",)}, {"pairs": ("=x",)}, {"params_json": "[1]"}, {"params_json": "{"}, {"steps": "bad.json"}],
)
def test_what_cannot_be_understood_is_said(options, tmp_path):
    """A wrong option is named with what it wants."""
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidParams):
        ask("x", **options)


def test_option_files_that_cannot_be_read_are_named(tmp_path):
    """Missing, a folder, or no text."""
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="There is no file nope"):
        ask("x", schema="nope")
    with pytest.raises(InvalidInput, match="cannot be read"):
        ask("x", schema=".")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        ask("x", schema="latin")


def test_tools_come_from_a_file(tmp_path):
    """JSON, as a list or under "tools"; what is no JSON is named."""
    tool = {"type": "function", "function": {"name": "f"}}
    (tmp_path / "a.json").write_text(json.dumps([tool]))
    (tmp_path / "b.json").write_text(json.dumps({"tools": [tool]}))
    for name in ("a.json", "b.json"):
        assert ask("generate", "words here", tools=name)["params"] == {"tools": [tool], "prompt": "words here"}
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InvalidParams, match="is not JSON"):
        ask("generate", "words here", tools="c.json")


def test_steps_come_from_a_file(tmp_path):
    """JSON, as a list or under "steps", or TOML."""
    step = {"task": "generate", "params": {"prompt": "{text}"}}
    (tmp_path / "a.json").write_text(json.dumps([step]))
    (tmp_path / "b.json").write_text(json.dumps({"steps": [step]}))
    (tmp_path / "c.toml").write_text('[[steps]]\ntask = "generate"\nparams = {prompt = "{text}"}\n')
    for name in ("a.json", "b.json", "c.toml"):
        assert ask("pipeline", "words here", steps=name)["params"] == {"steps": [step], "text": "words here"}


def test_the_lane_follows_from_the_situation():
    """Who waits is interactive, a batch is a batch, and saying so wins."""
    assert ask("generate", "a b")["lane"] == "normal"
    assert ask("generate", "a b", waiting=True)["lane"] == "interactive"
    assert ask("batch", pairs=("file=/x.csv",), waiting=True)["lane"] == "batch"
    assert ask("generate", "a b", lane="batch", waiting=True)["lane"] == "batch"


def test_placement_and_key(tmp_path):
    """The output folder is made absolute; stem, priority and key are passed on."""
    said = ask("generate", "a b", output="out", stem="s", key="k", priority=5)
    assert said["placement"] == {"directory": str(tmp_path / "out"), "stem": "s"}
    assert (said["idempotency_key"], said["priority"], said["source"]) == ("k", 5, {"kind": "cli"})


def test_text_on_standard_input(monkeypatch):
    """With - it is the prompt (or the text); without it too, when generate has no other input."""
    monkeypatch.setattr("sys.stdin", Stdin("Grüße\n".encode()))
    assert ask("generate", "-")["params"] == {"prompt": "Grüße\n"}
    monkeypatch.setattr("sys.stdin", Stdin(b"piped"))
    assert ask("generate")["params"] == {"prompt": "piped"}
    assert ask("noop")["params"] == {}
    assert ask("generate", prompt="p")["params"] == {"prompt": "p"}


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff"])
def test_empty_or_broken_standard_input(monkeypatch, data):
    """Nothing, or no UTF-8, is refused before it is sent."""
    monkeypatch.setattr("sys.stdin", Stdin(data))
    with pytest.raises(InvalidInput, match="Standard input is"):
        ask("generate", "-")


def test_a_recording_on_standard_input(monkeypatch, tmp_path):
    """It is put down in a private file that the daemon deletes after success."""
    monkeypatch.setattr("sys.stdin", Stdin(b"RIFF...."))
    said = ask("transcribe", "-")
    (file,) = (tmp_path / "cache" / "stdin").iterdir()
    assert file.read_bytes() == b"RIFF...."
    assert file.stat().st_mode & 0o077 == 0
    assert said["placement"] == {"input": str(file), "after": "delete", "stem": "stdin"}
    assert said["params"] == {"file": str(file)}


def test_an_empty_recording_leaves_nothing_behind(monkeypatch, tmp_path):
    """It is refused, and its file is gone."""
    monkeypatch.setattr("sys.stdin", Stdin(b""))
    with pytest.raises(InvalidInput, match="empty"):
        ask("memo", "-")
    assert list((tmp_path / "cache" / "stdin").iterdir()) == []


def test_an_input_given_twice_is_refused():
    """An argument and the same parameter contradict each other."""
    with pytest.raises(InvalidParams, match="given twice"):
        ask("generate", "some words", prompt="others")
