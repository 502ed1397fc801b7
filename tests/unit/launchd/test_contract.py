"""`launchd.contract`: running a command never raises."""

from __future__ import annotations

import sys

from launchd import contract
from launchd.contract import ServiceFailure, run_command


def test_what_a_command_said_comes_back() -> None:
    """Status, output and complaints arrive, and the command gets no standard input to wait for."""
    code = "import sys; print(repr(sys.stdin.read())); sys.stderr.write('no'); sys.exit(3)"
    assert run_command([sys.executable, "-IS", "-c", code]) == (3, "''\n", "no")


def test_bytes_that_are_no_text_do_no_harm() -> None:
    """Output that is not UTF-8 is shown with replacement characters."""
    answer = run_command([sys.executable, "-IS", "-c", "import sys; sys.stdout.buffer.write(b'\\xff')"])
    assert answer.out == "\ufffd"


def test_a_missing_command_is_an_answer() -> None:
    """127, as a shell would say."""
    answer = run_command(["/nonexistent/launchctl", "print"])
    assert answer.code == 127
    assert "not found" in answer.err


def test_a_command_that_hangs_is_cut_off(monkeypatch) -> None:
    """After the deadline the answer is 124."""
    monkeypatch.setattr(contract, "_COMMAND_TIMEOUT_S", 0.05)
    answer = run_command([sys.executable, "-IS", "-c", "import sys, threading; threading.Event().wait()"])
    assert answer.code == 124
    assert "no answer" in answer.err


def test_a_failure_carries_its_code() -> None:
    """The sentence and the status of the service manager."""
    failure = ServiceFailure("No.", code=5)
    assert str(failure) == "No."
    assert failure.code == 5
