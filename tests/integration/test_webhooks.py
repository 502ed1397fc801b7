"""Webhooks, end to end: a job ends, the ledger holds a delivery, a real server on 127.0.0.1 gets it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes_daemon import Bench

from daemon.config.model import Config
from daemon.config.notify import NotifyConfig
from daemon.notify import NOTIFY, Notifier, settings
from jobs.errors import InvalidRequest
from jobs.model import Job, NewJob, State
from plugins.deliver import DELIVER, mlxd_register_tasks
from plugins.deliver_webhook import headers, secret_of, sign


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses it is given, the last one for ever, and keeps what it gets."""

    def __init__(self, *statuses: int, location: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.location = location
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.silence: threading.Event | None = None
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=geheim"

    def close(self) -> None:
        if self.silence is not None:
            self.silence.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        if self.server.silence is not None:
            self.server.silence.wait(20)
            return
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Desk:
    """A bench whose deliveries go where *entry* says."""

    def __init__(self, folder: Path, **entry: Any) -> None:
        self.bench = Bench(folder)
        config = Config(notify=(NotifyConfig.model_validate({"tasks": "t", **entry}),))
        mlxd_register_tasks(lambda task: self.bench.tasks.update({task.name: task}))  # type: ignore[dict-item]
        self.bench.settings[DELIVER] = settings(config)
        self.bench.task("t", lambda ctx, params: {"text": "secret words"})
        self.bench.executor._ended = Notifier(config=lambda: config, add=self.bench.ledger.add)

    def end_a_job(self) -> Job:
        job = self.bench.ledger.add(NewJob(task="t"))[0]
        self.bench.executor.execute(job.id)
        return job

    def deliver(self) -> Job:
        """Try the delivery once; the time is moved to when it is due."""
        (job,) = self.bench.ledger.find(source=NOTIFY)
        if job.not_before is not None:
            self.bench.clock.advance((job.not_before - self.bench.clock.now).total_seconds())
        self.bench.executor.execute(job.id)
        return self.bench.ledger.get(job.id)


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[Receiver]:
    receiver = Receiver(204)
    yield receiver
    receiver.close()


def test_a_webhook_is_signed_and_says_no_more_than_it_should(tmp_path: Path, receiver: Receiver) -> None:
    """One POST of JSON, verifiable by what Standard Webhooks says, without the result, the secret or the parameters."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(b"k" * 24).decode() + "\n")
    desk = Desk(tmp_path, url=receiver.url, secret_file=str(secret))
    about = desk.end_a_job()
    done = desk.deliver()

    assert (done.state, done.result) == (State.SUCCEEDED, {"text": "127.0.0.1 answered 204."})
    ((path, said, body),) = receiver.got
    assert path == "/hook?token=geheim"
    assert said["webhook-id"] == done.id
    signed = f"{done.id}.{said['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
    assert said["webhook-signature"] == f"v1,{expected}"
    told = json.loads(body)
    assert (told["type"], told["data"]["job"], told["data"]["state"]) == ("job.ended", about.id, "succeeded")
    assert b"secret words" not in body
    assert "geheim" not in json.dumps(done.model_dump(mode="json"))
    desk.bench.close()


def test_the_result_is_sent_if_asked(tmp_path: Path, receiver: Receiver) -> None:
    """With ``include = "result"`` the text goes too; without a secret there is no signature."""
    desk = Desk(tmp_path, url=receiver.url, include="result")
    desk.end_a_job()
    desk.deliver()
    ((_, said, body),) = receiver.got
    assert json.loads(body)["data"]["result"] == {"text": "secret words"}
    assert "webhook-signature" not in said
    desk.bench.close()


def test_a_bad_status_is_retried_with_the_same_id(tmp_path: Path) -> None:
    """A 500 puts the delivery back for later; the next try carries the same id and succeeds."""
    receiver = Receiver(500, 204)
    desk = Desk(tmp_path, url=receiver.url)
    desk.end_a_job()
    waiting = desk.deliver()
    assert (waiting.state, waiting.failures) == (State.QUEUED, 1)
    assert waiting.error is not None
    assert waiting.error.message == "127.0.0.1 answered 500."
    assert desk.deliver().state is State.SUCCEEDED
    assert len({said["webhook-id"] for _, said, _ in receiver.got}) == 1
    receiver.close()
    desk.bench.close()


def test_after_its_tries_it_fails_and_makes_no_noise(tmp_path: Path) -> None:
    """A receiver that stays broken fails the delivery after its tries; that end makes no delivery."""
    receiver = Receiver(503)
    desk = Desk(tmp_path, url=receiver.url, tries=3)
    job = desk.end_a_job()
    assert [desk.deliver().state for _ in range(3)] == [State.QUEUED, State.QUEUED, State.FAILED]
    assert len(receiver.got) == 3
    assert len(desk.bench.ledger.find(source=NOTIFY)) == 1
    assert desk.bench.ledger.get(job.id).state is State.SUCCEEDED, "the job is what it is"
    receiver.close()
    desk.bench.close()


def test_a_redirect_is_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    """Whoever answers with another address gets nothing sent there: the delivery fails and says what to do."""
    trap = Receiver(307, location=receiver.url)
    desk = Desk(tmp_path, url=trap.url)
    desk.end_a_job()
    done = desk.deliver()
    assert (done.state, receiver.got) == (State.FAILED, [])
    assert done.error is not None
    assert "redirect (307)" in done.error.message
    trap.close()
    desk.bench.close()


def test_nobody_there_and_nobody_answering(tmp_path: Path, receiver: Receiver) -> None:
    """A closed port and a server that is silent are told apart, and both are tried again."""
    receiver.silence = threading.Event()
    desk = Desk(tmp_path, url=receiver.url, timeout=0.2)
    desk.end_a_job()
    silent = desk.deliver()
    assert silent.state is State.QUEUED
    assert silent.error is not None
    assert silent.error.message == "127.0.0.1 did not answer within 0.2 s."
    desk.bench.close()

    gone = Receiver(204)
    gone.close()
    (tmp_path / "2").mkdir()
    desk = Desk(tmp_path / "2", url=gone.url)
    desk.end_a_job()
    closed = desk.deliver()
    assert closed.state is State.QUEUED
    assert closed.error is not None
    assert closed.error.message == "127.0.0.1 cannot be reached: Connection refused."
    desk.bench.close()


def test_no_proxy_is_asked(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy settings of the environment send nothing elsewhere."""
    proxy = Receiver(204)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    desk = Desk(tmp_path, url=receiver.url)
    desk.end_a_job()
    desk.deliver()
    assert (len(receiver.got), proxy.got) == (1, [])
    proxy.close()
    desk.bench.close()


def test_secrets(tmp_path: Path) -> None:
    """A plain secret counts as it stands, one with the prefix is base 64; what is missing or broken is told at once."""
    plain = tmp_path / "plain"
    plain.write_text("geheim\n")
    assert secret_of({"secret_file": str(plain)}) == b"geheim"
    assert secret_of({"secret_env": "S"}, {"S": "whsec_aGk="}) == b"hi"
    assert secret_of({}) is None
    for target in ({"secret_file": str(tmp_path / "none")}, {"secret_env": "S"}):
        with pytest.raises(InvalidRequest):
            secret_of(target, {})
    with pytest.raises(InvalidRequest, match="no base 64"):
        secret_of({"secret_env": "S"}, {"S": "whsec_!"})


def test_the_signature_of_a_known_message() -> None:
    """The example of the Standard Webhooks libraries comes out as they say."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert "webhook-signature" not in headers("x", b"{}", None, 0)
