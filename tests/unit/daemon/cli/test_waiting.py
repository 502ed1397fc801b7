"""Waiting at the command line: what is shown on which stream."""

import io

import pytest

from daemon.cli import waiting
from daemon.cli.display import Bar, TypingWithBar
from daemon.cli.waiting import Screen, Typing, pace, report


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("out", "err", "options", "kind"),
    [
        (io.StringIO, io.StringIO, {}, Screen),
        (io.StringIO, io.StringIO, {"stream": True}, Typing),
        (io.StringIO, Terminal, {}, Bar),
        (Terminal, Terminal, {}, TypingWithBar),
        (Terminal, io.StringIO, {}, Typing),
        (Terminal, Terminal, {"as_json": True}, Bar),
        (Terminal, io.StringIO, {"as_json": True}, Screen),
    ],
)
def test_what_is_shown_where(monkeypatch, out, err, options, kind):
    """A bar needs a terminal on standard error; text comes live on a terminal or when asked; JSON stays JSON."""
    monkeypatch.setattr("sys.stdout", out())
    monkeypatch.setattr("sys.stderr", err())
    assert type(waiting._screen(**{"as_json": False, "stream": False, **options})) is kind


def test_text_that_cannot_be_whole_is_left_to_the_end(capsys):
    """After a gap, or a second attempt, nothing more is typed; tokens of items and steps are no part of the text."""
    screen = Typing()
    screen.see("token", {"text": "other", "item": 3})
    screen.see("token", {"text": "a", "n": 1})
    screen.see("lagged", {"dropped": 3})
    screen.see("token", {"text": "b", "n": 5})
    assert (screen.printed, capsys.readouterr().out) == ("a", "a")
    again = Typing()
    again.see("token", {"text": "a", "n": 1})
    again.see("state", {"state": "queued"})
    again.see("token", {"text": "A", "n": 1})
    assert again.printed == "a"


def test_a_failure_after_text_starts_a_line_of_its_own(capsys):
    """The half text keeps its line, the sentence gets its own."""
    report({"id": "x", "state": "failed", "error": {"message": "It broke."}}, printed="half")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("\n", "mlxd: job x is failed: It broke.\n")


def test_what_is_wrong_with_a_success_is_said(capsys):
    """A recording that breaks off gives a transcript all the same: the person hears of it, from a step too."""
    result = {"text": "", "notes": ["It is cut short."], "steps": [{"name": "a", "notes": ["So is this."]}, {}]}
    report({"id": "x", "state": "succeeded", "result": result, "outputs": []})
    assert capsys.readouterr().err == "note: It is cut short.\nnote: So is this.\n"


def test_calls_are_printed_a_line_each(capsys):
    """Below the text, as JSON that the next program can read."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Århus"}}}
    result = {"text": "I look.", "tool_calls": [call, call]}
    report({"id": "x", "state": "succeeded", "result": result, "outputs": []})
    line = '{"name": "f", "arguments": {"city": "Århus"}}\n'
    assert capsys.readouterr().out == "I look.\n" + line + line


def test_the_pace_is_for_people(monkeypatch):
    """On a terminal the end says how fast it was."""
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    result = {"text": "", "completion_tokens": 9, "tokens_per_second": 120.4}
    report({"id": "x", "state": "succeeded", "result": result, "outputs": []})
    assert err.getvalue() == "9 tokens, 120 tokens/s\n"
    assert pace({"realtime_factor": 7.96}) == "8.0x real time"
    assert pace({}) == ""


def test_of_many_outputs_some_are_named(capsys):
    """The first ones and the last, and where the others are told; of a few all are."""
    for count in (12, 400):
        outputs = [{"path": f"/out/{number}.txt"} for number in range(count)]
        report({"id": "j", "state": "succeeded", "result": {}, "outputs": outputs})
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 12
        assert lines[-1] == f"wrote /out/{count - 1}.txt"
        assert (f"... {count - 11} more: mlxd show j" in lines) == (count > 12)
