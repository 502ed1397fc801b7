"""What made a file, a rerun, recorded results and the doctor, on the demo models through a spawned daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes_acceptance import SpawnedDaemon

pytestmark = [pytest.mark.models, pytest.mark.timeout(180)]

MEMO = "Remind me to call Anna on Friday at 3 pm."


def test_a_rerun_gives_the_same_bytes_and_a_copy_costs_no_model(daemon: SpawnedDaemon) -> None:
    """A watched memo gets actions and a sidecar; verify agrees; rerun repeats the bytes; a copy is given at once."""
    inbox = daemon.home / "notes"
    inbox.mkdir()
    (inbox / "memo.txt").write_text(MEMO)
    daemon.configure(
        f'[[folders]]\npath = "{inbox}"\ntask = "generate"\nmatch = "*.txt"\nsettle_seconds = 0.05\n'
        'params = { template = "List the action items:\\n{text}" }\n[watch]\nrescan_seconds = 1\n'
    )
    daemon.start()
    first = inbox / "memo.out.txt"
    daemon.until(lambda: daemon.client.jobs(states=["succeeded"]), "the memo to be done")  # type: ignore[list-item]
    told = daemon.json("verify", str(first))
    assert told["ok"]
    assert told["models"][0]["model"] == "demo:lm"

    again = daemon.json("rerun", str(first), "--output", str(daemon.home / "again"), "--wait")
    second = Path(again["outputs"][0]["path"])
    assert second.parent == daemon.home / "again"
    assert second.read_bytes() == first.read_bytes()
    assert "reused_from" not in again["result"]

    (inbox / "copy.txt").write_text(MEMO)

    def of_the_copy():
        done = daemon.client.jobs(states=["succeeded"])  # type: ignore[list-item]
        return next((job for job in done if job.placement.stem == "copy"), None)

    copied = daemon.until(of_the_copy, "the copy to be answered")
    assert copied.result is not None
    assert copied.result["reused_from"]
    assert (inbox / "copy.out.txt").read_bytes() == first.read_bytes()
    assert {job.placement.stem for job in daemon.client.jobs()} == {"memo", "copy"}

    first.write_text("mine now")
    assert daemon.mlxd("verify", str(first)).returncode == 1


def test_the_daemon_examines_itself(shared: SpawnedDaemon) -> None:
    """`mlxd doctor` shows what the daemon may do, with the revisions of its models."""
    found = json.loads(shared.mlxd("doctor", "--json").stdout)
    checks = {one["check"]: one for one in found}
    assert checks["context"]["grade"] == "ok"
    assert checks["folder"]["message"].endswith("the daemon may read it.")
    assert "revision sha256:" in checks["model"]["message"]


def test_a_batch_in_openai_format_and_its_estimate(shared: SpawnedDaemon) -> None:
    """Counted before, answered in the same format, and its pace known afterwards."""
    lines = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "x", "messages": [{"role": "user", "content": f"List the action items:\n{MEMO}"}]},
        }
        for number in range(3)
    ]
    file = shared.home / "requests.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    before = shared.json("submit", "batch", str(file), "--limit", "2", "--estimate")
    assert (before["items"], before["left"], before["broken"]) == (2, 1, 0)
    out = shared.home / "answers"
    done = shared.json("submit", "batch", str(file), "--limit", "2", "--output", str(out), "--wait")
    answers = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == ["r0", "r1"]
    assert all("Anna" in answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers)
    rest = shared.json("submit", "batch", "--only-failed", done["id"], "--wait")
    assert (rest["result"]["total"], rest["result"]["succeeded"]) == (1, 1)
    assert shared.json("submit", "batch", str(file), "--estimate")["seconds"] > 0
