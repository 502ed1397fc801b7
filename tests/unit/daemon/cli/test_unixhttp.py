"""HTTP by hand, against servers that do not behave."""

import contextlib
import io
import json
import os
import socket
import threading
import time

import pytest
from fakes_socket import short_folder

from daemon.cli.transport import Transport, job_path, pages
from daemon.cli.unixhttp import Exchange
from jobs.errors import DaemonUnreachable, InvalidRequest, JobNotFound, MlxdError

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def answering(*answers, hold=False):
    """Serve one connection for each of *answers*, whatever is asked; with *hold* the connection stays open after."""
    with short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(folder / "s"))
        server.listen()
        done = threading.Event()
        asked = []

        def serve():
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(20)
                    head = b""
                    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
                        head += piece
                    if not head:
                        continue
                    asked.append(head)
                    connection.sendall(answer)
                    if hold:
                        done.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield folder / "s", asked
        finally:
            done.set()
            thread.join(20)


def test_bodies_of_every_kind():
    """With a length, in chunks (with an extension and a trailer), or until the end."""
    chunked = OK + b'Transfer-Encoding: chunked\r\n\r\n3;x=y\r\n"ab\r\n2\r\nc"\r\n0\r\nX: y\r\n\r\n'
    length = OK + b'Content-Length: 5\r\n\r\n"abc"ignored'
    endless = OK + b'\r\n"abc"'
    with answering(chunked, length, endless) as (path, asked):
        for _ in range(3):
            assert Transport(path).ask("GET", "/x", query={"a": "b c", "n": None, "l": [1, 2]}) == "abc"
    assert asked[0].startswith(b"GET /x?a=b+c&l=1&l=2 HTTP/1.1\r\nHost: mlxd\r\nConnection: close\r\n")


def test_requests_carry_their_length():
    """A body is JSON with its length; a request without one says so."""
    answer = OK + b"Content-Length: 4\r\n\r\nnull"
    with answering(answer, answer) as (path, asked):
        assert Transport(path).ask("POST", "/x", body={"ü": 1}) is None
        assert Transport(path).ask("POST", "/x") is None
    assert b"Content-Type: application/json\r\nContent-Length: 13\r\n\r\n" in asked[0]
    assert b"Content-Length: 0\r\n" in asked[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK,
        OK + b"X: " + b"y" * 70_000,
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_broken_answer_is_one_clear_error(answer):
    """Whatever is cut off or no HTTP: the daemon is unreachable, and the log is the place to look."""
    with answering(answer) as (path, _), pytest.raises(DaemonUnreachable, match="mlxd logs"):
        Transport(path).ask("GET", "/x")


def test_silence_ends_after_a_while():
    """An answer that does not come is an error after the patience."""
    with answering(b"", hold=True) as (path, _), pytest.raises(DaemonUnreachable, match="silent"):
        Transport(path, patience=0.05).ask("GET", "/x")


def test_a_problem_becomes_its_exception():
    """By its type; a body that is no problem still gives an error by status."""
    document = json.dumps({"type": "urn:mlxd:job-not-found", "detail": "No such job.", "job": "x"}).encode()
    with answering(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(document), document),
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\noops",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n[]",
    ) as (path, _):
        with pytest.raises(JobNotFound, match="No such job") as caught:
            Transport(path).ask("GET", "/x")
        assert caught.value.facts == {"job": "x"}
        with pytest.raises(InvalidRequest, match="400"):
            Transport(path).ask("GET", "/x")
        with pytest.raises(MlxdError, match="500"):
            Transport(path).ask("GET", "/x")


def test_nobody_there_says_what_to_do():
    """No socket, a dead socket, a path that is too long, and a plain file each give one sentence."""
    with short_folder() as folder:
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(folder / "dead"))
        dead.close()
        (folder / "file").write_text("")
        for name, says in (
            ("none", "mlxd run"),
            ("dead", "mlxd run"),
            ("file", "mlxd run|Cannot reach"),  # the systems differ
            ("x" * 120, "too long"),
            ("file/x", "Cannot reach"),
        ):
            with pytest.raises(DaemonUnreachable, match=says):
                Transport(folder / name).ask("GET", "/x")


def test_somebody_elses_socket_is_not_told_anything(monkeypatch):
    """When another user listens there, nothing is sent; root is launchd."""
    answer = OK + b"Content-Length: 4\r\n\r\nnull"
    with answering(answer, answer) as (path, asked):
        monkeypatch.setattr("daemon.cli.unixhttp.peer_uid", lambda _sock: 12345)
        with pytest.raises(DaemonUnreachable, match="another user"):
            Transport(path).ask("GET", "/x")
        assert asked == []
        monkeypatch.setattr("daemon.cli.unixhttp.peer_uid", lambda _sock: 0)
        assert Transport(path).ask("GET", "/x") is None


def test_events_are_read_one_by_one():
    """Comments are skipped, several data lines are one, and the end of the stream ends the iteration."""
    stream = (
        OK + b'Content-Type: text/event-stream\r\n\r\n: hi\n\nevent: token\ndata: {"n":\ndata:  1}\n\n'
        b'event: state\r\ndata: {"state": "queued"}\r\n\r\ndata: {"x": 1}\n\nevent: cut\ndata: {}'
    )
    with answering(stream) as (path, _):
        got = list(Transport(path).events("/x"))
    assert got == [("token", {"n": 1}), ("state", {"state": "queued"}), ("message", {"x": 1})]


def test_a_deadline_is_a_timeout():
    """Only the caller's own deadline is a TimeoutError."""
    head = OK + b"\r\nevent: a\ndata: {}\n\n"
    with answering(head, hold=True) as (path, _):
        events = Transport(path).events("/x", deadline=time.monotonic() + 0.1)
        assert next(events).kind == "a"
        with pytest.raises(TimeoutError):
            next(events)


def test_a_stream_that_falls_silent_is_an_error(monkeypatch):
    """The daemon sends comments: when not even those come, it is gone."""
    monkeypatch.setattr("daemon.cli.transport._SILENCE", 0.05)
    with answering(OK + b"\r\n", hold=True) as (path, _), pytest.raises(DaemonUnreachable, match="silent"):
        next(Transport(path).events("/x"))


def test_saving_copies_bytes():
    """A body goes to a file as it is."""
    with answering(OK + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000) as (path, _):
        file = io.BytesIO()
        Transport(path).save("/x", file)
    assert file.getvalue() == b"x" * 200_000


def test_paths_are_quoted():
    """A job's id from the command line cannot become another path."""
    assert job_path("a/../b?c", "wait") == "/v1/jobs/a%2F..%2Fb%3Fc/wait"


def test_pages_stop_at_the_limit():
    """Pages are asked for until there are enough, or no more."""
    asked = []

    class Pages:
        def ask(self, method, target, *, query):
            asked.append((query["limit"], query["cursor"]))
            return {"jobs": [{}] * min(query["limit"], 500), "next": "7" if len(asked) < 3 else None}

    assert len(list(pages(Pages(), {}, limit=700))) == 700
    assert asked == [(500, None), (200, "7")]
    asked.clear()
    assert len(list(pages(Pages(), {}))) == 1500
    assert list(pages(Pages(), {}, limit=0)) == []


def test_a_refused_connection_is_closed():
    """No descriptor is left behind when connecting fails."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH208, PTH112
    with short_folder() as folder:
        for _ in range(5):
            with pytest.raises(DaemonUnreachable):
                Exchange(folder / "none", patience=1)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH208, PTH112
    assert after <= before
