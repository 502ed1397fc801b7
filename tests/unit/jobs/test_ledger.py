"""The ledger's promises, method by method."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_jobs import START, Clock

from jobs.errors import InputChanged, JobConflict, JobNotFound, LedgerUnavailable, QueueFull, StaleFence
from jobs.ledger import Ledger, utcnow
from jobs.model import (
    TERMINAL,
    After,
    ErrorInfo,
    Job,
    Lane,
    NewJob,
    OutputFile,
    Placement,
    Progress,
    Source,
    State,
)

ERROR = ErrorInfo(type="request-failed", message="It said no.", facts={"code": 7})


@pytest.fixture
def clock() -> Clock:
    """A wall clock that moves when told to."""
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """A fresh ledger."""
    ledger = Ledger(tmp_path / "state" / "ledger.sqlite3", clock=clock)
    yield ledger
    ledger.close()


def add(ledger: Ledger, **values: Any) -> Job:
    return ledger.add(NewJob.model_validate({"task": "t"} | values))[0]


def run(ledger: Ledger, **values: Any) -> Job:
    job = ledger.claim(add(ledger, **values).id, "me")
    assert job is not None
    return job


def bring(ledger: Ledger, state: State) -> Job:
    """Return a job in *state*, brought there by the ledger's own methods."""
    job = add(ledger)
    if state is State.QUEUED:
        return job
    claimed = ledger.claim(job.id, "me")
    assert claimed is not None
    ways: dict[State, Callable[[], object]] = {
        State.RUNNING: lambda: None,
        State.SUCCEEDED: lambda: ledger.finish(job.id, claimed.fence, {}, []),
        State.FAILED: lambda: ledger.fail(job.id, claimed.fence, ERROR, retry_at=None),
        State.CANCELLED: lambda: ledger.cancelled(job.id, claimed.fence),
        State.BLOCKED: lambda: ledger.block(job.id, claimed.fence, ERROR),
        State.QUARANTINED: lambda: ledger.crash(job.id, claimed.fence, ERROR, limit=1),
    }
    ways[state]()
    assert ledger.get(job.id).state is state
    return ledger.get(job.id)


# Taking jobs in.


def test_a_new_job_comes_back_as_it_was_asked_for(ledger: Ledger) -> None:
    """Everything the submitter said is kept, and the rest has its first value."""
    new = NewJob(
        task="transcribe",
        params={"file": "/a/b.wav", "nested": {"ü": [1, 2.5, None, True]}},
        lane=Lane.BATCH,
        priority=-7,
        idempotency_key="k",
        parent="p",
        source=Source(kind="folder", detail="b.wav", rule="memos"),
        placement=Placement(directory=Path("/out"), stem="b", input=Path("/a/b.wav"), after=After.DONE),
        max_failures=5,
        not_before=START,
    )
    job, created = ledger.add(new)
    assert created
    assert NewJob.model_validate(job.model_dump(include=set(NewJob.model_fields))) == new
    assert (job.state, job.attempts, job.fence, job.owner, job.created_at) == (State.QUEUED, 0, 0, None, START)
    assert ledger.get(job.id) == job


def test_jobs_are_numbered_in_order_of_acceptance(ledger: Ledger) -> None:
    """Sequence numbers grow."""
    assert [add(ledger).seq for _ in range(3)] == [1, 2, 3]


def test_the_same_key_is_the_same_job(ledger: Ledger) -> None:
    """Submitting a key again returns the first job, whatever state it is in, and creates nothing."""
    first = add(ledger, idempotency_key="k")
    claimed = ledger.claim(first.id, "me")
    assert claimed is not None
    ledger.finish(first.id, claimed.fence, {}, [])
    again, created = ledger.add(NewJob(task="other", idempotency_key="k"))
    assert not created
    assert (again.id, again.state) == (first.id, State.SUCCEEDED)
    assert sum(ledger.counts().values()) == 1


def test_a_full_queue_refuses_new_jobs_but_knows_old_ones(ledger: Ledger) -> None:
    """The limit counts what is unfinished; a repeated submit is answered even when it is reached."""
    old = add(ledger, idempotency_key="k")
    bring(ledger, State.SUCCEEDED)
    ledger.add(NewJob(task="t"), limit=2)
    with pytest.raises(QueueFull, match="2 jobs are unfinished") as caught:
        ledger.add(NewJob(task="t"), limit=2)
    assert caught.value.facts == {"unfinished": 2, "limit": 2}
    assert ledger.add(NewJob(task="t", idempotency_key="k"), limit=2) == (old, False)


def test_a_twin_id_is_not_used(tmp_path: Path) -> None:
    """When chance repeats an id, another one is drawn."""
    ids = iter(["aaaaaaaaaa", "aaaaaaaaaa", "bbbbbbbbbb"])
    ledger = Ledger(tmp_path / "l", new_id=lambda: next(ids))
    assert [add(ledger).id, add(ledger).id] == ["aaaaaaaaaa", "bbbbbbbbbb"]
    ledger.close()


def test_a_job_that_stepped_aside_stands_for_no_file(ledger: Ledger) -> None:
    """Its file held something else: what lies there, the old content too if it came back, becomes a job of its own."""
    file = (Path("/inbox"), "content:1", "place:1")
    first, _ = ledger.add(NewJob(task="t"), seen=file)
    claimed = ledger.claim(first.id, "me")
    assert claimed is not None
    why = ErrorInfo(type=InputChanged.slug, message="It was changed.")
    aside = ledger.cancelled(first.id, claimed.fence, why=why)
    assert (aside.state, aside.error) == (State.CANCELLED, why)
    assert [ledger.seen(Path("/inbox"), key) for key in file[1:]] == [None, None]
    second, created = ledger.add(NewJob(task="t"), seen=file)
    assert (created, second.id != first.id) == (True, True)
    assert ledger.seen(Path("/inbox"), "place:1") == second.id


def test_a_job_that_its_person_took_back_still_stands_for_its_file(ledger: Ledger) -> None:
    """Cancelling is no wish to have the file done once more."""
    job, _ = ledger.add(NewJob(task="t"), seen=(Path("/inbox"), "content:1"))
    ledger.cancel(job.id)
    assert ledger.seen(Path("/inbox"), "content:1") == job.id


def test_a_seen_file_becomes_one_job(ledger: Ledger) -> None:
    """A watched file is remembered in the transaction that makes its job; its return is the old job."""
    folder = Path("/inbox")
    job, created = ledger.add(NewJob(task="t"), seen=(folder, "id:1"))
    assert created
    assert ledger.seen(folder, "id:1") == job.id
    assert ledger.add(NewJob(task="t"), seen=(folder, "id:1")) == (job, False)
    assert ledger.seen(folder, "id:2") is None
    assert ledger.seen(Path("/elsewhere"), "id:1") is None
    other, created = ledger.add(NewJob(task="t"), seen=(folder, "id:2", "place:2"))
    assert created
    assert [ledger.seen(folder, key) for key in ("id:2", "place:2")] == [other.id, other.id]


def test_a_refused_job_leaves_no_memory_of_its_file(ledger: Ledger) -> None:
    """A file whose job was not accepted is not remembered as done."""
    with pytest.raises(QueueFull):
        ledger.add(NewJob(task="t"), limit=0, seen=(Path("/inbox"), "k"))
    assert ledger.seen(Path("/inbox"), "k") is None


def test_a_repeated_key_remembers_its_file(ledger: Ledger) -> None:
    """A file that gives an old job by its idempotency key is remembered with that job."""
    job = add(ledger, idempotency_key="k")
    assert ledger.add(NewJob(task="t", idempotency_key="k"), seen=(Path("/i"), "f")) == (job, False)
    assert ledger.seen(Path("/i"), "f") == job.id


def test_remembering_again_moves_the_memory(ledger: Ledger) -> None:
    """The last word about a file counts; a job that is not there cannot be remembered."""
    one, two = add(ledger), add(ledger)
    ledger.remember(Path("/i"), "f", one.id)
    ledger.remember(Path("/i"), "f", two.id)
    assert ledger.seen(Path("/i"), "f") == two.id
    with pytest.raises(JobNotFound):
        ledger.remember(Path("/i"), "f", "nonesuch")


# Looking.


def test_a_beginning_of_an_id_is_enough(tmp_path: Path) -> None:
    """Four characters or more find the one job that begins so; fewer, none or several do not."""
    ids = iter(["abcd111111", "abcd222222", "xyz_333333"])
    ledger = Ledger(tmp_path / "l", new_id=lambda: next(ids))
    jobs = [add(ledger) for _ in range(3)]
    assert ledger.get("abcd1") == jobs[0]
    assert ledger.get("ABCD2") == jobs[1]
    assert ledger.get("xyz_") == jobs[2]
    with pytest.raises(JobNotFound, match="Several jobs begin with 'abcd'") as caught:
        ledger.get("abcd")
    assert caught.value.facts["ambiguous"] is True
    for missing in ("abc", "", "zzzz", "abc%", "____", "abcd1111112", "\udcff\udcff\udcff\udcff"):
        with pytest.raises(JobNotFound):
            ledger.get(missing)
    ledger.close()


def test_find_filters_by_everything_said(ledger: Ledger) -> None:
    """Each filter alone picks the one job that differs in it."""
    plain = add(ledger)
    odd = add(
        ledger,
        task="other",
        lane=Lane.BATCH,
        parent=plain.id,
        source=Source(kind="folder", rule="memos"),
    )
    assert ledger.find() == [odd, plain]
    for wanted in ({"task": "other"}, {"lane": Lane.BATCH}, {"source": "folder"}, {"rule": "memos"}):
        assert ledger.find(**wanted) == [odd]  # type: ignore[arg-type]
    assert ledger.find(parent=plain.id) == [odd]
    claimed = ledger.claim(plain.id, "me")
    assert ledger.find(states={State.RUNNING}) == [claimed]
    assert ledger.find(states={State.RUNNING, State.QUEUED}, newest_first=False) == [claimed, odd]
    assert ledger.find(states=[State.FAILED]) == []


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_cover_everything_once(ledger: Ledger, newest_first: bool) -> None:
    """Following `before` page by page meets each job once, in either direction."""
    all_jobs = [add(ledger) for _ in range(7)]
    met: list[Job] = []
    before = None
    while page := ledger.find(limit=3, before=before, newest_first=newest_first):
        met += page
        before = page[-1].seq
    assert met == (all_jobs[::-1] if newest_first else all_jobs)


def test_counts_name_every_state(ledger: Ledger) -> None:
    """Each state is counted, zeros included."""
    for state in State:
        bring(ledger, state)
    bring(ledger, State.FAILED)
    assert ledger.counts() == dict.fromkeys(State, 1) | {State.FAILED: 2}


def test_ready_jobs_come_most_urgent_first(ledger: Ledger, clock: Clock) -> None:
    """Lane before priority before order of acceptance; delayed jobs appear when their time has come."""
    batch = add(ledger, lane=Lane.BATCH, priority=100)
    low = add(ledger, priority=-1)
    first, second = add(ledger), add(ledger)
    urgent = add(ledger, lane=Lane.INTERACTIVE, priority=-100)
    later = add(ledger, lane=Lane.INTERACTIVE, not_before=clock.now.replace(hour=13))
    bring(ledger, State.BLOCKED)
    assert ledger.ready() == [urgent, first, second, low, batch]
    assert ledger.ready(limit=1) == [urgent]
    assert ledger.ready_ids() == [(job.id, job.lane, job.priority, job.fence > 0) for job in ledger.ready()]
    assert ledger.ready_ids(lanes=[Lane.BATCH]) == [(batch.id, Lane.BATCH, batch.priority, False)]
    clock.forward(3600)
    assert ledger.ready()[0] == later


def test_next_due_is_the_earliest_future(ledger: Ledger, clock: Clock) -> None:
    """Only queued jobs whose time has not come are asked for."""
    assert ledger.next_due() is None
    add(ledger)
    two, one = (add(ledger, not_before=clock.now.replace(hour=hour)) for hour in (14, 13))
    assert ledger.next_due() == one.not_before
    clock.forward(3600)
    assert ledger.next_due() == two.not_before
    ledger.cancel(two.id)
    assert ledger.next_due() is None


# Running.


def test_a_claim_is_for_one(ledger: Ledger, clock: Clock) -> None:
    """A claim takes the job, counts the attempt and raises the fence; the next claimant gets nothing."""
    job = add(ledger)
    clock.forward(5)
    claimed = ledger.claim(job.id, "me")
    assert claimed is not None
    assert (claimed.state, claimed.owner, claimed.attempts, claimed.fence) == (State.RUNNING, "me", 1, 1)
    assert claimed.started_at == clock.now
    assert ledger.claim(job.id, "you") is None
    assert ledger.get(job.id) == claimed


@pytest.mark.parametrize("state", sorted(set(State) - {State.QUEUED}))
def test_only_a_queued_job_is_claimed(ledger: Ledger, state: State) -> None:
    """A stale or doubled hint changes nothing."""
    job = bring(ledger, state)
    assert ledger.claim(job.id, "you") is None
    assert ledger.get(job.id) == job


def test_an_invented_hint_claims_nothing(ledger: Ledger) -> None:
    """An id that is not there, or only the beginning of one, is no claim."""
    job = add(ledger)
    assert ledger.claim("nonesuch", "me") is None
    assert ledger.claim(job.id[:6], "me") is None


def test_a_delayed_job_is_claimed_when_it_is_due(ledger: Ledger, clock: Clock) -> None:
    """A claim before the time is refused."""
    job = add(ledger, not_before=clock.now.replace(hour=13))
    assert ledger.claim(job.id, "me") is None
    clock.forward(3600)
    assert ledger.claim(job.id, "me") is not None


def test_a_new_claim_clears_error_and_progress(ledger: Ledger, clock: Clock) -> None:
    """What the last attempt said is gone when the next one starts; what it saved is not."""
    job = run(ledger)
    ledger.progress(job.id, job.fence, Progress(done=3, total=4, unit="tokens", rate=1.5))
    ledger.checkpoint(job.id, job.fence, {"next": 3})
    failed = ledger.fail(job.id, job.fence, ERROR, retry_at=clock.now)
    assert failed.error == ERROR
    assert failed.progress == Progress(done=3, total=4, unit="tokens", rate=1.5)
    again = ledger.claim(job.id, "me")
    assert again is not None
    assert (again.error, again.progress, again.attempts, again.failures, again.fence) == (None, None, 2, 1, 2)
    assert ledger.checkpointed(job.id) == {"next": 3}


def test_nothing_is_saved_before_a_checkpoint(ledger: Ledger) -> None:
    """No checkpoint is None, also beside a progress report."""
    job = run(ledger)
    assert ledger.checkpointed(job.id) is None
    ledger.progress(job.id, job.fence, Progress(message="loading"))
    assert ledger.checkpointed(job.id) is None


WRITES: dict[str, Callable[[Ledger, str, int], object]] = {
    "progress": lambda ledger, job, fence: ledger.progress(job, fence, Progress()),
    "checkpoint": lambda ledger, job, fence: ledger.checkpoint(job, fence, {}),
    "intend": lambda ledger, job, fence: ledger.intend(job, fence, OutputFile(path=Path("/o"), size=0, sha256="0")),
    "finish": lambda ledger, job, fence: ledger.finish(job, fence, {}, []),
    "fail": lambda ledger, job, fence: ledger.fail(job, fence, ERROR, retry_at=None),
    "crash": lambda ledger, job, fence: ledger.crash(job, fence, ERROR),
    "release": lambda ledger, job, fence: ledger.release(job, fence),
    "block": lambda ledger, job, fence: ledger.block(job, fence, ERROR),
    "cancelled": lambda ledger, job, fence: ledger.cancelled(job, fence),
}


@pytest.mark.parametrize("write", sorted(WRITES))
def test_a_stale_fence_is_refused(ledger: Ledger, write: str) -> None:
    """Whoever lost the job can write nothing to it any more."""
    old = run(ledger)
    ledger.release(old.id, old.fence)
    new = ledger.claim(old.id, "you")
    assert new is not None
    with pytest.raises(StaleFence) as caught:
        WRITES[write](ledger, old.id, old.fence)
    assert caught.value.facts["current"] == new.fence
    assert ledger.get(old.id) == new
    assert ledger.intended(old.id) == {}


@pytest.mark.parametrize(
    ("write", "state"), list(itertools.product(sorted(WRITES), sorted(set(State) - {State.RUNNING, State.QUEUED})))
)
def test_what_does_not_run_is_not_written(ledger: Ledger, write: str, state: State) -> None:
    """The right fence does not help when the attempt has ended."""
    job = bring(ledger, state)
    with pytest.raises(StaleFence):
        WRITES[write](ledger, job.id, job.fence)
    assert ledger.get(job.id) == job


@pytest.mark.parametrize("write", sorted(WRITES))
def test_a_job_that_is_not_there_is_not_written(ledger: Ledger, write: str) -> None:
    """A write to an unknown job says that it is unknown."""
    with pytest.raises(JobNotFound):
        WRITES[write](ledger, "nonesuch", 1)


# Ending an attempt.


def test_a_success_keeps_result_and_outputs(ledger: Ledger, clock: Clock) -> None:
    """The result is strict JSON whatever the plugin returned; the outputs are what was written."""
    job = run(ledger)
    clock.forward(9)
    output = OutputFile(path=Path("/out/ä.txt"), size=3, sha256="ab")
    result = {"text": "ok", "path": Path("/x"), "nan": math.nan, "raw": b"\xff", "odd": "\ud800"}
    done = ledger.finish(job.id, job.fence, result, [output])
    assert (done.state, done.finished_at, done.owner, done.outputs) == (State.SUCCEEDED, clock.now, None, (output,))
    assert done.result == {"text": "ok", "path": "/x", "nan": None, "raw": "_w==", "odd": "\ud800"}
    assert ledger.get(job.id) == done


def test_failures_spend_the_error_budget(ledger: Ledger, clock: Clock) -> None:
    """A job with a budget of two is tried twice, then fails with its last error."""
    job = run(ledger, max_failures=2)
    retry = clock.now.replace(minute=1)
    waiting = ledger.fail(job.id, job.fence, ERROR, retry_at=retry)
    assert (waiting.state, waiting.not_before, waiting.failures) == (State.QUEUED, retry, 1)
    clock.forward(60)
    again = ledger.claim(job.id, "me")
    assert again is not None
    last = ledger.fail(job.id, again.fence, ERROR, retry_at=retry)
    assert (last.state, last.error, last.finished_at) == (State.FAILED, ERROR, clock.now)


def test_the_third_crash_quarantines_until_released_by_hand(ledger: Ledger) -> None:
    """Crashes are counted apart from failures; requeueing gives a whole new crash budget."""
    job = add(ledger)
    for _ in range(3):
        claimed = ledger.claim(job.id, "me")
        assert claimed is not None
        job = ledger.crash(job.id, claimed.fence, ERROR)
    assert (job.state, job.crashes, job.failures) == (State.QUARANTINED, 3, 0)
    assert job.error is not None
    assert job.error.message.startswith(ERROR.message)
    assert f"mlxd retry {job.id}" in job.error.message
    back = ledger.requeue(job.id[:8])
    assert (back.state, back.crashes, back.error) == (State.QUEUED, 0, None)


def test_drain_costs_no_attempt(ledger: Ledger) -> None:
    """A released job is as it was before, except that its old fence is dead."""
    job = add(ledger)
    claimed = ledger.claim(job.id, "me")
    assert claimed is not None
    assert ledger.release(job.id, claimed.fence) == job.model_copy(update={"fence": 1})


def test_blocked_jobs_go_on_together_or_singly(ledger: Ledger) -> None:
    """Unblocking names the jobs or takes all; what is not blocked is not touched."""
    one, two, three = (bring(ledger, State.BLOCKED) for _ in range(3))
    other = bring(ledger, State.QUARANTINED)
    assert (one.attempts, one.error) == (0, ERROR)
    freed = ledger.unblock([two.id, other.id])
    assert [(job.id, job.state, job.error) for job in freed] == [(two.id, State.QUEUED, None)]
    assert [job.id for job in ledger.unblock()] == [one.id, three.id]
    assert ledger.unblock() == []
    assert ledger.get(other.id) == other


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL - {State.RUNNING}))
def test_cancelling_what_waits_ends_it(ledger: Ledger, state: State) -> None:
    """A queued, blocked or quarantined job is cancelled at once."""
    job = ledger.cancel(bring(ledger, state).id)
    assert (job.state, job.finished_at) == (State.CANCELLED, START)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_has_ended_stays_as_it_is(ledger: Ledger, state: State) -> None:
    """Cancelling or requeueing a finished job is a conflict and changes nothing."""
    job = bring(ledger, state)
    for change in (ledger.cancel, ledger.requeue):
        with pytest.raises(JobConflict):
            change(job.id)
    assert ledger.get(job.id) == job


def test_cancelling_a_running_job_asks_it_to_stop(ledger: Ledger) -> None:
    """The wish is on the job; the attempt ends it."""
    job = run(ledger)
    assert ledger.cancel(job.id).cancel_requested
    assert ledger.get(job.id).state is State.RUNNING
    assert ledger.cancelled(job.id, job.fence).state is State.CANCELLED


def test_recovery_puts_back_what_a_dead_daemon_held(ledger: Ledger) -> None:
    """Running jobs of other owners are queued again with the attempt given back; one asked to stop is cancelled."""
    lost, stopping, mine = run(ledger), run(ledger), add(ledger)
    ledger.cancel(stopping.id)
    assert ledger.claim(mine.id, "new") is not None
    assert [job.id for job in ledger.orphans("new")] == [lost.id, stopping.id]
    put_back = {job.id: job for job in ledger.recover("new")}
    assert ledger.orphans("new") == []
    assert set(put_back) == {lost.id, stopping.id}
    assert (put_back[lost.id].state, put_back[lost.id].attempts) == (State.QUEUED, 0)
    assert put_back[stopping.id].state is State.CANCELLED
    assert ledger.get(mine.id).state is State.RUNNING
    assert ledger.recover("new") == []


# Outputs.


def test_intents_are_found_by_job_and_by_path(ledger: Ledger) -> None:
    """A file is a job's output from the moment it is intended, in either Unicode form of its name."""
    job = run(ledger)
    composed, decomposed = Path("/out/caf\u00e9.txt"), Path("/out/cafe\u0301.txt")
    ledger.intend(job.id, job.fence, OutputFile(path=composed, size=1, sha256="aa"))
    assert ledger.intended(job.id) == {composed: frozenset({"aa"})}
    assert ledger.is_output(composed)
    assert ledger.is_output(decomposed)
    assert not ledger.is_output(Path("/out/cafe.txt"))
    assert ledger.intended(run(ledger).id) == {}


def test_an_intent_remembers_what_the_file_may_still_hold(ledger: Ledger) -> None:
    """Intending other content keeps the earlier ones: a death in between leaves one of them on disk. It is bounded."""
    job = run(ledger)
    path = Path("/out/manifest.json")
    for number in range(20):
        ledger.intend(job.id, job.fence, OutputFile(path=path, size=1, sha256=str(number % 12)))
    assert ledger.intended(job.id) == {path: frozenset("76543210")}


def test_a_path_that_is_not_text_is_kept(ledger: Ledger) -> None:
    """A folder whose name is not UTF-8 works: Linux allows it."""
    job = run(ledger)
    path = Path(os.fsdecode(b"/out/\xff\xfe/a.txt"))
    ledger.intend(job.id, job.fence, OutputFile(path=path, size=1, sha256="aa"))
    assert set(ledger.intended(job.id)) == {path}
    assert ledger.is_output(path)
    done = ledger.finish(job.id, job.fence, {}, [OutputFile(path=path, size=1, sha256="aa")])
    assert done.outputs[0].path == path
    odd = add(ledger, source={"kind": "folder", "detail": str(path)}, placement={"directory": path})
    assert odd.placement.directory == path
    assert odd.source.detail == "/out/\\udcff\\udcfe/a.txt"


# The file.


def test_everything_is_there_after_reopening(tmp_path: Path, clock: Clock) -> None:
    """Closing and opening changes nothing about any job."""
    path = tmp_path / "l"
    ledger = Ledger(path, clock=clock)
    before = [bring(ledger, state) for state in State]
    ledger.close()
    again = Ledger(path, clock=clock)
    assert again.find(newest_first=False) == before
    again.close()


def test_the_files_are_private(ledger: Ledger, tmp_path: Path) -> None:
    """Nobody else may read the ledger, its log or its folder: prompts are in there."""
    add(ledger)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes) == {"ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_commits_are_synced_and_progress_is_not(ledger: Ledger) -> None:
    """WAL with full syncs for every promise, also on macOS; a progress report promises nothing and waits for none."""

    def pragmas(*, durable: bool) -> dict[str, object]:
        with ledger._db.write("add", durable=durable) as connection:
            return {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync", "foreign_keys")
            }

    full = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1, "foreign_keys": 1}
    assert pragmas(durable=True) == full
    assert pragmas(durable=False) == full | {"synchronous": 1}


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    """After the end nothing is read, written or pretended; closing again is fine."""
    ledger = Ledger(tmp_path / "l")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.counts()
    with pytest.raises(LedgerUnavailable, match="closed"):
        add(ledger)


def test_the_clock_is_aware() -> None:
    """The default clock tells UTC."""
    assert utcnow().utcoffset() is not None
