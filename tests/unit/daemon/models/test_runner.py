"""The runner's main loop, in this process: a fake session, a real socket pair."""

import os
import queue
import resource
import socket
import threading

import pytest

from daemon.models import runner
from daemon.models.runner import Runner, descriptors_kept, find_runtime
from daemon.models.wire import Wire
from jobs.errors import UnknownRuntime

LIMITS = {"memory": None, "cache": None}
PLACE = {"files": None, "entry_points": False, "disabled": []}


class Session:
    """Counts down from each request's n."""

    def __init__(self):
        self.info = {"kind": "fake"}
        self.left = {}
        self.closed = False

    @property
    def busy(self):
        return bool(self.left)

    def submit(self, request_id, request):
        if "n" not in request:
            raise ValueError("n is missing")
        self.left[request_id] = request["n"]

    def cancel(self, request_id):
        self.left.pop(request_id, None)

    def step(self):
        for request_id in list(self.left):
            self.left[request_id] -= 1
            if self.left[request_id] > 0:
                yield request_id, "token", {"left": self.left[request_id]}
            else:
                del self.left[request_id]
                yield request_id, "done", {"ok": True}

    def close(self):
        self.closed = True


@pytest.fixture(name="session")
def _session(monkeypatch):
    session = Session()

    class Runtime:
        def load(self, model, options):
            if "fail" in options:
                raise OSError("no weights")
            return session

    monkeypatch.setattr(runner, "find_runtime", lambda name, place: Runtime())
    monkeypatch.setattr(runner.mlx_process, "prepare", lambda **limits: None)
    return session


def converse(*messages, options=None):
    """Run a runner on *messages* and return everything it said."""
    ours, theirs = socket.socketpair()
    inbox = queue.SimpleQueue()
    load = {"op": "load", "runtime": "x", "model": "/m", "options": options or {}, "plugins": PLACE, "limits": LIMITS}
    for message in [load, *messages, {"op": "close"}]:
        inbox.put(message)
    with ours, theirs:
        Runner(Wire(theirs), inbox).run()
        theirs.shutdown(socket.SHUT_WR)
        return list(Wire(ours).messages())


def submit(request_id, **request):
    return {"op": "submit", "id": request_id, "lane": "normal", "request": request}


def test_ready_and_memory_come_first(session):
    """The daemon hears what was loaded and what it takes; closing closes the session."""
    said = converse()
    assert [one["op"] for one in said] == ["ready", "memory"]
    assert said[0]["data"] == {"kind": "fake"}
    assert session.closed


def test_a_refusal_is_one_requests_error(session):
    """A ValueError on submit becomes an invalid-request error of that id."""
    said = converse(submit("1"))
    assert said[-1] == {
        "op": "event",
        "id": "1",
        "kind": "error",
        "data": {"type": "invalid-request", "message": "n is missing"},
    }


def test_a_load_that_fails_is_told_and_ends_the_runner(session):
    """The reason travels; nothing is served."""
    (said,) = converse(options={"fail": True})
    assert said["op"] == "failed"
    assert said["data"] == {"type": "model-broken", "message": "OSError: no weights"}
    assert not session.closed


def test_a_first_message_that_is_no_load_ends_the_runner(session):
    """A daemon that dies before it said anything leaves no runner behind."""
    ours, theirs = socket.socketpair()
    inbox = queue.SimpleQueue()
    inbox.put({"op": "close"})
    with ours, theirs:
        Runner(Wire(theirs), inbox).run()


def test_requests_are_stepped_and_cancelled_ones_say_nothing(session):
    """Between two steps messages are taken; what a session still says of a cancelled request is dropped."""
    ours, theirs = socket.socketpair()
    inbox = queue.SimpleQueue()
    with ours, theirs:
        one = Runner(Wire(theirs), inbox)
        one._take(session, submit("1", n=2))
        one._take(session, submit("2", n=5))
        one._step(session)
        one._take(session, {"op": "cancel", "id": "2"})
        one._event(("2", "token", {}))
        one._step(session)
        theirs.shutdown(socket.SHUT_WR)
        said = [(m["id"], m["kind"]) for m in Wire(ours).messages() if m["op"] == "event"]
    assert said == [("1", "token"), ("2", "token"), ("1", "done")]


def test_a_daemon_that_is_gone_is_no_error(session):
    """Events for a closed wire go nowhere; the end is noticed by the reader."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        Runner(Wire(theirs), queue.SimpleQueue())._say({"op": "beat"})


def test_a_beat_is_sent_when_nothing_else_was(session):
    """After a second without a word the runner says that it is busy."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = Runner(Wire(theirs), queue.SimpleQueue())
        one._said -= 2
        session.left["x"] = 5
        one._step(session)
        one._said -= 2
        one._step(session)
        theirs.shutdown(socket.SHUT_WR)
        assert [m["op"] for m in Wire(ours).messages()] == ["beat", "beat"]


def test_main_serves_a_descriptor_until_its_end(session, monkeypatch):
    """The program takes the descriptor of the wire, serves, and returns 0 when it was told to close."""
    monkeypatch.setattr(runner.os, "dup2", lambda old, new: None)
    monkeypatch.setattr(runner.signal, "signal", lambda number, handler: None)
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    wire.send({"op": "load", "runtime": "x", "model": "/m", "options": {}, "plugins": PLACE, "limits": LIMITS})
    wire.send(submit("1", n=1))
    said = []

    def watch():
        for message in wire.messages():
            said.append(message)
            if message.get("kind") == "done":
                wire.send({"op": "close"})
                wire.shut()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert runner.main([str(theirs.detach())], grace=5) == 0
    watcher.join()
    ours.close()
    assert said[-1]["kind"] == "done"


@pytest.mark.parametrize("said", [b"", b'{"op": "load"}\n', b"garbage\n"])
def test_the_end_of_the_daemon_ends_the_process_at_once(monkeypatch, said):
    """When the wire ends and nobody said close, no step, load or import is waited for; garbage counts as the end."""
    left = []
    monkeypatch.setattr(runner.os, "_exit", left.append)
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(said)
        ours.close()
        runner._pump(Wire(theirs), queue.SimpleQueue(), threading.Event(), 1e6)
    assert left == [1]


def test_the_step_under_way_has_a_grace_when_told_to_close(monkeypatch):
    """After "close" the end of the wire waits for the owner, but not for ever."""
    left = []
    monkeypatch.setattr(runner.os, "_exit", left.append)
    for grace, ended in ((1e6, True), (0.0, False)):
        ours, theirs = socket.socketpair()
        done, inbox = threading.Event(), queue.SimpleQueue()
        with theirs:
            Wire(ours).send({"op": "close"})
            ours.close()
            reader = threading.Thread(target=runner._pump, args=(Wire(theirs), inbox, done, grace))
            reader.start()
            assert inbox.get() == {"op": "close"}
            if ended:
                done.set()
            reader.join()
    assert left == [1]


def test_built_in_runtimes_are_found_and_unknown_ones_are_not():
    """The runner finds runtimes through the same plugins as the daemon."""
    assert find_runtime("lm", PLACE).name == "lm"
    with pytest.raises(UnknownRuntime, match="'nope'"):
        find_runtime("nope", PLACE)
    with pytest.raises(UnknownRuntime):
        find_runtime("lm", {**PLACE, "disabled": ["lm"]})


def test_the_limit_of_open_files_never_falls():
    """What lowers the soft limit inside the block has no effect after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptors_kept():
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_footprint_is_what_the_system_counts():
    """On Linux it is the resident set; on macOS it is read from the eighth counter of rusage_info."""
    from daemon.models.footprint import footprint, physical_footprint

    assert footprint() > 1_000_000

    def fake(pid, flavour, buffer):
        assert (pid, flavour) == (os.getpid(), 0)
        buffer[16 + 56 : 16 + 64] = (12345).to_bytes(8, "little")
        return 0

    assert physical_footprint(fake, os.getpid()) == 12345
    assert physical_footprint(lambda *_: -1, 1) is None


def test_a_runners_log_is_put_aside_when_it_is_long(tmp_path, monkeypatch):
    """A log beyond the limit becomes .1; the tail is what this runner wrote, not what stood there before."""
    from daemon.models import launch

    monkeypatch.setattr(launch, "MAX_LOG", 10)
    path = tmp_path / "runner.log"
    path.write_text("old and long enough")
    first = launch.Stderr(path)
    first.file.write(b"mine")
    first.file.flush()
    assert (first.tail(), path.with_name("runner.log.1").read_text()) == ("mine", "old and long enough")
    first.close()
    second = launch.Stderr(path)
    assert second.tail() == ""
    second.close()
