"""Waiting for jobs and following them over a real socket."""

import http.client
import json
import socket
import threading

import pytest
from fakes_socket import FakeService, serving

from daemon.api import sse
from jobs.model import NewJob, State

PATIENCE = 20


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("mlxd", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def fetch(path, method, target, body=None):
    connection = Unix(path)
    headers = {"Content-Type": "application/json"}
    connection.request(method, target, None if body is None else json.dumps(body), headers)
    with connection.getresponse() as response:
        answer = response.status, json.load(response)
    connection.close()
    return answer


class Follower:
    """Reads one event after the other."""

    def __init__(self, path, target):
        self.connection = Unix(path)
        self.connection.request("GET", target)
        self.response = self.connection.getresponse()
        assert self.response.headers["content-type"].startswith("text/event-stream")

    def block(self):
        """Return the lines up to the next empty one; None at the end."""
        lines = []
        while line := self.response.readline().decode():
            if line == "\n":
                return lines
            lines.append(line.rstrip("\n"))
        return None

    def event(self):
        lines = self.block()
        if lines is None:
            return None
        fields = dict(line.split(": ", 1) for line in lines)
        return fields["event"], json.loads(fields["data"])

    def close(self):
        self.response.close()
        self.connection.close()


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def path(service):
    with serving(service) as served:
        yield served


@pytest.fixture
def job(service):
    return service.submit(NewJob(task="generate"))[0]


def until(true, what):
    """Wait for something that another thread does."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if true():
            return
        pause.wait(0.01)
    pytest.fail(f"waited too long for {what}")


def until_followed(service, number=1):
    until(lambda: service.hub.followers() >= number, "followers")


def in_background(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()

    def join():
        thread.join(PATIENCE)
        return result[0]

    return join


def test_following_a_job(path, service, job):
    """First the job as it stands, then what was said so far, then live events, and the end at a terminal state."""
    service.hub.publish(job.id, "token", {"text": "so ", "n": 1})
    service.hub.publish(job.id, "token", {"text": "far ", "n": 2})
    follower = Follower(path, f"/v1/jobs/{job.id[:5]}/events")
    kind, data = follower.event()
    assert (kind, data["id"], data["state"]) == ("state", job.id, "queued")
    assert follower.event() == ("token", {"text": "so far ", "n": 2, "job": job.id})
    service.hub.publish(job.id, "segment", {"text": "line\nbreak", "odd": {1, 2} and "x"})
    assert follower.event() == ("segment", {"text": "line\nbreak", "odd": "x", "job": job.id})
    service.move(job.id, State.SUCCEEDED, result={"text": "done"})
    assert follower.event()[1]["result"] == {"text": "done"}
    assert follower.event() is None
    follower.close()
    until(lambda: service.hub.followers() == 0, "the end of the subscription")


def test_following_an_ended_job(path, service, job):
    """Its state comes, and the stream ends."""
    service.move(job.id, State.FAILED)
    follower = Follower(path, f"/v1/jobs/{job.id}/events")
    assert follower.event()[1]["state"] == "failed"
    assert follower.event() is None
    follower.close()


def test_following_a_job_that_does_not_exist(path):
    """It is a 404 problem and not an empty stream."""
    status, body = fetch(path, "GET", "/v1/jobs/zzzzzzzzzz/events")
    assert (status, body["type"]) == (404, "urn:mlxd:job-not-found")


def test_following_everything(path, service):
    """The stream of all events names each job."""
    follower = Follower(path, "/v1/events")
    until_followed(service)
    first, second = (service.submit(NewJob(task="generate"))[0] for _ in range(2))
    assert [follower.event()[1]["id"] for _ in range(2)] == [first.id, second.id]
    follower.close()


def test_a_follower_that_leaves_is_forgotten(path, service, job):
    """Closing the connection ends the subscription."""
    follower = Follower(path, f"/v1/jobs/{job.id}/events")
    follower.event()
    until_followed(service)
    follower.close()
    until(lambda: service.hub.followers() == 0, "the end of the subscription")


def test_silence_is_filled_with_comments(path, service, job, monkeypatch):
    """While nothing happens a comment comes, so that both sides know the other is there."""
    monkeypatch.setattr(sse.EventStream.__init__, "__kwdefaults__", {"heartbeat": 0.01})
    follower = Follower(path, f"/v1/jobs/{job.id}/events")
    follower.event()
    assert follower.block() == [": still here"]
    follower.close()


def test_waiting_for_a_job(path, service, job):
    """The answer comes when the job is settled, not before."""
    answer = in_background(lambda: fetch(path, "GET", f"/v1/jobs/{job.id}/wait?timeout={PATIENCE}"))
    until_followed(service)
    service.move(job.id, State.RUNNING)
    service.hub.publish(job.id, "token", {"text": "x"})
    service.move(job.id, State.SUCCEEDED)
    assert answer()[1]["state"] == "succeeded"


@pytest.mark.parametrize("state", [State.BLOCKED, State.QUARANTINED])
def test_waiting_in_vain_is_not_asked_of_anybody(path, service, job, state):
    """A job that needs a person's help answers too."""
    service.move(job.id, state)
    assert fetch(path, "GET", f"/v1/jobs/{job.id}/wait")[1]["state"] == state


def test_waiting_ends_with_the_time(path, service, job):
    """After the timeout the job is answered as it is; limits are checked."""
    assert fetch(path, "GET", f"/v1/jobs/{job.id}/wait?timeout=0.05")[1]["state"] == "queued"
    assert fetch(path, "GET", f"/v1/jobs/{job.id}/wait?timeout=-1")[0] == 422
    assert fetch(path, "GET", f"/v1/jobs/{job.id}/wait?timeout=nan")[0] == 422


def test_many_can_wait_without_holding_threads(path, service, job):
    """More waiters than worker threads leave room for other requests."""
    waiters = [
        in_background(lambda: fetch(path, "GET", f"/v1/jobs/{job.id}/wait?timeout={PATIENCE}")) for _ in range(40)
    ]
    until_followed(service, 40)
    assert fetch(path, "GET", "/v1/health")[0] == 200
    service.move(job.id, State.CANCELLED)
    assert {waiter()[1]["state"] for waiter in waiters} == {"cancelled"}


def test_submitting_and_waiting_in_one_request(path, service):
    """With `wait` the answer to a submission is the finished job."""
    body = {"task": "generate"}
    answer = in_background(lambda: fetch(path, "POST", f"/v1/jobs?wait={PATIENCE}", body))
    assert service.submitted.wait(PATIENCE)
    until_followed(service)
    (job_id,) = service.jobs
    service.move(job_id, State.SUCCEEDED)
    assert answer() == (201, {**answer()[1], "state": "succeeded"})
    assert fetch(path, "POST", "/v1/jobs?wait=0", body)[1]["state"] == "queued"
