"""The HTTP API over a real Unix socket, against a service that only remembers."""

import httpx
import pytest
from fakes_socket import FakeService, serving

from daemon.api.app import create_app
from jobs.errors import LedgerUnavailable, QueueFull
from jobs.model import NewJob, OutputFile, State

JSON = {"content-type": "application/json"}


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def http(service):
    with serving(service) as path, httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://m") as c:
        yield c


def problem(response, status, slug):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:mlxd:{slug}"
    assert body["status"] == status
    assert set(body) >= {"title", "detail"}
    return body


def test_submitting_answers_with_the_job(http, service):
    """A new job answers 201 with its place; the same idempotency key answers 200 with the same job."""
    first = http.post("/v1/jobs", json={"task": "generate", "params": {"prompt": "hi"}, "idempotency_key": "k"})
    assert first.status_code == 201
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    assert "server" not in first.headers
    again = http.post("/v1/jobs", json={"task": "generate"}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    assert len(service.jobs) == 1


def test_listing_filters_and_pages(http, service):
    """Filters reach the service; pages are followed by the cursor until it is null."""
    for n in range(5):
        http.post("/v1/jobs", json={"task": "a" if n else "b", "source": {"kind": "cli"}})
    page = http.get("/v1/jobs", params={"task": "a", "limit": 3, "source": "cli"}).json()
    assert [job["seq"] for job in page["jobs"]] == [5, 4, 3]
    rest = http.get("/v1/jobs", params={"task": "a", "limit": 3, "cursor": page["next"]}).json()
    assert [job["seq"] for job in rest["jobs"]] == [2]
    assert rest["next"] is None
    assert http.get("/v1/jobs?state=failed&state=running").json()["jobs"] == []
    assert service.calls[-1][1] == (State.FAILED, State.RUNNING)


def test_one_job_can_be_looked_at_cancelled_and_repeated(http):
    """Get (by a prefix too), cancel, cancel again (conflict), retry."""
    job_id = http.post("/v1/jobs", json={"task": "generate"}).json()["id"]
    assert http.get(f"/v1/jobs/{job_id[:6]}").json()["id"] == job_id
    assert http.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job-conflict")
    assert http.post(f"/v1/jobs/{job_id}/retry").json()["parent"] == job_id
    problem(http.get("/v1/jobs/zzzzzzzzzz"), 404, "job-not-found")


def test_outputs_are_served_and_nothing_else(http, service, tmp_path):
    """Recorded files come by index, name and path's end; other names, links and lost files are 404."""
    job, _ = service.submit(NewJob(task="generate"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("result")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    (tmp_path / "secret.txt").write_text("not an output")
    files = [OutputFile(path=tmp_path / name, size=6, sha256="00") for name in ("sub/a.txt", "link.txt", "lost.txt")]
    service.move(job.id, State.SUCCEEDED, outputs=tuple(files))
    base = f"/v1/jobs/{job.id}/outputs"
    assert [out["path"] for out in http.get(base).json()["outputs"]] == [str(file.path) for file in files]
    for which in ("0", "a.txt", "sub/a.txt"):
        assert http.get(f"{base}/{which}").text == "result"
    for which in (
        "link.txt",
        "lost.txt",
        "3",
        "secret.txt",
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "",
    ):
        assert http.get(f"{base}/{which}").status_code in {404, 307}, which


def test_the_rest_of_the_daemon_can_be_asked(http, service):
    """Models, folders, plugins, tasks, configuration, health, metrics, reload and shutdown each reach the service."""
    assert http.get("/v1/models").json()["models"][0]["state"] == "ready"
    loaded = http.post("/v1/models/load", json={"ref": "demo:lm", "pin": True}).json()
    assert (loaded["ref"], loaded["pinned"]) == ("demo:lm", True)
    assert http.post("/v1/models/unload", json={"ref": "demo:lm"}).json() == {"unloaded": True}
    assert http.post("/v1/models/pull", json={"ref": "org/name"}).json()["task"] == "pull"
    assert http.get("/v1/folders").json()["folders"][0]["problem"] == "no permission"
    assert http.post("/v1/folders/rescan").json() == {"files": 3}
    assert http.get("/v1/plugins").json()["plugins"][0]["name"] == "generate"
    assert http.get("/v1/tasks").json()["tasks"][0]["params"] == {"type": "object"}
    assert http.get("/v1/config").json() == {"drain_seconds": 30}
    assert http.get("/v1/health").json()["status"] == "ok"
    assert http.get("/metrics").text == "mlxd_up 1\n"
    assert http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert http.post("/v1/reload").json()["changed"] == ["folders"]
    assert http.post("/v1/shutdown").status_code == 202
    assert ("shutdown",) in service.calls


def test_errors_are_problems(http, service):
    """Backpressure, a full disk, a wrong path and a wrong method each answer with their type."""
    service.refuse = QueueFull("Ten thousand jobs are waiting.", limit=10_000, retry_after_s=7)
    refused = http.post("/v1/jobs", json={"task": "generate"})
    assert problem(refused, 429, "queue-full")["limit"] == 10_000
    assert refused.headers["retry-after"] == "7"
    service.refuse = LedgerUnavailable()
    assert problem(http.post("/v1/jobs", json={"task": "generate"}), 503, "ledger-unavailable")["detail"]
    problem(http.get("/nothing"), 404, "not-found")
    problem(http.delete("/v1/jobs"), 405, "method-not-allowed")


def test_a_fault_of_ours_says_nothing_of_our_insides(http, service, caplog):
    """What nobody foresaw is a plain 500, the log has the traceback, and the next request is served."""
    service.refuse = RuntimeError("secret detail")
    answer = http.get("/v1/health")
    assert "secret" not in answer.text
    problem(answer, 500, "error")
    assert "secret detail" in caplog.text
    service.refuse = None
    assert http.get("/v1/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"task": "generate"}', {"content-type": "text/plain"}, (415, "not-json")),
        (b"{", JSON, (400, "invalid-request")),
        (b"\xff\xfe", JSON, (400, "invalid-request")),
        (b"[]", JSON, (422, "invalid-request")),
        (b'{"task": "no spaces"}', JSON, (422, "invalid-request")),
        (b'{"task": "generate", "colour": 1}', JSON, (422, "invalid-request")),
        (b'{"task": "generate", "params": {"x": NaN}}', JSON, (422, "invalid-request")),
        (b'{"task": "generate", "params": {"x": "\\ud800"}}', JSON, (422, "invalid-request")),
        (b'{"task": "generate", "params": ' + b'{"a":' * 100 + b"1" + b"}" * 101, JSON, (422, "invalid-request")),
        (b'{"task": "g", "params": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, (400, "invalid-request")),
    ],
)
def test_wrong_bodies_are_refused(http, service, body, headers, expected):
    """Whatever is wrong with a body: one problem, nothing submitted, and the daemon goes on."""
    problem(http.post("/v1/jobs", content=body, headers=headers), *expected)
    assert not service.jobs
    assert http.get("/v1/health").status_code == 200


def test_validation_names_each_wrong_field(http):
    """The problem lists where it is wrong and why."""
    body = problem(http.post("/v1/jobs", json={"task": "x", "priority": 1000, "lane": "fast"}), 422, "invalid-request")
    assert {one["where"] for one in body["errors"]} == {"body.priority", "body.lane"}
    problem(http.get("/v1/jobs?limit=0&cursor=x"), 422, "invalid-request")


def test_ten_megabytes_of_prompt_fit(http, service):
    """A prompt of 10 MB is accepted; one byte more than the cap is not, declared or streamed."""
    prompt = "x" * 10_000_000
    assert http.post("/v1/jobs", json={"task": "generate", "params": {"prompt": prompt}}).status_code == 201
    piece = b"x" * 1_000_000

    def stream():
        for _ in range(17):
            yield piece

    problem(http.post("/v1/jobs", content=stream(), headers=JSON), 413, "too-large")
    assert len(service.jobs) == 1


def test_the_schema_declares_what_is_answered(http):
    """OpenAPI is made on request, names every route, and declares problems for each."""
    schema = http.get("/openapi.json").json()
    assert {"/v1/jobs", "/v1/jobs/{job_id}/events", "/metrics", "/v1/models/load"} <= set(schema["paths"])
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], path
            assert "application/problem+json" in operation["responses"]["5XX"]["content"], path
    assert http.get("/docs").status_code == 404


def test_the_schema_costs_nothing_until_asked():
    """Building the application does not build the schema."""
    assert create_app(FakeService()).openapi_schema is None


def test_a_wrong_method_names_all_that_are_right(http):
    """Allow lists the methods of every route of the path, not of the first one."""
    for path, methods in {"/v1/jobs": "GET, POST", "/v1/schedules/a": "DELETE, GET", "/v1/health": "GET"}.items():
        answer = http.request("PATCH", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
