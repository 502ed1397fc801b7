"""The main job on the demo models, through a spawned daemon and the `mlxd` command."""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from fakes_acceptance import SpawnedDaemon

from jobs.model import State

pytestmark = [pytest.mark.models, pytest.mark.timeout(180)]

SAMPLES = Path(str(importlib.resources.files("plugins") / "demo_models" / "samples"))
#: The memo's words; a transcript may break its lines where it likes.
WORDS = (SAMPLES / "memo.txt").read_text().split() if SAMPLES.is_dir() else []
PROMPT = "List the action items:\nRemind me to call Anna on Friday at 3 pm."


def test_generate_and_wait(shared: SpawnedDaemon) -> None:
    """`mlxd submit generate --wait` prints the answer and nothing else on stdout."""
    out = shared.ok("submit", "generate", "--model", "demo:lm", "--prompt", PROMPT, "--wait")

    assert "Anna" in out
    assert "Friday" in out


def test_same_prompt_from_stdin(shared: SpawnedDaemon) -> None:
    """A prompt on stdin is the prompt, and greedy output is deterministic."""
    one = shared.ok("submit", "generate", "--prompt", PROMPT, "--wait")
    two = shared.ok("submit", "generate", "-", "--wait", stdin=PROMPT)

    assert one == two


def test_transcribe_and_wait_json(shared: SpawnedDaemon) -> None:
    """`mlxd submit transcribe --wait --json` gives the job with the transcript, word for word."""
    job = shared.json("submit", "transcribe", str(SAMPLES / "memo.flac"), "--model", "demo:whisper", "--wait")

    assert job["state"] == "succeeded"
    assert job["result"]["text"].split() == WORDS


def test_curl_over_the_socket(shared: SpawnedDaemon) -> None:
    """Any program that speaks HTTP over a Unix socket can submit and wait."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the README's curl example is not proved here")
    curl = ["curl", "-sS", "--unix-socket", str(shared.home / "state" / "mlxd.sock")]
    body = json.dumps({"task": "generate", "params": {"prompt": PROMPT}})
    said = subprocess.run(
        [*curl, "-H", "content-type: application/json", "-d", body, "http://mlxd/v1/jobs"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    job_id = json.loads(said.stdout)["id"]
    got = subprocess.run(
        [*curl, f"http://mlxd/v1/jobs/{job_id}/wait?timeout=60"], capture_output=True, check=True, timeout=90
    )

    assert "Anna" in json.loads(got.stdout)["result"]["text"]


def test_slow_copy_into_the_inbox(daemon: SpawnedDaemon) -> None:
    """A file that grows slowly in the watched folder becomes one job, and its transcript appears beside it."""
    daemon.configure('[[folders]]\npath = "inbox"\ncreate = true\nsettle_seconds = 3\n')
    daemon.start()
    content = (SAMPLES / "memo.flac").read_bytes()
    target = daemon.home / "inbox" / "slow.flac"
    step = len(content) // 5 + 1
    with target.open("wb") as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])
            file.flush()
            os.fsync(file.fileno())
            waited_for = daemon.client.rescan()
            assert waited_for is not None
            assert not daemon.client.jobs(source="folder"), "a file that still grows is not taken"
    job = daemon.until(lambda: next(iter(daemon.client.jobs(source="folder")), None), "the job")
    done = daemon.wait(job.id)

    assert done.state is State.SUCCEEDED, done.error
    assert len(daemon.client.jobs(source="folder")) == 1
    texts = [output.path.read_text().split() for output in done.outputs if output.path.suffix == ".txt"]
    assert WORDS in texts


def test_runner_killed_in_the_middle(daemon: SpawnedDaemon) -> None:
    """Kill -9 of a runner in mid-job: the daemon stays the same process, the job is done again and succeeds."""
    daemon.start()
    daemon.ok("submit", "generate", "--prompt", PROMPT, "--wait")
    prompts = daemon.home / "prompts"
    prompts.mkdir()
    for number in range(60):
        (prompts / f"{number:03}.txt").write_text(PROMPT)
    job = daemon.json("submit", "batch", str(prompts), "--output", str(daemon.home / "out"))
    daemon.until(lambda: daemon.client.job(job["id"]).progress or None, "some progress")
    pid = daemon.process.pid
    (runner,) = daemon.runners()
    runner.send_signal(signal.SIGKILL)
    done = daemon.wait(job["id"])

    assert daemon.client.health().pid == pid
    assert done.state is State.SUCCEEDED, done.error
    assert len(list((daemon.home / "out").rglob("*.txt"))) == 60


def test_two_jobs_load_a_cold_model_once(daemon: SpawnedDaemon) -> None:
    """Several jobs for one cold model share one load and one runner."""
    daemon.start()
    ids = [daemon.client.submit("generate", {"prompt": PROMPT})[0].id for _ in range(6)]
    texts = {daemon.wait(job_id).result["text"] for job_id in ids}

    assert len(texts) == 1
    assert len(daemon.runners()) == 1
    assert [model.pid is not None for model in daemon.client.models() if model.ref == "demo:lm"] == [True]


def test_memo_makes_transcript_and_actions(shared: SpawnedDaemon) -> None:
    """The sample pipeline turns a recording into its transcript and its action items, with two kinds of models."""
    job = shared.json("submit", "memo", str(SAMPLES / "memo.flac"), "--wait")
    texts = {Path(output["path"]).name: Path(output["path"]).read_text() for output in job["outputs"]}

    assert texts["memo.transcript.txt"].split() == WORDS
    assert texts["memo.actions.txt"].strip().startswith("- ")


def test_transcription_needs_no_torch(shared: SpawnedDaemon) -> None:
    """Whisper runs although torch, which mlx-whisper declares, is not even installed."""
    import importlib.util

    assert importlib.util.find_spec("torch") is None
    assert shared.json("submit", "transcribe", str(SAMPLES / "memo.flac"), "--wait")["state"] == "succeeded"
