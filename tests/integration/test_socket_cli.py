"""The `mlxd` command against a real socket."""

import gc
import io
import json
import subprocess
import sys
import threading

import click
import pytest
from fakes_socket import FakeService, serving

from daemon.cli import main as cli
from daemon.cli import waiting
from daemon.cli.console import EXIT_STATUSES, Exit
from daemon.paths import find_home
from jobs.errors import DaemonUnreachable, InvalidParams, MlxdError, QueueFull
from jobs.model import ErrorInfo, OutputFile, Progress, State

PATIENCE = 20


class Finishing(FakeService):
    """Brings each job, as soon as somebody follows it, to the end that the test chose."""

    def __init__(self):
        super().__init__()
        self.ending = (State.SUCCEEDED, {"result": {"text": "the answer"}})
        self.tokens = ()
        self.threads = []

    def submit(self, new):
        job, created = super().submit(new)
        if created and self.ending:
            self.threads.append(threading.Thread(target=self._finish, args=(job.id,)))
            self.threads[-1].start()
        return job, created

    def _finish(self, job_id):
        pause = threading.Event()
        for _ in range(PATIENCE * 100):
            if self.hub.followers():
                break
            pause.wait(0.01)
        self.move(job_id, State.RUNNING, progress=Progress(done=1, total=2, unit="tokens"))
        for n, token in enumerate(self.tokens):
            self.hub.publish(job_id, "token", {"text": token, "n": n + 1})
        state, changes = self.ending
        self.move(job_id, state, **changes)


@pytest.fixture
def service():
    made = Finishing()
    yield made
    for thread in made.threads:
        thread.join(PATIENCE)


@pytest.fixture
def mlxd(service, monkeypatch, capsys):
    """Run a command line against the served home; gives (status, standard output, standard error)."""
    with serving(service) as path:
        monkeypatch.setenv("MLXD_HOME", str(path.parent.parent))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))

        def run(*arguments):
            status = cli.run(arguments)
            said = capsys.readouterr()
            return status, said.out, said.err

        yield run


def test_submitting_prints_the_id(mlxd, service):
    """Without --wait: the id, or the job as JSON, and 0."""
    service.ending = None
    status, out, _ = mlxd("submit", "generate", "Why is it so?", "--key", "k")
    assert status == 0
    assert service.jobs[out.strip()].params == {"prompt": "Why is it so?"}
    status, again, _ = mlxd("submit", "generate", "-p", "other", "--key", "k", "--json")
    assert json.loads(again)["id"] == out.strip()


def test_waiting_prints_the_text_and_nothing_else(mlxd, service, tmp_path):
    """The result is on standard output, what was written on standard error."""
    service.ending = (
        State.SUCCEEDED,
        {"result": {"text": "the answer"}, "outputs": (OutputFile(path=tmp_path / "a", size=1, sha256="0"),)},
    )
    assert mlxd("submit", "generate", "a b", "--wait") == (0, "the answer\n", f"wrote {tmp_path / 'a'}\n")
    status, out, _ = mlxd("submit", "generate", "a b", "--wait", "--json")
    assert (status, json.loads(out)["result"]) == (0, {"text": "the answer"})


def test_following_streams_text(mlxd, service):
    """With --follow tokens are printed as they come, and the end is not printed twice."""
    service.tokens = ("the ", "ans", "wer")
    assert mlxd("submit", "generate", "a b", "--follow")[1] == "the answer\n"
    service.tokens = ("another ", "attempt")
    assert mlxd("submit", "generate", "a b", "--follow")[1] == "another attempt\nthe answer\n"


@pytest.mark.parametrize(
    ("state", "status"),
    [(State.FAILED, 1), (State.CANCELLED, 5), (State.BLOCKED, 6), (State.QUARANTINED, 6)],
)
def test_how_a_job_ended_is_the_exit_status(mlxd, service, state, status):
    """And the reason is one sentence on standard error."""
    service.ending = (state, {"error": ErrorInfo(type="model-missing", message="Fetch it first.")})
    got, out, err = mlxd("submit", "generate", "a b", "--wait")
    assert (got, out) == (status, "")
    assert f"is {state.value}: Fetch it first." in err


def test_a_timeout_leaves_the_job(mlxd, service):
    """--timeout gives 124, and the job is as it was."""
    service.ending = None
    status, _, err = mlxd("submit", "generate", "a b", "--wait", "--timeout", "0.05")
    assert status == Exit.TIMEOUT
    assert "has not ended yet" in err
    (job,) = service.jobs.values()
    assert job.state is State.QUEUED


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(mlxd, service, monkeypatch):
    """130, with the two commands one may want next."""
    service.ending = None

    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "watch", interrupt)
    status, _, err = mlxd("submit", "generate", "a b", "--wait")
    (job_id,) = service.jobs
    assert status == Exit.INTERRUPTED
    assert f"mlxd wait {job_id}" in err
    assert f"mlxd cancel {job_id}" in err
    assert service.jobs[job_id].state is State.QUEUED


def test_a_daemon_that_goes_away_does_not_take_the_job_along(mlxd, service, monkeypatch):
    """3, and the person learns the job's id, which nothing has printed so far."""
    service.ending = None

    def gone(*_args, **_kwargs):
        raise DaemonUnreachable("It broke off.")

    monkeypatch.setattr(waiting, "watch", gone)
    status, out, err = mlxd("submit", "generate", "a b", "--wait", "--json")
    (job_id,) = service.jobs
    assert (status, out) == (Exit.UNREACHABLE, "")
    assert f"mlxd wait {job_id}" in err


def test_when_the_stream_breaks_off_it_goes_on_waiting(mlxd, service, monkeypatch):
    """A stream that ends before the job is followed by plain waiting."""
    monkeypatch.setattr("daemon.cli.transport.Transport.events", lambda *_args, **_kwargs: iter(()))
    assert mlxd("submit", "generate", "a b", "--wait")[:2] == (0, "the answer\n")


def test_refusals(mlxd, service):
    """What the daemon refuses is 4, a wrong command line 2, and neither shows a traceback."""
    service.refuse = InvalidParams("max_tokenz: there is no such parameter.")
    assert mlxd("submit", "generate", "a b") == (4, "", "mlxd: max_tokenz: there is no such parameter.\n")
    service.refuse = QueueFull("Too many.")
    assert mlxd("submit", "generate", "a b")[0] == 4
    assert mlxd("submit", "transcribe", "nothing.wav")[0] == 4
    for wrong in (("submit",), ("nonsense",), ("jobs", "--state", "odd"), ("submit", "x", "--priority", "1000")):
        status, out, err = mlxd(*wrong)
        assert (status, out) == (2, "")
        assert err


@pytest.mark.parametrize("command", [("show",), ("models", "load"), ("submit", "generate"), ("--home",)])
def test_an_argument_that_is_no_text_is_named(mlxd, command):
    """On Linux a name may be any bytes; JSON carries none that are no characters, and the person hears which it was."""
    status, out, err = mlxd(*command, "bad\udcff.txt")
    assert (status, out) == (2, "")
    assert "bad\\xff.txt is not valid UTF-8" in err


def test_a_refused_recording_leaves_nothing_behind(mlxd, service, monkeypatch):
    """What was put down from standard input goes when the daemon refuses, and is kept when it may have accepted."""
    for refusal, left in ((QueueFull("Too many."), 0), (DaemonUnreachable("It broke off."), 1)):

        def refuse(_new, refusal=refusal):
            raise refusal

        monkeypatch.setattr(service, "submit", refuse)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"RIFF")))
        assert mlxd("submit", "transcribe", "-")[0] in (3, 4)
        assert len(list((find_home().cache / "stdin").iterdir())) == left


def test_a_recording_is_not_put_down_for_nobody(monkeypatch, tmp_path, capsys):
    """Without a daemon standard input is not read at all."""
    stdin = io.TextIOWrapper(io.BytesIO(b"RIFF"))
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setenv("MLXD_HOME", str(tmp_path / "h"))
    assert cli.run(["submit", "transcribe", "-"]) == 3
    assert "mlxd run" in capsys.readouterr().err
    assert stdin.buffer.tell() == 0
    assert not list(tmp_path.rglob("stdin-*"))


def test_without_a_daemon(monkeypatch, tmp_path, capsys):
    """3, and the sentence says how to start one."""
    for command in (["submit", "generate", "a b"], ["jobs"], ["models"], ["status"], ["cancel", "x"], ["stop"]):
        assert cli.run(["--home", str(tmp_path / "h"), *command]) == 3
        assert "mlxd run" in capsys.readouterr().err
    monkeypatch.delenv("MLXD_HOME")


def test_listing_and_showing_jobs(mlxd, service):
    """Tables for people, JSON for programs."""
    assert mlxd("jobs") == (0, "", "No jobs.\n")
    service.ending = None
    _, job_id, _ = mlxd("submit", "generate", "a b")
    job_id = job_id.strip()
    service.move(job_id, State.RUNNING, progress=Progress(done=3, total=9, unit="tokens", rate=7.0))
    status, out, _ = mlxd("jobs", "-s", "running", "--task", "generate")
    assert status == 0
    assert "3/9 tokens" in out
    service.move(job_id, State.FAILED, error=ErrorInfo(type="error", message="It broke. " * 20))
    assert "…" in mlxd("jobs")[1]
    assert [job["id"] for job in json.loads(mlxd("jobs", "--json")[1])] == [job_id]
    service.move(job_id, State.SUCCEEDED, error=None, result={"text": "hello"})
    shown = mlxd("show", job_id[:6])[1]
    assert "hello" in shown
    assert "3 of 9 tokens" in shown
    assert mlxd("show", job_id, "--text")[1] == "hello\n"
    assert json.loads(mlxd("show", job_id, "--json")[1])["id"] == job_id
    assert mlxd("wait", job_id)[:2] == (0, "hello\n")
    assert mlxd("show", "zzzz")[0] == 4


def test_cancelling_and_repeating_several(mlxd, service):
    """One that cannot be cancelled does not spare the others, and the status says so."""
    service.ending = None
    ids = [mlxd("submit", "generate", "a b")[1].strip() for _ in range(2)]
    status, out, err = mlxd("cancel", ids[0], "zzzz", ids[1])
    assert (status, out) == (4, f"{ids[0]} cancelled\n{ids[1]} cancelled\n")
    assert "zzzz" in err
    assert [job["parent"] for job in json.loads(mlxd("retry", *ids, "--json")[1])] == ids


def test_models(mlxd, service):
    """List (also without a command), load, unload, pull."""
    assert "demo:lm" in mlxd("models")[1]
    assert json.loads(mlxd("models", "list", "--json")[1])[0]["pid"] == 7
    assert mlxd("models", "load", "demo:lm", "--pin")[1] == "demo:lm ready\n"
    assert service.calls[-1] == ("load", "demo:lm", None, True)
    assert json.loads(mlxd("models", "load", "x", "--json")[1])["ref"] == "x"
    assert "is unloaded" in mlxd("models", "unload", "demo:lm")[2]
    assert "was not loaded" in mlxd("models", "unload", "x")[2]
    assert json.loads(mlxd("models", "unload", "x", "--json")[1]) == {"unloaded": False}
    assert mlxd("models", "pull", "org/name")[:2] == (0, "the answer\n")
    service.ending = None
    assert mlxd("models", "pull", "org/name", "--no-wait")[1].strip() in service.jobs
    assert json.loads(mlxd("models", "pull", "org/name", "--no-wait", "--json")[1])["task"] == "pull"


def test_folders_plugins_and_the_daemon(mlxd, service, monkeypatch):
    """Folders, plugins, tasks, status, reload and stop, for people and programs."""
    assert "no permission" in mlxd("folders")[1]
    assert json.loads(mlxd("folders", "list", "--json")[1])[0]["taken"] == 2
    assert mlxd("folders", "rescan")[2] == "3 new files.\n"
    assert json.loads(mlxd("folders", "rescan", "--json")[1]) == {"files": 3}
    monkeypatch.setattr(service, "folders", list)
    assert mlxd("folders")[2] == "No folder is watched.\n"
    assert "builtin" in mlxd("plugins")[1]
    assert json.loads(mlxd("plugins", "--json")[1])[0]["name"] == "generate"
    assert mlxd("plugins", "--tasks")[1] == "generate: Text.\n"
    assert "a disk is full" in mlxd("status")[1]
    assert json.loads(mlxd("status", "--json")[1])["pid"] == 1
    assert "queue.workers" in mlxd("reload")[2]
    assert json.loads(mlxd("reload", "--json")[1])["changed"] == ["folders"]
    assert mlxd("stop")[0] == 0
    assert json.loads(mlxd("stop", "--json")[1])["status"] == "draining"
    assert service.calls[-1] == ("shutdown",)


def test_config(mlxd, tmp_path):
    """Check tells every mistake, show prints all of it, path says where it is."""
    status, out, _ = mlxd("config", "path")
    assert (status, out.strip().endswith("config.toml")) == (0, True)
    assert "ledger" in json.loads(mlxd("config", "path", "--json")[1])
    assert "defaults apply" in mlxd("config", "check")[2]
    assert "drain_seconds" in json.loads(mlxd("config", "show")[1])
    assert json.loads(mlxd("config", "show", "--running")[1]) == {"drain_seconds": 30}
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("drain_seconds = 'x'\n")
    status, _, err = mlxd("config", "check", "-c", str(wrong))
    assert status == 1
    assert "drain_seconds" in err
    assert not json.loads(mlxd("config", "check", "-c", str(wrong), "--json")[1])["ok"]
    wrong.write_text("drain_seconds = 20\n")
    assert "in order" in mlxd("config", "check", "-c", str(wrong))[2]
    assert json.loads(mlxd("config", "check", "-c", str(wrong), "--json")[1])["ok"]


def test_logs(mlxd, monkeypatch):
    """The end of the log, for people and as it is; there may be none yet."""
    assert "no log yet" in mlxd("logs")[2]
    from daemon.log import log_file

    path = log_file(find_home())
    path.parent.mkdir()
    record = {"time": "2026-01-01T00:00:00Z", "level": "INFO", "message": "Started.", "job": "abc"}
    path.write_text(json.dumps(record) + "\n" + json.dumps({**record, "job": "other"}) + "\n")
    assert "Started." in mlxd("logs", "abc")[1]
    assert "says nothing about nobody" in mlxd("logs", "nobody")[2]
    assert json.loads(mlxd("logs", "abc", "--json")[1]) == record
    monkeypatch.setattr("daemon.cli.tailing.follow", lambda *_args, **_kwargs: iter(["more"]))
    assert mlxd("logs", "-f", "-n", "0")[1] == "more\n"


def test_doctor(mlxd, service):
    """The daemon's findings as a table with advice, or as JSON; 1 if something is wrong."""
    status, out, err = mlxd("doctor")
    assert status == 1
    assert "Examined by the daemon" in out
    assert "may not be read" in out
    assert "Look at its permissions." in err
    assert ("doctor",) in service.calls
    assert [one["fault"] for one in json.loads(mlxd("doctor", "--json")[1])] == ["", "folder-denied"]
    service.doctor = list
    assert mlxd("doctor")[0] == 0


def test_doctor_without_a_daemon(monkeypatch, tmp_path, capsys):
    """A daemon that does not answer and a broken configuration are findings like others."""
    (tmp_path / "config.toml").write_text("nonsense = 1\n")
    monkeypatch.setenv("MLXD_HOME", str(tmp_path))
    status = cli.run(["doctor", "--json"])
    checks = {one["check"]: one["grade"] for one in json.loads(capsys.readouterr().out)}
    assert status == 1
    assert (checks["config"], checks["context"]) == ("problem", "note")


def test_service(mlxd, monkeypatch):
    """Each command reaches the service manager; its refusal is one sentence; status tells by its exit status."""
    from daemon import installation
    from launchd.contract import ServiceFailure, ServiceStatus, Standing

    done = []

    class Manager:
        def __getattr__(self, name):
            def act():
                done.append(name)
                if name == "restart":
                    raise ServiceFailure("launchd said no.", code=5)
                return ServiceStatus(Standing.RUNNING if name != "stop" else Standing.STOPPED, "All well.", pid=9)

            return act

    monkeypatch.setattr(installation, "manager", lambda *_args, **_options: Manager())
    assert mlxd("service", "install")[1] == "running: All well. (process 9)\n"
    for name in ("uninstall", "start", "stop", "status"):
        assert mlxd("service", name)[0] == 0
    assert mlxd("service", "restart") == (1, "", "mlxd: launchd said no.\n")
    assert json.loads(mlxd("service", "status", "--json")[1])["standing"] == "running"
    assert done[:6] == ["install", "uninstall", "start", "stop", "status", "restart"]


def test_service_logs_and_a_broken_configuration(mlxd, monkeypatch):
    """What the service printed is shown, and a broken configuration does not keep it from being stopped."""
    from daemon import installation
    from daemon.paths import find_home
    from launchd.contract import ServiceStatus, Standing

    home = find_home()
    home.logs.mkdir()
    (home.logs / "agent.err").write_text("no such thing\n")
    assert mlxd("service", "logs")[1] == "no such thing\n"
    home.config.write_text("drain_seconds = []\n")

    class Manager:
        def status(self):
            return ServiceStatus(Standing.NOT_INSTALLED, "Not installed.")

    monkeypatch.setattr(installation, "manager", lambda *_args, **_options: Manager())
    status, out, err = mlxd("service", "status")
    assert (status, out) == (1, "not-installed: Not installed.\n")
    assert "drain_seconds" in err


def test_run_and_demo_are_handed_on(mlxd, monkeypatch, tmp_path):
    """`run` starts the process with what was said, `demo` plays the demo, and their statuses are ours."""
    import daemon.demo
    import daemon.process

    got = {}
    monkeypatch.setattr(daemon.process, "run", lambda home, **options: got.update(options, home=home) or 7)
    assert mlxd("run", "--supervised", "-c", str(tmp_path / "c.toml"))[0] == 7
    gc.enable()  # the process itself does that when it has started
    assert (got["config_path"], got["supervised"], got["foreground"]) == (tmp_path / "c.toml", True, False)
    monkeypatch.setattr(daemon.demo, "main", lambda *, keep: 3 if keep == tmp_path else 4)
    assert mlxd("demo", "--keep", str(tmp_path))[0] == 3
    assert mlxd("demo")[0] == 4


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(mlxd, shell):
    """Each shell gets a script that asks mlxd itself."""
    assert "_MLXD_COMPLETE" in mlxd("completion", shell)[1]


def test_help_knows_every_command(mlxd):
    """The list in the help says what each command's own help says, and names the exit statuses."""
    out = mlxd("--help")[1]
    assert EXIT_STATUSES.split(",")[0] in out
    context = click.Context(cli.mlxd)
    for name, (_, text) in cli.COMMANDS.items():
        command = cli.mlxd.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(200) == text
        assert mlxd(name, "--help")[0] == 0
    assert mlxd("--version")[1].startswith("mlxd")


def test_the_command_line_imports_little():
    """Neither help nor a submission imports what would make it slow."""
    code = (
        "import sys\nfrom daemon.cli import main\nmain.run(sys.argv[1:])\n"
        "heavy = {'pydantic', 'fastapi', 'uvicorn', 'rich', 'sqlalchemy', 'http.client', 'asyncio', 'ssl', 'mlx'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["--home", "/nowhere", "submit", "generate", "a b"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr.splitlines()[-1] == "[]"


def test_odd_ends_are_plain_sentences(monkeypatch, capsys):
    """Ctrl-C, an error of the system and one of ours end in a status, not a traceback."""
    endings = [KeyboardInterrupt(), OSError(28, "No space left on device", "/x"), OSError("odd"), MlxdError("Oh.")]
    statuses = []
    for ending in endings:

        def main(ending=ending, **_options):
            raise ending

        monkeypatch.setattr(cli.mlxd, "main", main)
        statuses.append(cli.run([]))
    assert statuses == [130, 1, 1, 4]
    assert capsys.readouterr().err == "mlxd: /x: No space left on device.\nmlxd: odd.\nmlxd: Oh.\n"


def test_a_closed_pipe_is_quiet(tmp_path):
    """`mlxd jobs | head` ends without a word."""
    command = f"{sys.executable} -I -m daemon --home {tmp_path} completion bash | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
