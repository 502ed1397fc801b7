"""What follows a job's end."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from daemon.aftermath import Aftermath
from jobs.model import Job, State


@pytest.mark.parametrize(
    ("state", "told", "plugins_hear"),
    [
        (State.SUCCEEDED, True, True),
        (State.FAILED, True, True),
        (State.CANCELLED, True, True),
        (State.QUARANTINED, True, False),
        (State.QUEUED, False, False),
        (State.BLOCKED, False, False),
    ],
)
def test_who_hears_of_which_end(state: State, told: bool, plugins_hear: bool) -> None:
    """Plugins hear of terminal states, the notifier also of a quarantine, which waits for a person; of nothing else."""
    heard: list[Job] = []
    notified: list[Job] = []
    aftermath = Aftermath(
        plugins=SimpleNamespace(job_finished=heard.append),  # type: ignore[arg-type]
        unblock=lambda: None,
        journal=SimpleNamespace(),  # type: ignore[arg-type]
        trash=SimpleNamespace(),  # type: ignore[arg-type]
        notify=notified.append,
    )
    job = Job(task="t", id="aaaaaaaaaa", seq=1, state=state, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    aftermath(job)
    assert (bool(notified), bool(heard)) == (told, plugins_hear)
