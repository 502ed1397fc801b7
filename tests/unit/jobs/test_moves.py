"""What a job becomes: the pure decisions."""

from __future__ import annotations

import pytest
from fakes_jobs import START

from jobs import moves
from jobs.errors import JobConflict
from jobs.model import TERMINAL, ErrorInfo, Job, State, allowed

ERROR = ErrorInfo(type="request-failed", message="No.", facts={"n": 1})


def _job(**values: object) -> Job:
    running = {"id": "abcdefghjk", "seq": 1, "task": "t", "created_at": START, "state": State.RUNNING, "attempts": 2}
    return Job.model_validate(running | values)


def test_a_failure_within_budget_waits_for_its_time() -> None:
    """The error is kept for the person to see while the job waits for another try."""
    changes = moves.failed(_job(failures=1), ERROR, retry_at=START, now=START)
    assert changes["state"] == "queued"
    assert changes["failures"] == 2
    assert changes["not_before"] == START
    assert changes["error"] == {"type": "request-failed", "message": "No.", "facts": {"n": 1}}


@pytest.mark.parametrize(("failures", "retry_at"), [(2, START), (0, None)])
def test_a_failure_beyond_budget_or_without_a_time_is_the_end(failures: int, retry_at: object) -> None:
    """The third of three failures ends the job, and so does an error that trying again cannot help."""
    changes = moves.failed(_job(failures=failures), ERROR, retry_at=retry_at, now=START)  # type: ignore[arg-type]
    assert changes["state"] == "failed"
    assert changes["finished_at"] == START


@pytest.mark.parametrize(("crashes", "state"), [(0, "queued"), (1, "queued"), (2, "quarantined"), (7, "quarantined")])
def test_the_third_crash_quarantines(crashes: int, state: str) -> None:
    """Crashes are counted apart from failures, and cost the job its freedom at the limit."""
    changes = moves.crashed(_job(crashes=crashes), ERROR, limit=3, now=START)
    assert changes["state"] == state
    assert changes["crashes"] == crashes + 1
    assert "failures" not in changes


def test_drained_and_blocked_attempts_are_given_back() -> None:
    """What was nobody's fault costs no attempt."""
    assert moves.released(_job(), now=START)["attempts"] == 1
    assert moves.blocked(_job(), ERROR, now=START)["attempts"] == 1
    assert moves.released(_job(attempts=0), now=START)["attempts"] == 0


def test_a_wish_to_cancel_outlives_the_attempt() -> None:
    """A job that was asked to stop does not go round again, however its attempt ended."""
    asked = _job(cancel_requested=True)
    for changes in (
        moves.released(asked, now=START),
        moves.blocked(asked, ERROR, now=START),
        moves.crashed(asked, ERROR, limit=3, now=START),
        moves.failed(asked, ERROR, retry_at=START, now=START),
    ):
        assert changes["state"] == "cancelled"


def test_every_end_of_an_attempt_is_in_the_table() -> None:
    """No decision about a running job leads where the table of transitions does not."""
    job = _job()
    for changes in (
        moves.finished({}, [], now=START),
        moves.failed(job, ERROR, retry_at=None, now=START),
        moves.failed(job, ERROR, retry_at=START, now=START),
        moves.crashed(job, ERROR, limit=1, now=START),
        moves.released(job, now=START),
        moves.blocked(job, ERROR, now=START),
        moves.stopped(now=START),
    ):
        assert allowed(State.RUNNING, State(changes["state"]))
        assert changes["owner"] is None


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_has_ended_cannot_be_cancelled(state: State) -> None:
    """Terminal states do not change."""
    with pytest.raises(JobConflict, match=f"already {state}"):
        moves.cancelled(_job(state=state), now=START)


def test_a_running_job_is_only_asked_to_stop() -> None:
    """Cancelling a running job changes no state: the attempt ends itself."""
    assert moves.cancelled(_job(), now=START) == {"cancel_requested": 1}


@pytest.mark.parametrize("state", sorted(set(State) - {State.QUARANTINED, State.BLOCKED}))
def test_only_what_was_set_aside_is_put_back_by_hand(state: State) -> None:
    """Requeueing a job in any other state is refused."""
    with pytest.raises(JobConflict, match="only a quarantined or blocked job"):
        moves.requeued(_job(state=state))
