"""Bad input gives one clear error on the job and on the caller's screen, nothing half-written, and mlxd goes on."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from pathlib import Path

import pytest
from fakes_acceptance import SpawnedDaemon

pytestmark = [pytest.mark.models, pytest.mark.timeout(180)]

SAMPLES = Path(str(importlib.resources.files("plugins") / "demo_models" / "samples"))


def refused(daemon: SpawnedDaemon, *arguments: str, says: str, stdin: bytes | None = None) -> str:
    """Submit, expect a failure that is one plain message mentioning *says*, and a daemon that still answers."""
    done = daemon.mlxd("submit", *arguments, "--wait", stdin=stdin)
    assert done.returncode not in (0, 3), done.stdout + done.stderr
    assert says.lower() in done.stderr.lower(), done.stderr
    assert "Traceback" not in done.stderr
    assert daemon.client.health().pid == daemon.process.pid
    return done.stderr


def test_unknown_task(shared: SpawnedDaemon) -> None:
    """An unknown task is refused with the nearest known one."""
    assert "generate" in refused(shared, "generat", "--param", "prompt=x", says="generat")


def test_wrong_parameter(shared: SpawnedDaemon) -> None:
    """A parameter that does not exist is named."""
    refused(shared, "generate", "--prompt", "x", "--param", "max_tokenz=5", says="max_tokenz")


def test_missing_file(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A file that is not there is named."""
    refused(shared, "transcribe", str(tmp_path / "nothing.wav"), says="nothing.wav")


def test_empty_file(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """An empty recording is called empty."""
    (tmp_path / "empty.wav").touch()
    refused(shared, "transcribe", str(tmp_path / "empty.wav"), says="empty")


def test_text_named_wav(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A text file that calls itself a recording is not one."""
    (tmp_path / "text.wav").write_text("This is no audio at all. " * 50)
    refused(shared, "transcribe", str(tmp_path / "text.wav"), says="not sound")


def test_truncated_audio(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """Half a recording is transcribed as far as it goes, or refused; it never hangs and never hurts."""
    content = (SAMPLES / "memo.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(content[: len(content) // 2])
    done = shared.mlxd("submit", "transcribe", str(tmp_path / "half.flac"), "--wait", "--json")

    assert done.returncode in (0, 1), done.stderr
    assert shared.client.health().pid == shared.process.pid


def test_ten_megabytes_of_prompt(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A prompt far beyond the model's context is refused with the numbers."""
    (tmp_path / "long.txt").write_text("Call Anna. " * 900_000)
    refused(shared, "generate", str(tmp_path / "long.txt"), says="token")


def test_invalid_utf8(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A prompt file that is no UTF-8 is refused, naming where."""
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    refused(shared, "generate", str(tmp_path / "latin.txt"), says="utf-8")


def test_missing_model(shared: SpawnedDaemon) -> None:
    """A model that is not here blocks the job and names the command that fetches it."""
    refused(shared, "generate", "--prompt", "x", "--model", "nobody/nothing", says="mlxd models pull nobody/nothing")


def test_model_with_a_broken_header(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A model folder whose weights lie about themselves is refused before anything is loaded."""
    source = Path(str(importlib.resources.files("plugins") / "demo_models" / "lm"))
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    refused(shared, "generate", "--prompt", "x", "--model", str(broken), says="model.safetensors")


def test_model_with_code(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """A model folder that wants its own Python run is refused."""
    source = Path(str(importlib.resources.files("plugins") / "demo_models" / "lm"))
    evil = tmp_path / "evil"
    shutil.copytree(source, evil)
    config = json.loads((evil / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps({**config, "model_file": "evil.py"}))
    refused(shared, "generate", "--prompt", "x", "--model", str(evil), says="model_file")


def test_output_folder_that_cannot_be(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """An output folder that cannot be made fails the job with its path; nothing is left behind."""
    (tmp_path / "file").write_text("in the way")
    refused(shared, "noop", "--output", str(tmp_path / "file" / "out"), says=str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_failed_input_gets_a_sidecar(daemon: SpawnedDaemon) -> None:
    """A file in a watched folder that cannot be done gets a readable .error.txt, once, and is not tried for ever."""
    daemon.configure('[[folders]]\npath = "inbox"\ncreate = true\nsettle_seconds = 0.1\n')
    daemon.start()
    bad = daemon.home / "inbox" / "bad.wav"
    bad.write_text("This is no audio at all. " * 50)
    sidecar = bad.with_name("bad.wav.error.txt")
    daemon.until(sidecar.exists, "the sidecar")
    daemon.client.rescan()

    (job,) = daemon.client.jobs(source="folder")
    assert job.id in sidecar.read_text()
    assert bad.exists()
