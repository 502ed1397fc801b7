"""What every command shares."""

import io
import json

import pytest

from daemon.cli.console import Exit, absolute, exit_for_error, exit_for_job, shown, write, write_json
from jobs import errors
from jobs.model import State


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.DaemonUnreachable(), 3),
        (errors.InvalidParams(), 4),
        (errors.QueueFull(), 4),
        (errors.JobNotFound(), 4),
        (errors.JobCancelled(), 5),
        (errors.ConfigError(), 1),
        (errors.AlreadyRunning(), 1),
        (errors.ServiceError(), 1),
    ],
)
def test_errors_have_statuses(error, status):
    """Unreachable is 3, refused is 4, trouble on this machine is 1."""
    assert exit_for_error(error) == status


def test_every_state_has_a_status():
    """Each settled state has its own meaning; an unfinished one is a timeout."""
    assert {state.value: exit_for_job({"state": state.value}) for state in State} == {
        "queued": 124,
        "running": 124,
        "succeeded": 0,
        "failed": 1,
        "cancelled": 5,
        "blocked": 6,
        "quarantined": 6,
    }


def test_a_terminal_is_not_steered():
    """Escapes and direction marks become visible on a terminal, and stay as they are in a pipe."""
    evil = "a\x1b]0;title\x07b\u202ec\td\ne"
    assert shown(evil) == "a\\x1b]0;title\\x07b\\u202ec\td\ne"
    terminal, pipe = Terminal(), io.StringIO()
    write(evil, stream=terminal)
    write(evil, stream=pipe)
    assert "\x1b" not in terminal.getvalue()
    assert pipe.getvalue() == evil + "\n"


def test_json_keeps_letters_and_survives_halves(capsys):
    """Letters are printed as they are; half a surrogate pair does not end in a traceback."""
    write_json({"text": "Grüße 👋", "broken": "\ud800", "status": Exit.OK})
    assert json.loads(capsys.readouterr().out) == {"text": "Grüße 👋", "broken": "?", "status": 0}


def test_paths_are_made_absolute(monkeypatch, tmp_path):
    """Relative paths are the caller's, ~ is home, and links stay links."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    (tmp_path / "link").symlink_to("/etc")
    assert absolute("a/../b") == tmp_path / "b"
    assert str(absolute("~/b")) == "/home/x/b"
    assert absolute("link") == tmp_path / "link"


def test_a_path_that_is_no_text_is_refused(monkeypatch, tmp_path):
    """A folder above may have a name of any bytes; the daemon could not be told it."""
    monkeypatch.setattr("os.getcwd", lambda: f"{tmp_path}/odd\udcff")
    with pytest.raises(errors.InvalidInput, match=r"odd\\xff/a is not valid UTF-8"):
        absolute("a")
