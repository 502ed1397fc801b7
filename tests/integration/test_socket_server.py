"""The server itself: its thread, its connections, and people who mean it no good."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes_socket import FakeService, serving, short_folder

from daemon.api.app import create_app
from daemon.api.listener import Listener, Origin, bind
from daemon.api.server import SocketServer

PATIENCE = 20


@contextlib.contextmanager
def connected(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        yield sock


def read_all(sock):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def ask(path, request=b"GET /v1/health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"):
    with connected(path) as sock:
        sock.sendall(request)
        return read_all(sock)


def test_it_serves_and_leaves_no_trace():
    """A request is answered right after start; after stop the thread and the socket file are gone."""
    with serving(FakeService()) as path:
        assert ask(path).startswith(b"HTTP/1.1 200")
        assert b"date:" not in ask(path).lower()
    assert not path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "mlxd-socket"]


def test_strangers_are_not_served():
    """When the kernel names another user, or nobody, the connection ends without a byte and without a request."""
    service = FakeService()
    with serving(service, allow=lambda _sock: False) as path:
        with connected(path) as sock:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(b"POST /v1/shutdown HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n")
            assert read_all(sock) == b""
        assert service.calls == []


def test_each_connection_is_asked_for():
    """The check is made per connection, on the accepted socket."""
    seen = []

    def allow(sock):
        seen.append(sock.family)
        return len(seen) != 2

    with serving(FakeService(), allow=allow) as path:
        answers = []
        for _ in range(3):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                answers.append(ask(path)[:12])
        assert seen == [socket.AF_UNIX] * 3
        assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /v1/hea", b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n{"],
    ids=["silent", "half a header", "half a body"],
)
def test_slow_senders_are_cut_off(beginning):
    """Whoever does not finish a request in time loses the connection; the next one is served."""
    with serving(FakeService(), receive_seconds=0.05) as path:
        with connected(path) as sock:
            sock.sendall(beginning)
            read_all(sock)
        assert ask(path).startswith(b"HTTP/1.1 200")


def test_dripping_does_not_buy_time():
    """A byte now and then does not move the deadline."""
    with serving(FakeService(), receive_seconds=0.3) as path, connected(path) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        deadline = time.monotonic() + PATIENCE
        sock.settimeout(0.01)
        ended = False
        while not ended and time.monotonic() < deadline:
            try:
                sock.sendall(b"x")
                ended = sock.recv(1) == b""
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                ended = True
        assert ended


def test_a_long_answer_is_not_a_slow_sender():
    """The deadline is about the request's arrival: a stream outlives it, and a kept connection too."""
    service = FakeService()
    with serving(service, receive_seconds=0.1) as path, connected(path) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: m\r\n\r\n")
        head = sock.recv(65536)
        assert b"text/event-stream" in head
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            service.hub.publish("a", "token", {"text": "early"})
            assert b"early" in sock.recv(65536)
        service.hub.publish("a", "token", {"text": "late"})
        assert b"late" in sock.recv(65536)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_garbage_is_refused(garbage):
    """What is no HTTP gets a 400 or the door, and the next request is served."""
    with serving(FakeService(), receive_seconds=0.5) as path:
        with contextlib.suppress(BrokenPipeError):
            answer = ask(path, garbage)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert ask(path).startswith(b"HTTP/1.1 200")


def test_an_upgrade_is_not_taken():
    """A WebSocket handshake is answered as the plain request it also is."""
    request = b"GET /v1/health HTTP/1.1\r\nHost: m\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    with serving(FakeService()) as path:
        assert not ask(path, request).startswith(b"HTTP/1.1 101")


def test_a_declared_monster_is_refused_before_it_is_sent():
    """A Content-Length beyond the cap is answered 413 at once, and the connection closed."""
    with serving(FakeService(), max_body=1000) as path:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n"
        answer = ask(path, head)
        assert answer.startswith(b"HTTP/1.1 413")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "urn:mlxd:too-large"


def test_half_closing_and_vanishing_do_no_harm():
    """Clients that shut their side, or are gone before the answer, leave the server as it was."""
    with serving(FakeService()) as path:
        with connected(path) as sock:
            sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        for _ in range(50):
            with connected(path) as sock:
                sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n")
        assert ask(path).startswith(b"HTTP/1.1 200")


def test_two_hundred_at_once_are_all_answered():
    """A burst of connections loses none."""
    with serving(FakeService()) as path:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(path)[:12])) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [b"HTTP/1.1 200"] * 200


def test_slow_requests_do_not_hold_up_the_others():
    """While more models load than there are threads for it, health still answers."""
    gate = threading.Event()

    class Slow(FakeService):
        def load(self, ref, *, runtime=None, pin=None):
            gate.wait(PATIENCE)
            return super().load(ref, runtime=runtime, pin=pin)

    body = b'{"ref": "x"}'
    request = (
        b"POST /v1/models/load HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with serving(Slow()) as path:
        loads = [threading.Thread(target=ask, args=(path, request)) for _ in range(20)]
        for load in loads:
            load.start()
        try:
            assert ask(path).startswith(b"HTTP/1.1 200")
        finally:
            gate.set()
            for load in loads:
                load.join(PATIENCE)


def test_streams_end_at_once_when_it_stops():
    """Followers do not hold up a stop: they hear the end of the stream, and nobody waits for the grace."""
    heard = []
    with contextlib.ExitStack() as outer:
        with serving(FakeService(), grace_seconds=PATIENCE) as path:
            follower = outer.enter_context(connected(path))
            follower.sendall(b"GET /v1/events HTTP/1.1\r\nHost: m\r\n\r\n")
            assert b"200" in follower.recv(65536)
            reader = threading.Thread(target=lambda: heard.append(read_all(follower)))
            reader.start()
            begin = time.monotonic()
        assert time.monotonic() - begin < PATIENCE / 2
        reader.join(PATIENCE)
    assert heard[0].endswith(b"0\r\n\r\n")


@pytest.mark.skipif(sys.platform != "linux", reason="counts a thread's wake-ups in /proc")
def test_an_idle_server_does_not_tick():
    """With nothing to do the server's thread is not woken: its voluntary switches come to stand still."""
    with serving(FakeService()) as path:
        ask(path)
        (task,) = [
            task
            for task in Path("/proc/self/task").iterdir()
            if int(task.name) in {thread.native_id for thread in threading.enumerate() if thread.name == "mlxd-socket"}
        ]

        def switches():
            lines = (task / "status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

        def woken_in_half_a_second():
            before = switches()
            threading.Event().wait(0.5)  # the measurement itself
            return switches() - before

        # The end of the request just served may still be under way; a server that ticks never has a quiet half second.
        assert 0 in (woken_in_half_a_second() for _ in range(20))


def test_a_start_that_fails_is_told():
    """An application that cannot start makes `start` raise, and stop is still clean."""

    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with short_folder() as folder:
        server = SocketServer(broken, bind(folder / "s"))
        with pytest.raises(RuntimeError, match="did not start"):
            server.start()
        assert server.stop()
        assert not server.alive


def test_a_server_that_never_started_can_be_stopped():
    """Stop is safe before start."""
    with short_folder() as folder:
        server = SocketServer(create_app(FakeService()), bind(folder / "s"))
        assert server.stop()
        assert os.listdir(folder) == []  # noqa: PTH208 - a plain look


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_deleted_socket_file_is_bound_anew(*, handed_over: bool) -> None:
    """A daemon whose socket's file was deleted is found again at its next look, by old connections all the time."""
    with short_folder() as folder:
        path = folder / "s" / "mlxd.sock"
        listener = bind(path)
        if handed_over:  # by a service manager: made by somebody else, but leading to us
            listener = Listener(
                sockets=listener.sockets, origin=Origin.LAUNCHD, path=path, identity=None, door=listener.door
            )
        server = SocketServer(create_app(FakeService()), listener)
        server.start()
        try:
            with connected(path) as old:
                server.mend()
                path.unlink()
                server.mend()
                assert ask(path).startswith(b"HTTP/1.1 200")
                assert path.stat().st_mode & 0o777 == 0o600
                old.sendall(b"GET /v1/health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
                assert read_all(old).startswith(b"HTTP/1.1 200")
            path.unlink()
            server.mend()
            assert ask(path).startswith(b"HTTP/1.1 200")
        finally:
            server.stop()
        assert not path.exists()


def test_what_is_in_the_sockets_place_is_not_touched() -> None:
    """A file that somebody put there stays, and is told once it is asked for; when it is gone, the socket is back."""
    with short_folder() as folder:
        path = folder / "s" / "mlxd.sock"
        server = SocketServer(create_app(FakeService()), bind(path))
        server.start()
        try:
            path.unlink()
            path.write_text("mine")
            server.mend()
            server.mend()
            assert path.read_text() == "mine"
            assert "is no socket" in str(server.problem)
            path.unlink()
            server.mend()
            assert server.problem is None
            assert ask(path).startswith(b"HTTP/1.1 200")
        finally:
            server.stop()
