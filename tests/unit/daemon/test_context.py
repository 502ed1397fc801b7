"""The world of a running task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes_daemon import Bench, FakeModels

from daemon.context import RunContext
from daemon.stopping import Stop
from jobs.errors import Interrupted, InvalidParams, JobCancelled, LedgerUnavailable, UnknownTask
from jobs.model import Job, NewJob, Placement


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def claimed(bench: Bench, **more: object) -> Job:
    job = bench.ledger.add(NewJob(task="t", **more))[0]  # type: ignore[arg-type]
    got = bench.ledger.claim(job.id, "me")
    assert got is not None
    return got


def again(bench: Bench, job: Job) -> Job:
    """Interrupt the attempt and begin the next one."""
    bench.ledger.release(job.id, job.fence)
    got = bench.ledger.claim(job.id, "me")
    assert got is not None
    return got


def context(bench: Bench, job: Job, stop: Stop | None = None) -> RunContext:
    return RunContext(job, world=bench.world, stop=stop or Stop())


def test_outputs_default_to_the_jobs_own_folder(bench: Bench, tmp_path: Path) -> None:
    """A job that names no directory writes under results/<id>."""
    job = claimed(bench)
    ctx = context(bench, job)
    output = ctx.output("x.txt", b"1")

    assert tmp_path / "results" / job.id / "x.txt" == output.path
    assert (output,) == ctx.outputs


def test_outputs_of_earlier_attempts_count(bench: Bench) -> None:
    """What an interrupted attempt wrote is among the outputs of the next one, unless somebody changed it since."""
    job = claimed(bench)
    first = context(bench, job)
    kept, changed = first.output("kept.txt", "1"), first.output("changed.txt", "1")
    first.output("gone.txt", "1").path.unlink()
    changed.path.write_text("by a person")
    second = context(bench, again(bench, job))
    new = second.output("new.txt", "2")

    assert second.outputs == (kept, new)


def test_a_new_attempt_clears_up_after_a_dead_one(bench: Bench) -> None:
    """Half a file that an attempt left when the power went does not stay for ever."""
    job = claimed(bench)
    left = context(bench, job).output("x.txt", "1").path.with_name(f".y.txt.{job.id}.mlxd-tmp")
    left.write_text("half")
    context(bench, job)
    assert left.exists()
    context(bench, again(bench, job))

    assert not left.exists()


def test_outputs_follow_the_placement(bench: Bench, tmp_path: Path) -> None:
    """A job that names a directory and a stem has them."""
    job = claimed(bench, placement=Placement(directory=tmp_path / "out", stem="memo"))
    ctx = context(bench, job)

    assert (tmp_path / "out", "memo") == (ctx.directory, ctx.stem)


def test_progress_is_told_often_and_written_seldom(bench: Bench) -> None:
    """Listeners hear progress ten times a second, the ledger once, and both of the last unit."""
    job = claimed(bench)
    ctx = context(bench, job)
    with bench.hub.subscribe(job.id) as events:
        for done in range(1, 101):
            bench.clock.advance(0.01)
            ctx.progress(done, 100, unit="tokens")
            if done == 99:
                assert bench.ledger.get(job.id).progress.done < 99
        told = [event.data["done"] for event in iter(lambda: events.get(0), None)]

    assert 9 <= len(told) <= 12
    assert told[-1] == 100
    assert bench.ledger.get(job.id).progress.done == 100


def test_progress_has_a_rate(bench: Bench) -> None:
    """The rate is units a second since the first report of that unit."""
    job = claimed(bench)
    ctx = context(bench, job)
    ctx.progress(0, 60, unit="s")
    bench.clock.advance(2)
    ctx.progress(60, 60, unit="s")

    assert bench.ledger.get(job.id).progress.rate == 30.0


def test_progress_survives_a_full_disk(bench: Bench) -> None:
    """A ledger that cannot be written does not end a job that only wanted to say how far it is."""

    def full(*args: object) -> None:
        raise LedgerUnavailable

    ctx = context(bench, claimed(bench))
    bench.ledger.progress = full  # type: ignore[method-assign]
    ctx.progress(1)


def test_cancel_outranks_drain() -> None:
    """A job that is told to step aside and then cancelled is cancelled."""
    stop = Stop()
    stop.set(Interrupted)
    with pytest.raises(Interrupted):
        stop.check()
    stop.set(JobCancelled)
    stop.set(Interrupted)
    with pytest.raises(JobCancelled):
        stop.check()


def test_stopped_job_leases_nothing(bench: Bench) -> None:
    """A drained job gets Interrupted, not a model."""
    stop = Stop()
    ctx = context(bench, claimed(bench), stop)
    stop.set(Interrupted)

    with pytest.raises(Interrupted), ctx.models(None, runtime="lm"):
        pytest.fail("leased")
    assert ctx.cancelled


def test_drain_while_waiting_for_a_model(bench: Bench) -> None:
    """A job that is drained while it waits for a model is interrupted, not cancelled."""
    stop = Stop()

    class Slow(FakeModels):
        def acquire(self, *args: object, **more: object) -> object:
            stop.set(Interrupted)
            raise JobCancelled

    bench.world.models = Slow()
    ctx = context(bench, claimed(bench), stop)

    with pytest.raises(Interrupted), ctx.models(None, runtime="lm"):
        pytest.fail("leased")


def test_one_call_of_many_can_be_cancelled(tmp_path: Path) -> None:
    """A task may cancel one of its own calls; the job goes on."""
    bench = Bench(tmp_path, models=FakeModels(None, {"text": "b"}))
    ctx = context(bench, claimed(bench))
    with ctx.models(None, runtime="lm") as model:
        first, second = model.submit({}), model.submit({})
        first.cancel()
        with pytest.raises(JobCancelled):
            first.result()
        assert second.result() == {"text": "b"}
    ctx.check()
    assert model.info == {"fake": True, "ref": "fake"}
    bench.close()


def test_stop_cancels_a_call_that_comes_too_late(tmp_path: Path) -> None:
    """A call submitted in the very moment of the stop is cancelled as well."""
    stop = Stop()
    models = FakeModels()
    bench = Bench(tmp_path, models=models)
    ctx = context(bench, claimed(bench), stop)
    submit = models.submit

    def stopped_meanwhile(request: object, **more: object) -> object:
        stop.set(JobCancelled)
        return submit(request, **more)  # type: ignore[arg-type]

    models.submit = stopped_meanwhile  # type: ignore[method-assign,assignment]
    with ctx.models(None, runtime="lm") as model, pytest.raises(JobCancelled):
        model.submit({}).result()
    assert models.calls[0].cancelled
    bench.close()


def test_checkpoint_is_found_by_the_next_attempt(bench: Bench) -> None:
    """What one attempt saved the next one reads."""
    job = claimed(bench)
    ctx = context(bench, job)
    assert ctx.saved is None
    ctx.checkpoint({"n": 1})

    assert context(bench, again(bench, job)).saved == {"n": 1}


def test_steps_have_settings_and_checkpoints_of_their_own(bench: Bench) -> None:
    """A step sees its own settings, stem and checkpoint; the parent's next checkpoint ends the step's."""
    seen: list[object] = []

    def step(ctx, params):
        seen.append((ctx.saved, ctx.settings["k"], params.k, ctx.stem, ctx.cancelled))
        ctx.checkpoint({"item": 7})
        ctx.output("step.txt", "s")
        return {"text": "s"}

    bench.task("step", step)
    bench.settings["step"] = {"k": 5}
    bench.defaults["step"] = {"k": 1}
    job = claimed(bench)
    ctx = context(bench, job)
    ctx.checkpoint({"done": 0})
    assert ctx.run("step", {}, stem="own") == {"text": "s"}
    second = context(bench, again(bench, job))
    second.run("step", {"k": 2})
    second.checkpoint({"done": 1})

    assert seen == [(None, 5, 1, "own", False), ({"item": 7}, 5, 2, None, False)]
    assert bench.ledger.checkpointed(job.id) == {"task": {"done": 1}}
    assert [output.path.name for output in ctx.outputs] == ["step.txt"]


def test_steps_are_checked(bench: Bench) -> None:
    """A step of an unknown task, or with wrong parameters, raises before anything runs."""
    bench.task("step", lambda ctx, params: {})
    ctx = context(bench, claimed(bench))

    with pytest.raises(UnknownTask):
        ctx.run("nothing", {})
    with pytest.raises(InvalidParams):
        ctx.run("step", {"wrong": 1})


def test_events_reach_followers(bench: Bench) -> None:
    """What a task emits is heard by whoever follows the job."""
    job = claimed(bench)
    with bench.hub.subscribe(job.id) as events:
        context(bench, job).emit("token", {"text": "a"})
        event = events.get(5)

    assert (event.kind, event.data) == ("token", {"text": "a"})
