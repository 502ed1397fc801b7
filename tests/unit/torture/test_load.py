"""Clients of the campaign: what they were told is what they write down, and a key stays the same until it is taken."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import socketserver
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from torture.history import History, read
from torture.load import Load, Order, mixed, submit_one, wait_ready


class Daemon:
    """Answers on a Unix socket as it is told: a status, or None to hang up without an answer."""

    def __init__(self, path: Path) -> None:
        self.answers: list[int | None] = []
        self.asked: list[dict] = []
        self.jobs: dict[str, str] = {}
        self.changing_ids = False
        self._numbers = itertools.count()
        daemon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                daemon.handle(self.rfile, self.wfile)

        self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def handle(self, rfile, wfile) -> None:
        line = rfile.readline().split()
        headers = dict(one.decode().lower().strip().split(": ", 1) for one in iter(rfile.readline, b"\r\n"))
        status = self.answers.pop(0) if self.answers else 201
        if status is None:
            return
        body: dict = {}
        if line[0] == b"POST":
            asked = json.loads(rfile.read(int(headers["content-length"])))
            self.asked.append(asked)
            key = f"{asked['idempotency_key']}{next(self._numbers) if self.changing_ids else ''}"
            body = {"id": self.jobs.setdefault(key, f"id-{len(self.jobs)}")}
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nRetry-After: 0\r\n\r\n"
        wfile.write(head.encode() + content)


@pytest.fixture
def place():
    """A short folder with a socket in it, as much of a home as clients need, a daemon and a history."""
    folder = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))
    daemon = Daemon(folder / "s.sock")
    history = History(folder / "history.jsonl")
    yield SimpleNamespace(home=SimpleNamespace(socket=folder / "s.sock"), daemon=daemon, history=history)
    daemon.server.shutdown()
    daemon.server.server_close()
    history.close()
    shutil.rmtree(folder)


def submitted(place, *, limit: int = 1, **more) -> Load:
    """Submit *limit* jobs and wait for the acknowledgements."""
    load = Load(place.home, place.history, clients=1, limit=limit, **{"repeat": 0.0, **more})
    load.start()
    load.join(20)
    return load


def test_what_was_acknowledged_is_written_down(place):
    """Each key with its job, and what is expected of it."""
    load = submitted(place, limit=3)
    lines = read(place.history.path)
    assert load.acknowledged == 3
    assert [(line["kind"], line["key"], line["job"]) for line in lines] == [
        ("ack", f"job-{number}", f"id-{number}") for number in range(3)
    ]
    assert {"size", "outputs"} == set(lines[0]["expect"])


def test_a_broken_answer_is_unknown_and_asked_again(place):
    """No answer came: the history says so, and the same key is submitted until one does."""
    place.daemon.answers = [None, None, 201]
    load = submitted(place)
    assert [line["kind"] for line in read(place.history.path)] == ["unknown", "unknown", "ack"]
    assert (load.unanswered, load.acknowledged, load.complaints) == (2, 1, [])


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_may_pass_is_asked_again(place, status):
    """A full queue and a ledger that cannot be written are refusals, and no reason to give up."""
    place.daemon.answers = [status, 201]
    load = submitted(place)
    assert [line["kind"] for line in read(place.history.path)] == ["refused", "ack"]
    assert (load.refused, load.acknowledged, load.complaints) == (1, 1, [])


def test_any_other_refusal_is_a_complaint(place):
    """The load submits nothing wrong, so an answer of 500 is a fault."""
    place.daemon.answers = [500]
    load = submitted(place)
    assert load.acknowledged == 0
    assert "500" in load.complaints[0]


def test_a_repeated_key_has_to_give_the_same_job(place):
    """Some acknowledged keys are submitted once more; another job for the same key is a complaint."""
    load = submitted(place, limit=2, repeat=1.0)
    assert Counter(one["idempotency_key"] for one in place.daemon.asked) == {"job-0": 2, "job-1": 2}
    assert (load.acknowledged, load.complaints) == (2, [])
    place.daemon.changing_ids = True
    load = submitted(place, repeat=1.0, prefix="other-")
    assert "other-job-0" in load.complaints[0]


def test_the_mix_follows_from_its_seed():
    """The same number and seed give the same order, and all kinds of jobs come up."""
    orders = [mixed(number, random.Random(f"s-{number}")) for number in range(200)]
    assert orders == [mixed(number, random.Random(f"s-{number}")) for number in range(200)]
    assert {"steps", "outputs", "model"} <= {name for order in orders for name in order.params}


def test_nobody_there_is_an_os_error(place):
    """Who submits by hand hears of it."""
    with pytest.raises(OSError, match=r"No such file|refused"):
        submit_one(place.home.socket.with_name("none"), Order(key="k", params={}))
    with pytest.raises(TimeoutError):
        wait_ready(place.home.socket.with_name("none"), timeout=0.05)


def test_ready_is_an_answered_health_page(place):
    """The first whole answer counts, a hang-up does not."""
    place.daemon.answers = [None, 503, 200]
    wait_ready(place.home.socket, timeout=20)
    assert place.daemon.answers == []
