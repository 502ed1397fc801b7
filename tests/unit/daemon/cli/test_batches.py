"""`mlxd submit batch --only-failed` and `--estimate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import batches
from jobs.errors import DaemonUnreachable, InvalidInput, InvalidParams, JobNotFound

OLD: dict[str, Any] = {
    "id": "4k7zq0t9xh",
    "task": "batch",
    "state": "succeeded",
    "params": {"file": "/in.jsonl", "model": "m", "limit": 5},
    "placement": {"directory": "/out", "stem": None, "input": None, "after": "leave"},
    "result": {"manifest": "/out/manifest.json"},
    "outputs": [],
}
BODY: dict[str, Any] = {"task": "batch", "params": {}, "placement": {}, "source": {"kind": "cli"}}


class FakeTransport:
    """Knows some jobs."""

    def __init__(self, *jobs: dict[str, Any], error: Exception | None = None) -> None:
        self.jobs = {job["id"]: job for job in jobs}
        self.error = error

    def ask(self, method: str, target: str, **_: Any) -> Any:
        if self.error is not None:
            raise self.error
        if target.startswith("/v1/jobs?") or target == "/v1/jobs":
            return {"jobs": list(self.jobs.values()), "next": None}
        name = target.rpartition("/")[2]
        if name not in self.jobs:
            raise JobNotFound(f"There is no job {name!r}.")
        return self.jobs[name]


def only_failed(which: str, *jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return batches.only_failed(FakeTransport(*jobs), which, {**BODY, **more})  # type: ignore[arg-type]


def test_a_job_gives_everything_that_is_not_said() -> None:
    """Input, model and folder are the batch's own; its limit is not, and what the command line says wins."""
    body = only_failed(OLD["id"], OLD)
    assert body["params"] == {"file": "/in.jsonl", "model": "m", "only_failed": "/out/manifest.json"}
    assert (body["placement"], body["parent"]) == ({"directory": "/out"}, OLD["id"])
    body = only_failed(OLD["id"], OLD, params={"folder": "/f", "model": "n"}, placement={"directory": "/else"})
    assert body["params"] == {"folder": "/f", "model": "n", "only_failed": "/out/manifest.json"}
    assert body["placement"] == {"directory": "/else"}


def test_a_manifest_names_its_job(tmp_path: Path) -> None:
    """Its own path counts, for it may have been moved; without the job it goes with what the command line says."""
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"job": OLD["id"], "items": []}))
    assert only_failed(str(manifest), OLD)["params"]["only_failed"] == str(manifest)
    body = only_failed(str(manifest), params={"file": "/here.jsonl"})
    assert body["params"] == {"file": "/here.jsonl", "only_failed": str(manifest)}
    manifest.write_text("[]")
    with pytest.raises(InvalidInput, match="no manifest"):
        only_failed(str(manifest), OLD)


def test_what_is_no_ended_batch_is_refused() -> None:
    """Another task, a batch without a manifest, and a job that is not there."""
    with pytest.raises(InvalidParams, match="is no batch"):
        only_failed(OLD["id"], {**OLD, "task": "generate"})
    with pytest.raises(InvalidParams, match="has no manifest"):
        only_failed(OLD["id"], {**OLD, "state": "running", "result": None})
    with pytest.raises(JobNotFound):
        only_failed("nosuchjob0")


def test_an_estimate_needs_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is counted here; of the time it says that nothing is known."""
    file = tmp_path / "in.jsonl"
    file.write_text('{"prompt": "hello"}\nbroken\n')
    body = {**BODY, "params": {"file": str(file)}}
    transport: Any = FakeTransport(error=DaemonUnreachable())
    assert batches.show_estimate(transport, body, as_json=False) == 0
    said = capsys.readouterr()
    assert "1 items" in said.out
    assert "1 that cannot be done" in said.out
    assert "not known" in said.err
    batches.show_estimate(transport, body, as_json=True)
    assert json.loads(capsys.readouterr().out)["broken"] == 1
    with pytest.raises(InvalidParams, match="cannot be submitted"):
        batches.show_estimate(transport, {**BODY, "params": {"file": "/x.txt"}}, as_json=True)
