"""The daemon's life: start, one instance, reload, drain, and being killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil
from fakes_acceptance import PLUGIN, SpawnedDaemon

from jobs.ledger import Ledger
from jobs.model import NewJob, State


def test_start_work_and_stop(daemon: SpawnedDaemon) -> None:
    """It starts with no configuration at all, does a job, and TERM ends it with 0, leaving no socket and no child."""
    daemon.start()
    job = daemon.json("submit", "noop", "--param", "text=hello", "--wait")
    children = psutil.Process(daemon.process.pid).children()

    assert (job["state"], job["result"]["text"]) == ("succeeded", "hello")
    assert (daemon.home / "inbox").is_dir(), "the inbox is there with no configuration"
    assert daemon.terminate() == 0, daemon.output
    assert not (daemon.home / "state" / "mlxd.sock").exists()
    assert not [child for child in children if child.is_running()]


def test_second_instance_is_refused(daemon: SpawnedDaemon) -> None:
    """A second daemon for the same home ends at once, saying which process has it."""
    daemon.start()
    second = daemon.mlxd("run")

    assert second.returncode != 0
    assert str(daemon.process.pid) in second.stderr
    assert "Traceback" not in second.stderr


def test_wrong_config_names_the_key(daemon: SpawnedDaemon) -> None:
    """A wrong configuration stops the start with the file, the key, what it got and what it wanted."""
    daemon.configure('[queue]\nlimit = "many"\n')
    refused = daemon.mlxd("run")

    assert refused.returncode != 0
    for part in ("config.toml", "queue.limit", "many"):
        assert part in refused.stderr
    assert "Traceback" not in refused.stderr


def test_hup_reloads(daemon: SpawnedDaemon) -> None:
    """After HUP a new folder is watched without a restart; a broken configuration changes nothing."""
    daemon.configure("")
    daemon.start()
    folder = daemon.home / "more"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    daemon.configure(f'[[folders]]\npath = "{folder}"\ntask = "noop"\nmatch = ["*.txt"]\nsettle_seconds = 0.1\n')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: [job for job in daemon.client.jobs(source="folder") if job.terminal], "the folder's job")

    daemon.configure("nonsense = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: "not reloaded" in daemon.output, "the refusal")
    assert [str(folder)] == [str(status.path) for status in daemon.client.folders()]


def test_term_drains(daemon: SpawnedDaemon) -> None:
    """TERM puts a long batch job back at no cost; the next daemon finishes it."""
    daemon.configure("drain_seconds = 8\n")
    daemon.start()
    job = daemon.json("submit", "noop", "--param", "seconds=6", "--lane", "batch")
    daemon.until(lambda: daemon.client.job(job["id"]).state is State.RUNNING, "the job to run")
    assert daemon.terminate() == 0, daemon.output
    daemon.start()
    done = daemon.wait(job["id"])

    assert (done.state, done.attempts, done.crashes, done.failures) == (State.SUCCEEDED, 1, 0, 0)


def test_kill_loses_nothing(daemon: SpawnedDaemon) -> None:
    """After kill -9 with jobs running and waiting, the next daemon does every acknowledged job exactly once."""
    daemon.start()
    ids = [daemon.client.submit("noop", {"seconds": 0.05, "text": str(n)})[0].id for n in range(40)]
    daemon.until(lambda: daemon.client.health().counts.get(State.RUNNING), "jobs to run")
    daemon.kill()
    daemon.start()
    done = [daemon.wait(job_id) for job_id in ids]

    assert {job.state for job in done} == {State.SUCCEEDED}
    for number, job in enumerate(done):
        files = list((daemon.home / "results" / job.id).iterdir())
        assert [file.read_text() for file in files] == [str(number)]
        assert job.crashes == 0, "the daemon's death is not the job's doing"


def test_a_cancelled_job_of_a_dead_daemon_leaves_nothing_half_written(daemon: SpawnedDaemon) -> None:
    """A job that was asked to stop, and whose daemon died while it wrote, ends at the start; its temporary file too."""
    daemon.start()
    assert daemon.terminate() == 0, daemon.output
    ledger = Ledger(daemon.home / "state" / "ledger.sqlite3")  # as the daemon that dies would leave it
    job, _ = ledger.add(NewJob(task="noop"))
    assert ledger.claim(job.id, "dead") is not None
    ledger.cancel(job.id)
    ledger.close()
    half = daemon.home / "results" / job.id / f".noop.txt.{job.id}.mlxd-tmp"
    half.parent.mkdir(mode=0o700)
    half.write_text("half")

    daemon.start()

    assert daemon.client.job(job.id).state is State.CANCELLED
    assert not half.exists()


def test_queue_file_is_only_a_hint(daemon: SpawnedDaemon) -> None:
    """With the queue's file deleted while mlxd is down, waiting jobs still run."""
    daemon.configure("drain_seconds = 1\n")
    daemon.start()
    ids = [daemon.client.submit("noop", {"seconds": 0.3})[0].id for _ in range(20)]
    daemon.kill()
    for file in (daemon.home / "state").glob("queue.sqlite3*"):
        file.unlink()
    daemon.start()

    assert {daemon.wait(job_id).state for job_id in ids} == {State.SUCCEEDED}


def test_the_daemon_never_imports_an_engine() -> None:
    """Importing everything that `mlxd run` needs, and loading all plugins, imports no MLX, transformers or torch."""
    code = (
        "import sys, daemon.process, daemon.parts, daemon.api\n"
        "from plugins.manager import PluginManager\n"
        "manager = PluginManager(); manager.load()\n"
        "tasks = {'generate', 'transcribe', 'batch', 'pipeline', 'memo', 'pull'}\n"
        "assert tasks <= set(manager.tasks), manager.status()\n"
        "heavy = {'mlx', 'mlx_lm', 'mlx_whisper', 'transformers', 'torch', 'numpy', 'av', 'huggingface_hub'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert json.loads(done.stdout.replace("'", '"')) == []


def test_jobs_are_done_without_the_web_framework(daemon: SpawnedDaemon) -> None:
    """A daemon whose framework cannot be imported takes jobs and does them; health and answers say what is wrong."""
    (daemon.home / "plugins" / "noop.py").write_text(f"import sys\nsys.modules['fastapi'] = None\n{PLUGIN}")
    daemon.start()

    assert daemon.mlxd("submit", "noop").returncode == 0
    daemon.until(lambda: daemon.client.health().counts.get("succeeded") == 1, "the job to be done")
    told = daemon.until(lambda: daemon.client.health().problems, "the problem to be told")
    asked = daemon.mlxd("jobs")

    assert "Install mlxd anew" in told[0]
    assert (asked.returncode, "its log says why" in asked.stderr) == (4, True), asked
