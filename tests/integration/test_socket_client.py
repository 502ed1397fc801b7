"""The typed client against a real server."""

import io
import threading

import pytest
from fakes_socket import FakeService, serving

from daemon.cli.client import Client
from daemon.views import Condition
from jobs.errors import InvalidRequest, JobConflict, JobNotFound, QueueFull
from jobs.model import Lane, NewJob, OutputFile, Placement, State

PATIENCE = 20


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def client(service):
    with serving(service) as path:
        yield Client(path, patience=PATIENCE)


def test_jobs(client, service):
    """Submit, look, list, cancel and retry give real jobs."""
    job, created = client.submit(
        "generate", {"prompt": "ü"}, lane=Lane.BATCH, priority=3, key="k", placement=Placement(stem="s")
    )
    assert created
    assert service.jobs[job.id] == job
    assert (job.lane, job.priority, job.placement.stem, job.params) == (Lane.BATCH, 3, "s", {"prompt": "ü"})
    assert client.submit_job(NewJob(task="generate", idempotency_key="k")) == (job, False)
    assert client.job(job.id[:5]) == job
    other, _ = client.submit("transcribe")
    assert [one.id for one in client.jobs()] == [other.id, job.id]
    assert client.jobs(task="generate", states=[State.QUEUED], lane=Lane.BATCH, source="api", limit=5) == [job]
    assert client.cancel(job.id).state is State.CANCELLED
    assert client.retry(job.id).parent == job.id


def test_errors_arrive_as_themselves(client, service):
    """The exception is the one the service raised, with its facts."""
    with pytest.raises(JobNotFound, match="zzzz") as caught:
        client.job("zzzz")
    assert caught.value.facts == {"job": "zzzz"}
    job, _ = client.submit("generate")
    client.cancel(job.id)
    with pytest.raises(JobConflict):
        client.cancel(job.id)
    service.refuse = QueueFull("Full.", limit=1)
    with pytest.raises(QueueFull, match="Full"):
        client.submit("generate")


def test_a_body_beyond_the_limit_is_refused_clearly(client):
    """The daemon's answer is read although it stopped reading ours."""
    with pytest.raises(InvalidRequest, match="at most"):
        client.submit("generate", {"prompt": "x" * 17_000_000})


def test_waiting(client, service):
    """Wait returns at the end of the job, or with the time."""
    job, _ = client.submit("generate")
    assert client.wait(job.id, timeout=0.01).state is State.QUEUED
    timer = threading.Thread(target=lambda: (until_followed(service), service.move(job.id, State.SUCCEEDED)))
    timer.start()
    assert client.wait(job.id).state is State.SUCCEEDED
    timer.join(PATIENCE)


def until_followed(service):
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if service.hub.followers():
            return
        pause.wait(0.01)


def test_events(client, service):
    """Following a job gives its events, each with the job's id, until it ends."""
    job, _ = client.submit("generate")
    events = client.events(job.id)
    assert next(events).data["state"] == "queued"
    service.hub.publish(job.id, "token", {"text": "x"})
    assert next(events).data["text"] == "x"
    service.move(job.id, State.FAILED)
    (last,) = events
    assert (last.job_id, last.kind, last.data["state"]) == (job.id, "state", "failed")


def test_all_events(client, service):
    """Everything can be followed, too."""
    follower = client.events()
    heard = []
    thread = threading.Thread(target=lambda: heard.append(next(follower)))
    thread.start()
    until_followed(service)
    job, _ = client.submit("generate")
    thread.join(PATIENCE)
    follower.close()
    assert heard[0].job_id == job.id


def test_outputs(client, service, tmp_path):
    """Result files are listed and copied."""
    (tmp_path / "a b.txt").write_text("result")
    job, _ = client.submit("generate")
    written = OutputFile(path=tmp_path / "a b.txt", size=6, sha256="00")
    service.move(job.id, State.SUCCEEDED, outputs=(written,))
    assert client.outputs(job.id) == [written]
    for which in (0, "a b.txt"):
        file = io.BytesIO()
        client.save_output(job.id, which, file)
        assert file.getvalue() == b"result"


def test_everything_else(client, service):
    """Each of the other calls gives the service's own value back."""
    assert client.models() == service.models()
    assert client.load("demo:lm", runtime="lm", pin=True).pinned
    assert service.calls[-1] == ("load", "demo:lm", "lm", True)
    assert client.unload("demo:lm")
    assert not client.unload("other")
    assert client.pull("org/name").task == "pull"
    assert client.folders() == service.folders()
    assert client.rescan() == 3
    assert client.plugins() == service.plugins()
    assert client.tasks() == service.tasks()
    assert client.config() == {"drain_seconds": 30}
    assert client.reload() == service.reload()
    assert client.health() == service.health()
    assert client.health().status is Condition.OK
    assert client.metrics() == "mlxd_up 1\n"
    client.shutdown()
    assert service.calls[-1] == ("shutdown",)
