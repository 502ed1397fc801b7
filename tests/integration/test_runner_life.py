"""Runner processes with a stub runtime: how they start, serve, fail and die. Real processes, no MLX model."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fakes_engine
import psutil
import pytest
from fakes_engine import stub_launch

from daemon.models.engine import Engine, signal_name
from daemon.models.references import ResolvedModel
from daemon.models.runner import GRACE_S
from daemon.models.scheduler import ModelScheduler
from jobs.errors import (
    Interrupted,
    InvalidRequest,
    JobCancelled,
    ModelBroken,
    RequestFailed,
    RunnerDied,
    UnknownRuntime,
)
from jobs.model import Lane


@pytest.fixture(name="engine_of")
def _engine_of(tmp_path):
    made = []

    def make(*, start=True, on_exit=None, on_memory=None, **more):
        engine = Engine(stub_launch(tmp_path / "plugins", **more), on_exit=on_exit, on_memory=on_memory)
        made.append(engine)
        if start:
            engine.start()
        return engine

    yield make
    for engine in made:
        engine.stop(5)


def within(seconds, condition):
    """Wait for *condition* with a deadline."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


def gone(pid):
    """Whether no process has this id any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_request_is_served_with_its_events_and_its_lane(engine_of):
    """Events come on the way, the result at the end, and the runner reports the memory it takes."""
    memory, events = [], []
    engine = engine_of(on_memory=memory.append)
    call = engine.submit({"x": 1}, on_event=lambda kind, data: events.append((kind, data)), lane=Lane.BATCH)

    assert call.result() == {"text": "a", "lane": "batch"}
    assert events == [("token", {"text": "a"})]
    assert memory[0] > 1_000_000
    assert engine.memory == memory[-1]
    assert engine.alive
    assert engine.pid == engine.info["pid"]


def test_a_runner_sees_only_what_it_may_and_is_offline(engine_of, monkeypatch):
    """Secrets of the daemon's environment do not reach a runner; the hub is switched off whatever anybody says."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    environment = engine_of(env={"EXTRA": "1", "HF_HUB_OFFLINE": "0"}).info["env"]

    assert "HF_TOKEN" not in environment
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["EXTRA"] == "1"


def test_the_runner_is_in_our_process_group(engine_of):
    """The service manager ends a job by its process group: runners must be in it."""
    assert os.getpgid(engine_of().pid) == os.getpgid(0)


def test_one_request_that_is_refused_hurts_nobody(engine_of):
    """A ValueError of the session is the caller's mistake, another exception a failure; the runner goes on."""
    engine = engine_of()
    with pytest.raises(InvalidRequest, match="not with me"):
        engine.submit({"do": "refuse"}).result()
    with pytest.raises(RequestFailed, match="odd"):
        engine.submit({"do": "odd"}).result()
    with pytest.raises(RequestFailed, match="JSON"):
        engine.submit({"do": "nan"}).result()
    with pytest.raises(InvalidRequest, match="JSON"):
        engine.submit({"value": float("nan")})
    assert engine.submit({}).result()["text"] == "a"


def test_garbage_on_standard_output_disturbs_nothing(engine_of, tmp_path):
    """What a library prints lands in the runner's log, not in the conversation."""
    log = tmp_path / "logs" / "runner.log"
    engine = engine_of(options={"garbage": True}, log=log)

    assert engine.submit({"do": "print"}).result()["text"] == "a"
    engine.stop(5)
    assert "garbage" in log.read_text(errors="replace")
    assert "closed" in log.read_text(errors="replace")
    assert log.stat().st_mode & 0o77 == 0


def test_cancelling_ends_the_call_at_once_and_the_request_soon(engine_of):
    """A request that would never end is dropped; the runner is free for others."""
    engine = engine_of()
    begun = threading.Event()
    call = engine.submit({"do": "forever"}, on_event=lambda kind, data: begun.set())
    assert begun.wait(5)
    call.cancel()
    call.cancel()

    with pytest.raises(JobCancelled):
        call.result()
    assert engine.submit({}).result()["text"] == "a"


def test_a_callback_that_raises_hurts_nobody(engine_of):
    """A task's mistake in its event callback is logged; its result and other calls still come."""
    engine = engine_of()
    assert engine.submit({}, on_event=lambda kind, data: 1 / 0).result()["text"] == "a"


@pytest.mark.alone
@pytest.mark.parametrize("how", ["kill", "self", "raise"])
def test_a_death_in_mid_request_is_told_within_a_second(engine_of, how):
    """A kill, a crash and a session that raises end every call with `RunnerDied`, the signal and the last words."""
    exits = []
    engine = engine_of(on_exit=exits.append)
    begun = threading.Event()
    call = engine.submit({"do": "forever"}, on_event=lambda kind, data: begun.set())
    assert begun.wait(5)
    died = time.monotonic()
    if how == "kill":
        os.kill(engine.pid, signal.SIGKILL)
    else:
        engine.submit({"do": "die" if how == "self" else "raise"})

    with pytest.raises(RunnerDied) as caught:
        call.result()
    if how != "raise":
        assert time.monotonic() - died < 1
        assert caught.value.facts["signal"] == "SIGKILL"
    if how != "kill":
        assert ("last words" if how == "self" else "builtins.RuntimeError") in caught.value.facts["tail"]
        assert "the session is broken" not in caught.value.facts["tail"]  # it might have been a prompt
    within(1, lambda: exits == [engine])
    assert not engine.alive
    with pytest.raises(RunnerDied):
        engine.submit({}).result()


def test_a_death_says_who_was_aboard(engine_of):
    """Jobs and requests on the runner are counted; whoever comes too late, or waited for its turn, is innocent."""
    engine = engine_of()
    one, two = object(), object()
    aboard = [engine.submit({"do": "forever"}, holder=who) for who in (one, one, two)]
    waiting = engine.submit({"do": "forever"}, holder=two, alone=True)
    os.kill(engine.pid, signal.SIGKILL)

    for call in aboard:
        with pytest.raises(RunnerDied) as caught:
            call.result()
        assert (caught.value.facts["jobs"], caught.value.facts["requests"]) == (2, 3)
        assert caught.value.shared
        assert not caught.value.innocent
    for call in (waiting, engine.submit({})):
        with pytest.raises(RunnerDied) as caught:
            call.result()
        assert caught.value.innocent
        assert caught.value.facts["signal"] == "SIGKILL"


def test_a_runner_that_dies_idle_is_the_next_ones_matter(engine_of):
    """Nobody was aboard: whoever finds it dead is not called innocent, or a runner that always dies would loop."""
    engine = engine_of()
    os.kill(engine.pid, signal.SIGKILL)
    within(5, lambda: not engine.alive)
    with pytest.raises(RunnerDied) as caught:
        engine.submit({}).result()
    assert (caught.value.innocent, caught.value.shared) == (False, False)


def test_a_dead_runner_is_reported_before_its_calls_end(engine_of):
    """A job that is tried again at once must not be given the same engine once more."""
    exits, seen = [], []
    engine = engine_of(on_exit=exits.append)
    call = engine.submit({"do": "die"})

    def wait():
        with pytest.raises(RunnerDied):
            call.result()
        seen.extend(exits)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(10)
    assert seen == [engine]


def test_a_request_alone_has_the_runner_to_itself(engine_of):
    """It is sent when the others have ended, they when it has; all are answered, and a cancelled one holds up none."""
    engine = engine_of()
    first = engine.submit({"do": "forever"})
    alone = engine.submit({"do": "quiet", "steps": 5}, alone=True)
    dropped = engine.submit({}, alone=True)
    after = engine.submit({})
    assert not after.ended
    dropped.cancel()
    assert not alone.ended
    first.cancel()
    assert (alone.result()["text"], after.result()["text"]) == ("a", "a")
    with pytest.raises(JobCancelled):
        dropped.result()
    too_long = engine.submit({"do": "forever"}), engine.submit({"text": object()}, alone=True)
    too_long[0].cancel()
    with pytest.raises(InvalidRequest):
        too_long[1].result()


def test_a_frozen_runner_is_killed_by_the_deadline(engine_of):
    """A runner that is stopped or hangs while it has work is ended after the silence timeout."""
    engine = engine_of(silence_timeout_s=0.5)
    call = engine.submit({"do": "freeze"})
    with pytest.raises(RunnerDied, match="silent"):
        call.result()
    within(1, lambda: gone(engine.pid))


def test_a_runner_is_not_blamed_for_the_time_in_which_we_were_stopped(tmp_path):
    """Daemon and runner were stopped for minutes: the runner gets its time from then on, not the sack."""
    ahead = 0.0
    engine = Engine(stub_launch(tmp_path / "plugins", silence_timeout_s=2.0), clock=lambda: time.monotonic() + ahead)
    engine.start()
    call = engine.submit({"do": "freeze"})
    within(10, lambda: psutil.Process(engine.pid).status() == psutil.STATUS_STOPPED)
    before = engine._heard
    ahead = 300.0
    within(10, lambda: engine._heard - before > 200)
    os.kill(engine.pid, signal.SIGCONT)
    assert call.result()["text"] == "a"
    engine.stop(5)


def test_an_idle_runner_may_be_silent(engine_of):
    """The silence timeout counts only while there is work."""
    engine = engine_of(silence_timeout_s=0.2)
    engine.submit({}).result()
    assert not threading.Event().wait(0.5)
    assert engine.alive


def test_a_long_request_that_tells_nothing_gives_signs_of_life(engine_of):
    """A session that steps without events is not silent: the runner sends a beat a second."""
    engine = engine_of(silence_timeout_s=2.5)
    call = engine.submit({"do": "quiet", "steps": 350})
    assert call.result()["text"] == "a"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"raise": "the weights are odd"}, ModelBroken, "the weights are odd"),
        ({"exit": True}, RunnerDied, "status 3"),
        ({"hang": True}, RunnerDied, "not ready within"),
    ],
)
def test_a_load_that_fails_is_told(engine_of, options, error, match):
    """A runtime that raises, exits or hangs while loading gives one clear error, and no process is left."""
    engine = engine_of(start=False, options=options, start_timeout_s=1.0 if options.get("hang") else 30)
    with pytest.raises(error, match=match):
        engine.start()
    engine.stop(1)
    assert gone(engine.pid)


def test_an_unknown_runtime_names_the_broken_plugins(engine_of, tmp_path):
    """The runner says which plugins could not be loaded when nobody offers the runtime."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("import nothing_of_that_name")
    engine = engine_of(start=False, runtime="unheard-of")
    with pytest.raises(UnknownRuntime, match="nothing_of_that_name"):
        engine.start()


def test_the_limit_of_open_files_is_given_back(engine_of):
    """A library that lowers RLIMIT_NOFILE while it is imported has no lasting effect."""
    before = int(subprocess.check_output([sys.executable, "-c", _SOFT_LIMIT]))
    engine = engine_of(options={"lower": True})
    limits = Path(f"/proc/{engine.pid}/limits")
    if not limits.exists():
        pytest.skip("only Linux shows another process's limits")
    (line,) = [line for line in limits.read_text().splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) == before


_SOFT_LIMIT = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


def test_stopping_interrupts_pending_calls_and_leaves_no_process(engine_of):
    """`stop` is not a crash: calls get `Interrupted`, and a runner that hangs in a step is ended all the same."""
    engine = engine_of()
    call = engine.submit({"do": "hang"})
    engine.stop(0.2)
    with pytest.raises(Interrupted):
        call.result()
    assert gone(engine.pid)
    with pytest.raises(Interrupted):
        engine.submit({}).result()


def test_stopping_before_and_during_the_start(engine_of):
    """An engine that was stopped does not start; a start under way ends with `Interrupted`."""
    early = engine_of(start=False)
    early.stop(1)
    with pytest.raises(Interrupted):
        early.start()

    engine = engine_of(start=False, options={"hang": True})
    seen = []

    def start():
        with pytest.raises(Interrupted):
            engine.start()
        seen.append(True)

    starting = threading.Thread(target=start)
    starting.start()
    within(5, lambda: engine.pid is not None)
    engine.stop(0.1)
    starting.join()
    assert len(seen) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_whole_group_do_not_end_a_runner(engine_of, number):
    """Ctrl-C, a service manager's stop and a hang-up reach runners too; only the daemon decides when they end."""
    engine = engine_of()
    os.kill(engine.pid, number)
    assert engine.submit({}).result()["text"] == "a"


def test_kill_is_a_death(engine_of):
    """`kill` ends the runner at once; calls get `RunnerDied`."""
    engine = engine_of()
    call = engine.submit({"do": "forever"})
    engine.kill()
    with pytest.raises(RunnerDied):
        call.result()
    engine.kill()


@pytest.mark.parametrize(
    ("options", "work"), [({}, {}), ({}, {"do": "hang"}), ({"hang": True}, None)], ids=["idle", "step", "load"]
)
def test_a_runner_ends_when_its_daemon_dies(tmp_path, options, work):
    """After kill -9 of the parent the runner goes before any grace is over: idle, in the middle of a step or a load."""
    script = _PARENT.format(
        tests=str(Path(fakes_engine.__file__).parent), plugins=str(tmp_path / "p"), options=options, work=work
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    within(0.8 * GRACE_S, lambda: gone(pid))


_PARENT = """
import os, sys, threading, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from fakes_engine import stub_launch
from daemon.models.engine import Engine
engine = Engine(stub_launch(Path({plugins!r}), options={options}))
os.mkfifo(Path({plugins!r}) / "loading")
starting = threading.Thread(target=engine.start, daemon=True)
starting.start()
if {work} is None:
    (Path({plugins!r}) / "loading").read_text()
else:
    starting.join()
    begun = threading.Event()
    engine.submit({work}, on_event=lambda kind, data: begun.set())
    begun.wait()
print(engine.pid, flush=True)
time.sleep(60)
"""


def test_the_scheduler_loads_again_after_a_death(tmp_path):
    """After kill -9 of a resident runner its job gets `RunnerDied`, the next acquire has a new runner."""
    launch = stub_launch(tmp_path / "plugins")
    scheduler = ModelScheduler(
        resolve=lambda ref, runtime: ResolvedModel(ref=ref, runtime=runtime, path=tmp_path),
        runtimes={},
        spawn=lambda model, *, on_exit, on_memory: Engine(launch, on_exit=lambda _: on_exit(), on_memory=on_memory),
        budget=10**12,
        sizes=lambda model: 1,
    )
    scheduler.start()
    try:
        with scheduler.acquire("a", "stub") as lease:
            call = lease.submit({"do": "forever"})
            first = scheduler.status()[0].pid
            os.kill(first, signal.SIGKILL)
            with pytest.raises(RunnerDied):
                call.result()
        with scheduler.acquire("a", "stub") as lease:
            assert lease.submit({}).result()["text"] == "a"
            second = scheduler.status()[0].pid
        assert first != second
    finally:
        scheduler.stop(5)
    assert gone(second)


def test_signals_have_names():
    """Known signals are told by name, others by number."""
    assert signal_name(9) == "SIGKILL"
    assert signal_name(300) == "signal 300"
