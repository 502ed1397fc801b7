"""Why a job is held back, at the command line."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from daemon.cli.commands.admin import _lane
from daemon.cli.commands.jobs import _gist
from daemon.cli.display import Bar
from daemon.cli.waiting import report

REASON = "on battery (34 %), goes on at mains power"


def job(**said: Any) -> dict[str, Any]:
    return {
        "id": "aaaaaaaaaa",
        "task": "batch",
        "state": "queued",
        "error": None,
        "progress": None,
        "params": {"folder": "/prompts"},
        "source": {"detail": None},
        "waiting": REASON,
        **said,
    }


def test_in_the_list() -> None:
    """A job that is held back says so in place of what it works on; an older daemon says nothing of it."""
    assert _gist(job()) == f"waiting: {REASON}"
    assert _gist(job(waiting=None)) == "/prompts"
    bare = job()
    del bare["waiting"]
    assert _gist(bare) == "/prompts"


def test_while_it_is_waited_for() -> None:
    """The bar says the reason, and so does the sentence when the time to wait is over."""
    out = io.StringIO()
    bar = Bar(console=Console(file=out, width=120, force_terminal=True))
    with bar:
        bar.see("state", job())
    assert f"batch: waiting: {REASON}" in out.getvalue()


def test_when_the_time_to_wait_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--timeout`` the last sentence says why the job has not ended."""
    report(job())
    assert f"job aaaaaaaaaa is queued: Waiting: {REASON}." in capsys.readouterr().err
    report(job(waiting=None))
    assert "It has not ended yet." in capsys.readouterr().err


def test_of_a_lane() -> None:
    """The status says of each conditional lane what it waits for, and what cannot be checked here."""
    assert _lane({"lane": "batch", "waiting": REASON, "unread": []}) == f"batch: waiting: {REASON}"
    nothing = _lane({"lane": "batch", "waiting": None, "unread": ["idle_for", "power"]})
    assert nothing == "batch: nothing held back (cannot be checked here: idle_for, power)"
