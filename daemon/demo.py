"""`mlxd demo`: the whole of mlxd on the embedded models, in a home of its own, in a minute.

Everything is done the way a person would do it: a daemon is started as a process of its own, a file is copied into
its watched folder, jobs are submitted by the `mlxd` command. What is printed was measured in this very run.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from daemon.cli.client import Client
from jobs.errors import DaemonUnreachable, MlxdError
from jobs.model import State

#: Seconds a step may take on a slow machine before the demo gives up.
PATIENCE: Final = 180.0

_CONFIG: Final = """\
# Written by `mlxd demo`.
[defaults]
lm = "demo:lm"
whisper = "demo:whisper"

[[folders]]
path = "inbox"
create = true
settle_seconds = 0.5
rules = [{ name = "memos", task = "memo", match = ["*.flac", "*.wav", "*.m4a", "*.mp3"] }]
"""


class DemoFailed(MlxdError):
    """A step of the demo did not do what it should."""

    slug = "demo-failed"


@dataclass
class Stage:
    """Where the demo plays and how it speaks."""

    home: Path
    say: Callable[[str], None]
    #: What was done, and how many seconds it took.
    took: list[tuple[str, float]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of the demo's daemon and commands."""
        return {**os.environ, "MLXD_HOME": str(self.home)}

    def mlxd(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the `mlxd` command as a person would and return what it printed."""
        command = [sys.executable, "-I", "-m", "daemon", *arguments]
        done = subprocess.run(
            command, env=self.environ, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise DemoFailed(f"`mlxd {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def show(self, label: str, text: str) -> None:
        """Say what came out, a line under the other."""
        self.say(textwrap.indent(text, " " * 12).replace(" " * 12, f"  {label + ':':<10}", 1))

    @contextmanager
    def step(self, sentence: str) -> Iterator[None]:
        """Say what happens and how long it took."""
        self.say(f"\n▸ {sentence}")
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.took.append((sentence, seconds))
        self.say(f"  took {seconds:.2f} s")


def main(*, keep: Path | None = None, say: Callable[[str], None] = print) -> int:
    """Play the demo in *keep* (default: a fresh temporary folder that is left for the person to look at)."""
    home = keep or Path(tempfile.mkdtemp(prefix="mlxd-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(_CONFIG, encoding="utf-8")
    stage = Stage(home=home, say=say)
    samples = importlib.resources.files("plugins") / "demo_models" / "samples"
    with importlib.resources.as_file(samples) as folder:
        _play(stage, folder)
    say("\nHow long it took:")
    for sentence, seconds in stage.took:
        say(f"  {seconds:6.2f} s  {sentence}")
    say(f"\nAll of it worked. Look around in {home}: inbox/ (memo and results), prompts-out/, logs/, state/.")
    say(f"Delete it with: rm -r {home}")
    return 0


def _play(stage: Stage, samples: Path) -> None:
    with stage.step("Starting the daemon: mlxd run"):
        daemon = _start(stage)
    try:
        _memo(stage, samples)
        _folder_of_prompts(stage, samples)
        _prompts_over_the_socket(stage)
        _look(stage)
    finally:
        with stage.step("Stopping it with SIGTERM, as launchd would"):
            daemon.send_signal(signal.SIGTERM)
            code = daemon.wait(PATIENCE)
    if code:
        raise DemoFailed(f"The daemon ended with {code} instead of 0; see {stage.home / 'logs'}.")


def _start(stage: Stage) -> subprocess.Popen[bytes]:
    """Spawn the daemon and wait until it answers."""
    log = stage.home / "daemon.out"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-I", "-m", "daemon", "run"], env=stage.environ, stdout=out, stderr=out
        )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            raise DemoFailed(f"The daemon ended at once with {daemon.returncode}: {log.read_text(errors='replace')}")
        try:
            health = _client(stage).health()
        except DaemonUnreachable:
            time.sleep(0.02)
            continue
        stage.say(f"  process {health.pid}, ready, nothing loaded")
        return daemon
    daemon.kill()
    raise DemoFailed(f"The daemon did not answer within {PATIENCE:.0f} s: {log.read_text(errors='replace')}")


def _client(stage: Stage) -> Client:
    return Client(stage.home / "state" / "mlxd.sock")


def _memo(stage: Stage, samples: Path) -> None:
    """Drop the same kind of file twice: once cold (models are loaded), once warm (models are resident)."""
    expected = (samples / "memo.txt").read_text(encoding="utf-8").strip()
    for name, temperature in (("memo.flac", "cold: loads both models"), ("memo-again.flac", "warm: both are resident")):
        with stage.step(f"Dropping {name} into the watched folder ({temperature})"):
            _drop(samples / "memo.flac", stage.home / "inbox" / name, marker=name.encode() if "again" in name else b"")
            job = _wait_for_file_job(stage, name)
        transcript = _read_output(job, ".transcript.txt")
        stage.show("heard", transcript)
        stage.show("to do", _read_output(job, ".actions.txt"))
        # The transcript has a line for each segment, the expected text none: the words are what must be right.
        if transcript.split() != expected.split():
            raise DemoFailed(f"The transcript should have been: {expected!r}")


def _drop(source: Path, target: Path, *, marker: bytes) -> None:
    """Copy a file in; a *marker* behind the audio makes its content new, for the same content is not done twice."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes() + marker)


def _wait_for_file_job(stage: Stage, name: str) -> Mapping[str, Any]:
    client = _client(stage)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for found in client.jobs(source="folder"):
            if Path(str(found.params.get("file", ""))).name == name:
                job = client.wait(found.id, timeout=PATIENCE)
                if job.state is not State.SUCCEEDED:
                    raise DemoFailed(f"{name}: {job.state}: {job.error.message if job.error else ''}")
                return job.model_dump(mode="json")
        time.sleep(0.05)
    raise DemoFailed(f"{name} was not taken within {PATIENCE:.0f} s.")


def _read_output(job: Mapping[str, Any], ending: str) -> str:
    for output in job["outputs"]:
        if output["path"].endswith(ending):
            return Path(output["path"]).read_text(encoding="utf-8").strip()
    raise DemoFailed(f"The job wrote no *{ending}.")


def _folder_of_prompts(stage: Stage, samples: Path) -> None:
    folder, out = stage.home / "prompts", stage.home / "prompts-out"
    shutil.copytree(samples / "prompts", folder)
    prompts = [path for path in folder.iterdir() if path.suffix in {".txt", ".md"}]
    with stage.step(f"A folder of {len(prompts)} prompts: mlxd submit batch prompts --output prompts-out --wait"):
        stage.mlxd("submit", "batch", str(folder), "--output", str(out), "--wait", "--json")
    manifest = json.loads(next(out.rglob("*manifest.json")).read_text(encoding="utf-8"))
    texts = [path.read_text(encoding="utf-8").strip() for path in out.glob("*.out.txt")]
    expected = {path.read_text(encoding="utf-8").strip() for path in (samples / "expected").iterdir()}
    right = sum(text in expected for text in texts)
    stage.say(f"  {len(texts)} of {len(prompts)} answered, {right} just as expected; results and manifest in {out}")
    if len(texts) != len(prompts) or len(manifest["items"]) != len(prompts):
        raise DemoFailed("The folder is not complete.")


def _prompts_over_the_socket(stage: Stage) -> None:
    prompt = "List the action items:\nRemind me to call Anna on Friday at 3 pm."
    with stage.step("A prompt over the socket: mlxd submit generate --prompt ... --wait (warm)"):
        answer = stage.mlxd("submit", "generate", "--prompt", prompt, "--wait").strip()
    stage.show("answer", answer)
    if not answer:
        raise DemoFailed("There was no answer.")


def _look(stage: Stage) -> None:
    for model in _client(stage).models():
        if model.pid:
            size = (model.memory_bytes or 0) / 1e6
            stage.say(f"  resident: {model.ref} ({model.runtime}), process {model.pid}, {size:.0f} MB")
