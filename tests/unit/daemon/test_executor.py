"""The executor: one claim, one run, one ending, whatever the task does."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes_daemon import Bench, FakeModels

from daemon.verdicts import Policy
from jobs.errors import (
    InputChanged,
    InvalidInput,
    JobCancelled,
    LedgerUnavailable,
    ModelMissing,
    RequestFailed,
    RunnerDied,
)
from jobs.model import Job, Lane, NewJob, State


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def add(bench: Bench, task: str, **more: object) -> Job:
    return bench.ledger.add(NewJob(task=task, **more))[0]  # type: ignore[arg-type]


def test_success(bench: Bench) -> None:
    """A task's result and output files are recorded, and the end is told once."""

    def run(ctx, params):
        ctx.output("a.txt", "hello")
        return {"text": "hello"}

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.result, done.attempts) == (State.SUCCEEDED, {"text": "hello"}, 1)
    assert [output.path.read_text() for output in done.outputs] == ["hello"]
    assert [job.id] == [each.id for each in bench.ended]
    assert bench.executor.running() == []


def test_stale_hint_does_nothing(bench: Bench) -> None:
    """A doubled hint and one for a job that never was run nothing."""
    runs: list[int] = []
    bench.task("t", lambda ctx, params: runs.append(1) or {})
    job = add(bench, "t")
    bench.executor.execute(job.id)
    bench.executor.execute(job.id)
    bench.executor.execute("nosuchjob0")

    assert runs == [1]


def test_defaults_are_under_the_params(bench: Bench) -> None:
    """A task's defaults from the configuration apply where the job says nothing."""
    seen = {}
    bench.defaults["t"] = {"a": 1, "b": 1}
    bench.task("t", lambda ctx, params: seen.update(params.model_dump()) or {})
    bench.executor.execute(add(bench, "t", params={"b": 2}).id)

    assert (seen["a"], seen["b"]) == (1, 2)


def test_wrong_params_fail_at_once(bench: Bench) -> None:
    """Parameters that do not fit (settings may have changed since) fail the job without a retry."""
    bench.task("t", lambda ctx, params: {})
    job = add(bench, "t", params={"wrong": 1})
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.error.type) == (State.FAILED, "invalid-params")


def test_retryable_failure_comes_back_later(bench: Bench) -> None:
    """A retryable error requeues the job for later until the error budget is spent."""

    def run(ctx, params):
        raise RequestFailed("busy")

    bench.task("t", run)
    job = add(bench, "t", max_failures=2)
    bench.executor.execute(job.id)
    waiting = bench.ledger.get(job.id)
    bench.executor.execute(job.id)  # not due yet

    assert (State.QUEUED, bench.clock.now + timedelta(seconds=10)) == (waiting.state, waiting.not_before)
    assert bench.ledger.get(job.id).attempts == 1
    assert [job.id] == [each.id for each in bench.again]

    bench.clock.advance(11)
    bench.executor.execute(job.id)
    assert State.FAILED is bench.ledger.get(job.id).state


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInput("empty"), "invalid-input"),
        (ValueError("bug"), "task-error"),
        (SystemError(), "task-error"),
        (SystemExit(3), "task-error"),
        (KeyboardInterrupt(), "task-error"),
    ],
)
def test_hopeless_failure_is_final(bench: Bench, error: BaseException, kind: str) -> None:
    """A bad input or a bug in the task, an exit() too, fails the job at once, with a sentence."""

    def run(ctx, params):
        raise error

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (State.FAILED, kind) == (done.state, done.error.type)
    assert done.error.message


@pytest.mark.parametrize(("error", "state"), [(InvalidInput("no"), State.FAILED), (JobCancelled(), State.CANCELLED)])
def test_files_of_a_job_that_did_not_succeed_are_listed(bench: Bench, error: Exception, state: State) -> None:
    """What it had written is whole and stays; its owner learns of it from the job and not by chance."""
    written = []

    def run(ctx, params):
        written.append(ctx.output("first.txt", "1"))
        raise error

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.outputs) == (state, tuple(written))


def test_result_must_be_a_mapping(bench: Bench) -> None:
    """A plugin that returns nonsense fails its own job with a sentence."""
    bench.task("t", lambda ctx, params: "text")  # type: ignore[arg-type,return-value]
    job = add(bench, "t")
    bench.executor.execute(job.id)

    assert "mapping" in bench.ledger.get(job.id).error.message


def test_dead_runner_spends_the_crash_budget(bench: Bench) -> None:
    """A job whose runner dies three times is quarantined; its error budget stays untouched."""

    def run(ctx, params):
        raise RunnerDied("killed by signal 9", signal=9)

    bench.task("t", run)
    job = add(bench, "t")
    for _ in range(2):
        bench.executor.execute(job.id)
        assert State.QUEUED is bench.ledger.get(job.id).state
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.crashes, done.failures) == (State.QUARANTINED, 3, 0)


def test_a_shared_death_makes_a_suspect_and_convicts_nobody(tmp_path: Path) -> None:
    """A job that was not alone on a dead runner is tried again, alone; deaths of its own put it aside, releasably."""
    together, own = RunnerDied("gone", jobs=2, requests=2), RunnerDied("gone", jobs=1, requests=1)
    models = FakeModels(together, own, own)
    bench = Bench(tmp_path, models=models)

    def run(ctx, params):
        with ctx.models("m", runtime="lm") as model:
            return model.submit({}).result()

    bench.task("t", run)
    job = add(bench, "t")
    for _ in range(3):
        bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.crashes, models.alone) == (State.QUARANTINED, 3, [False, True, True])
    assert done.error.message.endswith(
        f"This job has ended its runner 3 times and is put aside; `mlxd retry {job.id}` releases it."
    )
    bench.close()


def test_shared_deaths_alone_never_quarantine(tmp_path: Path) -> None:
    """Even with a budget of one, somebody else's doing puts nobody aside."""
    models = FakeModels(RunnerDied("gone", jobs=2, requests=2), {"text": "x"})
    bench = Bench(tmp_path, models=models, policy=Policy(max_crashes=1))

    def run(ctx, params):
        with ctx.models("m", runtime="lm") as model:
            return model.submit({}).result()

    bench.task("t", run)
    job = add(bench, "t")
    for _ in range(2):
        bench.executor.execute(job.id)

    assert (bench.ledger.get(job.id).state, models.alone) == (State.SUCCEEDED, [False, True])
    bench.close()


def test_a_runner_that_was_dead_before_costs_nothing(bench: Bench) -> None:
    """A request that others' deeds kept from its runner costs its job neither an attempt nor a crash."""

    def run(ctx, params):
        raise RunnerDied("gone", jobs=0, requests=0)

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)

    back = bench.ledger.get(job.id)
    assert (back.state, back.crashes, back.attempts) == (State.QUEUED, 0, 0)
    assert [job.id] == [each.id for each in bench.again]


def test_a_task_may_clear_requests_of_suspicion_once(tmp_path: Path) -> None:
    """What the task says of a request counts while its job has one death to its name; after two all go alone."""
    died = RunnerDied("gone", jobs=1, requests=1)
    models = FakeModels(died, died, {"text": "x"})
    bench = Bench(tmp_path, models=models)

    def run(ctx, params):
        with ctx.models("m", runtime="lm") as model:
            return model.submit({}, alone=False).result()

    bench.task("t", run)
    job = add(bench, "t")
    for _ in range(3):
        bench.executor.execute(job.id)
    assert (bench.ledger.get(job.id).state, models.alone) == (State.SUCCEEDED, [False, False, True])
    bench.close()


def test_missing_things_block(bench: Bench) -> None:
    """A missing model, and a task whose plugin is gone, block the job and cost no attempt."""

    def run(ctx, params):
        raise ModelMissing("not here; mlxd models pull x", model="x")

    bench.task("t", run)
    for job in (add(bench, "t"), add(bench, "gone")):
        bench.executor.execute(job.id)
        done = bench.ledger.get(job.id)
        assert (done.state, done.attempts) == (State.BLOCKED, 0)
        assert done.error is not None


def test_cancel_reaches_the_call_under_way(tmp_path: Path) -> None:
    """Cancelling a running job cancels its request, ends it as cancelled, and gives the lease back."""
    models = FakeModels(None)
    bench = Bench(tmp_path, models=models)

    def run(ctx, params):
        with ctx.models("m", runtime="lm") as model:
            return model.submit({"prompt": "x"}).result()

    bench.task("t", run)
    job = add(bench, "t")
    worker = threading.Thread(target=bench.executor.execute, args=(job.id,))
    worker.start()
    assert models.submitted.wait(10)
    assert State.RUNNING is bench.ledger.cancel(job.id).state
    assert bench.executor.cancel(job.id)
    worker.join(10)

    assert State.CANCELLED is bench.ledger.get(job.id).state
    assert (models.leased, models.released, models.calls[0].cancelled) == (1, 1, True)
    assert not bench.executor.cancel(job.id)
    bench.close()


def test_cancel_between_claim_and_run(bench: Bench) -> None:
    """A cancellation that comes before the job can be found still stops it before the task runs."""
    ran: list[int] = []
    bench.task("t", lambda ctx, params: ran.append(1) or {})
    job = add(bench, "t")
    claim = bench.ledger.claim

    def claimed_and_cancelled(job_id: str, owner: str, **_: object) -> Job | None:
        got = claim(job_id, owner)
        bench.ledger.cancel(job_id)
        return got

    bench.ledger.claim = claimed_and_cancelled  # type: ignore[method-assign]
    bench.executor.execute(job.id)

    assert (bench.ledger.get(job.id).state, ran) == (State.CANCELLED, [])


def test_a_hint_in_the_wrong_lane_does_nothing(bench: Bench) -> None:
    """A job runs on a worker of its own lane, whatever the queue's file says."""
    bench.task("t", lambda ctx, params: {})
    job = add(bench, "t")
    bench.executor.execute(job.id, Lane.INTERACTIVE)
    assert bench.ledger.get(job.id).state is State.QUEUED
    bench.executor.execute(job.id, job.lane)
    assert bench.ledger.get(job.id).state is State.SUCCEEDED


def test_drain_puts_the_job_back(tmp_path: Path) -> None:
    """Draining returns a running job to the queue at no cost, and nothing more is claimed."""
    models = FakeModels(None)
    bench = Bench(tmp_path, models=models)

    def run(ctx, params):
        ctx.checkpoint({"page": 3})
        with ctx.models(None, runtime="lm") as model:
            return model.submit({}).result()

    bench.task("t", run)
    job, later = add(bench, "t"), add(bench, "t")
    worker = threading.Thread(target=bench.executor.execute, args=(job.id,))
    worker.start()
    assert models.submitted.wait(10)
    bench.executor.drain(gently=True)
    assert [job.id] == [each.id for each in bench.executor.running()], "a normal job may finish while there is time"
    bench.executor.drain(gently=False)
    assert bench.executor.wait_idle(10)
    worker.join(10)
    bench.executor.execute(later.id)

    back = bench.ledger.get(job.id)
    assert (back.state, back.attempts, bench.ledger.checkpointed(job.id)) == (State.QUEUED, 0, {"task": {"page": 3}})
    assert State.QUEUED is bench.ledger.get(later.id).state
    assert bench.again == [], "nothing is put back into a queue that is stopping"
    bench.close()


def test_lost_fence_is_dropped(bench: Bench) -> None:
    """An attempt that lost its job to another writes nothing and tells nobody."""

    def run(ctx, params):
        bench.ledger.recover("somebody-else")
        return {"text": "late"}

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)

    assert (bench.ledger.get(job.id).state, bench.ended) == (State.QUEUED, [])


def test_unwritten_end_leaves_an_orphan(bench: Bench) -> None:
    """When the ledger fails at the end of a job until the stop, it is found as an orphan, and not while it runs."""
    inside: list[list[Job]] = []

    def run(ctx, params):
        inside.append(bench.executor.orphans())
        bench.executor.drain(gently=False)
        return {}

    def full(*args: object, **more: object) -> Job:
        raise LedgerUnavailable("disk full")

    bench.task("t", run)
    bench.ledger.finish = full  # type: ignore[method-assign]
    job = add(bench, "t")
    bench.executor.execute(job.id)

    assert inside == [[]]
    assert [job.id] == [each.id for each in bench.executor.orphans()]
    assert bench.astray == 1


def test_unclaimable_ledger_is_survived(bench: Bench) -> None:
    """A ledger that cannot be written at the claim leaves the worker alive and the job where it was."""

    def full(*args: object, **_: object) -> Job:
        raise LedgerUnavailable("disk full")

    bench.task("t", lambda ctx, params: {})
    job = add(bench, "t")
    bench.ledger.claim = full  # type: ignore[method-assign]
    bench.executor.execute(job.id)

    assert State.QUEUED is bench.ledger.get(job.id).state
    assert bench.astray == 1


@pytest.mark.parametrize("verb", ["finish", "fail", "crash", "block", "intend", "checkpoint"])
def test_what_was_computed_outlasts_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """A running job waits while the ledger cannot be written and goes on right afterwards: it is not run again."""
    bench = Bench(tmp_path, policy=Policy(persist_every=0.001))
    write, tries, runs = getattr(bench.ledger, verb), [], []
    ends = {"fail": InvalidInput("no"), "crash": RunnerDied("died"), "block": ModelMissing("gone")}

    def failing(*args: object, **more: object) -> object:
        tries.append(verb)
        if len(tries) < 4:
            raise LedgerUnavailable("disk full")
        return write(*args, **more)

    def run(ctx, params):
        runs.append(1)
        ctx.checkpoint({"step": 1})
        ctx.output("a.txt", "hello")
        if verb in ends:
            raise ends[verb]
        return {}

    monkeypatch.setattr(bench.ledger, verb, failing)
    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)
    states = {"fail": State.FAILED, "crash": State.QUEUED, "block": State.BLOCKED}
    assert bench.ledger.get(job.id).state is states.get(verb, State.SUCCEEDED)
    assert (len(tries), runs, len(bench.ended)) == (4, [1], 1)
    bench.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_results_without_a_place_block_the_job(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A full or read-only disk costs a job neither an attempt nor its error budget: it waits, with the reason."""

    def full(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("jobs.files.Files.write", full)
    bench.task("t", lambda ctx, params: {"text": str(ctx.output("a.txt", "hello").path)})
    job = add(bench, "t")
    bench.executor.execute(job.id)
    after = bench.ledger.get(job.id)
    assert (after.state, after.attempts, after.failures) == (State.BLOCKED, 0, 0)
    assert after.error is not None
    assert (after.error.type, after.error.facts["needs"]) == ("storage-unavailable", 5)
    assert bench.again == [after]
    assert list((bench.world.results / job.id).iterdir()) == []


def test_a_disk_error_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO on a result spends the error budget: it may pass, and a disk that is broken must not be asked for ever."""

    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr("jobs.files.Files.sync", broken)
    bench.task("t", lambda ctx, params: {"text": str(ctx.output("a.txt", "hello").path)})
    job = add(bench, "t", max_failures=2)
    bench.executor.execute(job.id)
    assert (bench.ledger.get(job.id).state, bench.ledger.get(job.id).failures) == (State.QUEUED, 1)
    bench.clock.advance(60)
    bench.executor.execute(job.id)
    assert bench.ledger.get(job.id).state is State.FAILED


def test_no_model_works_for_results_without_a_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred jobs in the night of a full disk keep no model busy: they are blocked before they ask for one."""
    monkeypatch.setattr("jobs.room.LEAST", 1 << 62)

    def run(ctx, params):
        with ctx.models(None, runtime="lm"):
            return {}

    bench.task("t", run)
    job = add(bench, "t")
    bench.executor.execute(job.id)
    assert bench.ledger.get(job.id).state is State.BLOCKED
    assert bench.models.leased == 0


def test_what_follows_an_end_outlasts_a_full_disk(tmp_path: Path) -> None:
    """Input, notices and followers of a job that has ended are seen to when the ledger can be written again."""
    bench = Bench(tmp_path, policy=Policy(persist_every=0.001))
    tries: list[Job] = []

    def ended(job: Job) -> None:
        tries.append(job)
        if len(tries) < 3:
            raise LedgerUnavailable("disk full")
        bench.ended.append(job)

    bench.executor._ended = ended
    bench.task("t", lambda ctx, params: {})
    job = add(bench, "t")
    bench.executor.execute(job.id)
    assert (len(tries), [each.state for each in bench.ended], bench.astray) == (3, [State.SUCCEEDED], 0)
    bench.close()


def test_a_job_that_cannot_be_read_after_its_claim_is_looked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading may fail as well: the job is claimed and does not run, so somebody has to look for it soon."""

    def broken(job_id: str) -> Job:
        raise LedgerUnavailable("disk I/O error")

    bench.task("t", lambda ctx, params: {})
    job = add(bench, "t")
    with monkeypatch.context() as patched:
        patched.setattr(bench.ledger, "get", broken)
        bench.executor.execute(job.id)
    assert [job.id] == [each.id for each in bench.executor.orphans()]
    assert bench.astray == 1


class Changing:
    """A watched file that is changed at a certain look."""

    def __init__(self, bench: Bench, *, at: int) -> None:
        self.looks = 0
        self._at = at
        bench.world.require_input = self

    def __call__(self, _job: Job, _stopping: object) -> None:
        self.looks += 1
        if self.looks >= self._at:
            raise InputChanged("a.txt was changed.")


def test_a_job_whose_file_was_changed_does_not_begin(bench: Bench) -> None:
    """What it was made of is gone, and what lies there is another job's: it ends, says why, and costs nothing."""
    Changing(bench, at=1)
    bench.task("t", lambda ctx, params: pytest.fail("it ran"))
    job = add(bench, "t")
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.error.type) == (State.CANCELLED, "input-changed")
    assert [one.id for one in bench.ended] == [job.id]


@pytest.mark.parametrize("error", [None, InvalidInput("a.txt is cut short"), RequestFailed("busy")])
def test_a_file_changed_while_it_was_read_makes_no_result(bench: Bench, error: Exception | None) -> None:
    """Nobody knows what was read: neither the result nor the complaint is of what was taken."""
    file = Changing(bench, at=2)

    def run(ctx, params):
        ctx.output("a.txt", "of who knows what")
        if error is not None:
            raise error
        return {}

    bench.task("t", run)
    job = add(bench, "t", max_failures=3)
    bench.executor.execute(job.id)

    done = bench.ledger.get(job.id)
    assert (done.state, done.error.type, file.looks) == (State.CANCELLED, "input-changed", 2)
    assert len(done.outputs) == 1


def test_a_file_changed_after_it_was_read_is_no_matter(bench: Bench) -> None:
    """The task said when it had read all of it; its result, and its own failure, stand."""

    def run(ctx, params):
        ctx.input_read()
        if params.fail:
            raise InvalidInput("no speech in it")
        return {}

    bench.task("t", run)
    for fail, state in ((False, State.SUCCEEDED), (True, State.FAILED)):
        Changing(bench, at=3)
        job = add(bench, "t", params={"fail": fail})
        bench.executor.execute(job.id)
        assert bench.ledger.get(job.id).state is state


def test_a_task_hears_that_its_file_was_changed(bench: Bench) -> None:
    """The question whether it was read is answered at once, also to a step of a job, before more is computed."""
    Changing(bench, at=2)

    went_on = []

    def step(ctx, params):
        ctx.input_read()
        went_on.append(params)
        return {}

    bench.task("step", step)
    bench.task("t", lambda ctx, params: ctx.run("step", {}))
    job = add(bench, "t")
    bench.executor.execute(job.id)
    assert (bench.ledger.get(job.id).error.type, went_on) == ("input-changed", [])
