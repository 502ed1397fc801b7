"""What people see."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from daemon.cli.display import Bar, TypingWithBar, ago, details, duration, size, speed, table


def screen(*, terminal=False):
    out = io.StringIO()
    return out, Console(file=out, force_terminal=terminal, width=80 if terminal else 10_000, highlight=False)


def test_a_table_in_a_pipe_cuts_nothing():
    """Values are whole, lists are joined, None is empty, control characters are visible."""
    out, console = screen()
    table(["a", "b", "c"], [("x" * 300, ("p", "q"), None), ("\x1b[31mred", 1, "")], console=console)
    assert "x" * 300 in out.getvalue()
    assert "p, q" in out.getvalue()
    assert "\\x1b[31mred" in out.getvalue()


def test_a_table_on_a_terminal_folds():
    """Long values are broken into lines, not cut."""
    out, console = screen(terminal=True)
    table(["a"], [("y" * 200,)], console=console)
    assert out.getvalue().count("y") == 200


def test_details_leave_out_what_is_empty():
    """Only what there is to say is said."""
    out, console = screen()
    details({"job": "a", "why": None, "outputs": [], "attempts": 0}, console=console)
    assert out.getvalue().split() == ["job", "a", "attempts", "0"]


def test_details_have_a_line_for_each_part_of_a_list():
    """A batch's thousand outputs are no single line; the name stands beside the first."""
    out, console = screen()
    details({"job": "a", "outputs": ["/x/1.txt", "/x/2.txt"]}, console=console)
    assert out.getvalue() == "job      a\noutputs  /x/1.txt\n         /x/2.txt\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0 s"), (0.25, "0.25 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_durations(seconds, text):
    """Seconds for people."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, ""), (0, "0 B"), (1500, "1.5 kB"), (9e6, "9 MB"), (7.5e9, "7.5 GB"), (2e12, "2 TB")]
)
def test_sizes(number, text):
    """Bytes for people."""
    assert size(number) == text


def test_how_long_ago():
    """An ISO time becomes a distance."""
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    assert ago("2026-01-01T10:00:00Z", now=now) == "2 h ago"
    assert ago("2026-01-01T12:00:00Z", now=now) == "now"
    assert ago(None) == ""


def test_speed():
    """Tokens a second, or the multiple of real time for audio."""
    assert speed({"rate": 12.34, "unit": "tokens"}) == "12.3 tokens/s"
    assert speed({"rate": 8.0, "unit": "s"}) == "8.0x real time"
    assert speed({"rate": None, "unit": "s"}) == ""


def test_the_bar_shows_state_amount_and_pace():
    """State, progress and tokens are drawn."""
    out, console = screen(terminal=True)
    bar = Bar(console=console)
    with bar:
        bar.see("state", {"task": "transcribe", "state": "running", "progress": None})
        bar.see("progress", {"done": 30, "total": 60, "unit": "s", "message": "", "rate": 8.0})
        bar._progress.refresh()
        assert "transcribe: running" in out.getvalue()
        assert "30/60 s" in out.getvalue()
        assert "8.0x real time" in out.getvalue()
        bar.see("progress", {"done": 0, "total": None, "unit": "", "message": "loading demo:lm", "rate": None})
        bar.see("token", {"text": "x", "n": 17})
        bar._progress.refresh()
        assert "loading demo:lm" in out.getvalue()
        assert "17 tokens" in out.getvalue()
        bar.see("reasoning", {"text": "x", "n": 23})
        bar._progress.refresh()
        assert "23 tokens, thinking" in out.getvalue()


def test_text_takes_the_terminal_over_from_the_bar(capsys):
    """The bar goes when the first token comes, and the tokens are on standard output."""
    _, console = screen(terminal=True)
    both = TypingWithBar(console=console)
    with both:
        both.see("state", {"task": "generate", "state": "running", "progress": None})
        both.see("token", {"text": "Hel", "n": 1})
        both.see("progress", {"done": 2, "total": 10, "unit": "tokens", "message": "", "rate": 50.0})
        both.see("token", {"text": "lo", "n": 2})
    assert capsys.readouterr().out == "Hello"
    assert both.printed == "Hello"


def test_a_bar_without_text_just_goes():
    """When no token came the bar is taken away."""
    _, console = screen(terminal=True)
    both = TypingWithBar(console=console)
    with both:
        both.see("progress", {"done": 1, "total": 2, "unit": "items", "message": "", "rate": None})
    assert both.printed == ""
