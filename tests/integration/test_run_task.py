"""`mlxd run-task`, `mlxd shortcuts` and `mlxd selftest` at the command line, against a served fake daemon."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_socket import FakeService, serving

from daemon.cli import main as cli
from daemon.cli import waiting
from daemon.cli.commands.run_task import clean
from jobs.errors import DaemonUnreachable, InvalidParams
from jobs.model import ErrorInfo, Job, NewJob, OutputFile, State

Said = tuple[int, str, str]
Ending = tuple[State, dict[str, Any]]


class Answering(FakeService):
    """Ends each job at once, as *ending* says; what a file holds is its job's text."""

    def __init__(self) -> None:
        super().__init__()
        self.ending: Callable[[NewJob], Ending | None] = lambda new: (State.SUCCEEDED, {"result": {"text": said(new)}})

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        job, created = super().submit(new)
        if ending := self.ending(new):
            state, changes = ending
            self.move(job.id, state, **changes)
        return self.jobs[job.id], created


def said(new: NewJob) -> str:
    file = new.params.get("file")
    return Path(file).read_text() if file else str(new.params.get("prompt", "nothing"))


@pytest.fixture(name="service")
def _service() -> Answering:
    return Answering()


@pytest.fixture(name="mlxd")
def _mlxd(service: Answering, monkeypatch) -> Iterator[Callable[..., Said]]:
    """Run a command line against the served home; gives (status, standard output, standard error), as bytes were."""
    with serving(service) as path:
        monkeypatch.setenv("MLXD_HOME", str(path.parent.parent))

        def run(*arguments: str, stdin: bytes = b"") -> Said:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
            # What people look at speaks as their terminal does; what programs call speaks UTF-8 in any locale.
            locale = "ascii" if arguments[0] == "run-task" else "utf-8"
            out, err = (io.TextIOWrapper(io.BytesIO(), encoding=locale) for _ in range(2))
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", err)
            status = cli.run(arguments)
            for stream in (out, err):
                stream.flush()
            return status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()

        yield run


@pytest.fixture(name="files")
def _files(tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    names = ["b", "a \u00fc", "-c"]
    for name in names:
        Path(name).write_text(f"text of {name}\n")
    return names


def test_only_the_result_in_utf8_with_one_newline(mlxd, service: Answering) -> None:
    """Even where the locale is ASCII; nothing is on standard error."""
    assert mlxd("run-task", "generate", stdin="Gr\u00fc\u00dfe \U0001f399\n\n".encode()) == (
        0,
        "Gr\u00fc\u00dfe \U0001f399\n",
        "",
    )
    (job,) = service.jobs.values()
    assert (job.task, job.lane, job.source.kind) == ("generate", "interactive", "cli")


def test_several_files_in_their_order(mlxd, files: list[str]) -> None:
    """Results come in the order of the arguments, whichever ends first, with one newline at the end."""
    out = "text of b\ntext of a \u00fc\ntext of -c\n"
    assert mlxd("run-task", "transcribe", "--", *files) == (0, out, "")


def test_one_failure_does_not_spare_the_others(mlxd, service: Answering, files: list[str]) -> None:
    """The results that there are, one sentence for each that is not, and the first failure's status."""

    def ending(new: NewJob) -> Ending:
        if new.params["file"].endswith("\u00fc"):
            return State.FAILED, {"error": ErrorInfo(type="error", message="It is\nno recording.")}
        return State.SUCCEEDED, {"result": {"text": said(new)}}

    service.ending = ending
    status, out, err = mlxd("run-task", "transcribe", "--", *files)
    assert (status, out, err) == (1, "text of b\ntext of -c\n", "mlxd: a \u00fc: It is no recording.\n")
    status, out, _ = mlxd("run-task", "transcribe", "--json", "--", *files)
    told = json.loads(out)
    assert (status, told["ok"]) == (1, False)
    assert [one["state"] for one in told["results"]] == ["succeeded", "failed", "succeeded"]
    assert told["results"][1]["error"] == "It is\nno recording."


@pytest.mark.parametrize(
    ("state", "status"), [(State.FAILED, 1), (State.CANCELLED, 5), (State.BLOCKED, 6), (State.QUARANTINED, 6)]
)
def test_an_ending_is_a_status_and_a_sentence(mlxd, service: Answering, state: State, status: int) -> None:
    """Nothing on standard output: a Quick Action must not replace the selection by an error."""
    service.ending = lambda _: (state, {})
    got, out, err = mlxd("run-task", "generate", stdin=b"x")
    assert (got, out, err.count("\n")) == (status, "", 1)
    assert f"The job is {state}" in err


def test_a_timeout_leaves_the_job(mlxd, service: Answering) -> None:
    """124, and how to go on waiting."""
    service.ending = lambda _: None
    status, out, err = mlxd("run-task", "generate", "--timeout", "0.05", stdin=b"x")
    (job,) = service.jobs.values()
    assert (status, out) == (124, "")
    assert err == f"mlxd: not done after 0.05 s; it goes on. Wait for it: mlxd wait {job.id}\n"
    assert job.state is State.QUEUED


def test_a_daemon_that_stops_meanwhile_keeps_the_jobs(mlxd, service: Answering, files: list[str], monkeypatch) -> None:
    """The results that are there are printed, and for the rest is said how to go on: 3."""
    real = waiting.watch

    def watch(transport, job, screen, *, deadline):
        if job["params"]["file"].endswith("\u00fc"):
            raise DaemonUnreachable("No mlxd answers.")
        return real(transport, job, screen, deadline=deadline)

    monkeypatch.setattr("daemon.cli.commands.run_task.watch", watch)
    status, out, err = mlxd("run-task", "transcribe", "--", *files)
    assert (status, out) == (3, "text of b\ntext of -c\n")
    kept = next(job.id for job in service.jobs.values() if job.params["file"].endswith("\u00fc"))
    assert err == f"mlxd: a \u00fc: No mlxd answers. The job is kept; then wait for it: mlxd wait {kept}\n"


def test_interrupted_it_says_what_goes_on(mlxd, service: Answering, monkeypatch) -> None:
    """130, with the command that stops the jobs."""

    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("daemon.cli.commands.run_task.watch", interrupt)
    status, out, err = mlxd("run-task", "generate", stdin=b"x")
    (job_id,) = service.jobs
    assert (status, out) == (130, "")
    assert f"mlxd cancel {job_id}" in err


def test_without_waiting_the_ids(mlxd, service: Answering, files: list[str]) -> None:
    """One in each line, in order."""
    service.ending = lambda _: None
    status, out, _ = mlxd("run-task", "transcribe", "--no-wait", "--", *files)
    assert (status, out.split()) == (0, list(service.jobs))


def test_paths_instead_of_text(mlxd, service: Answering, tmp_path: Path, files: list[str]) -> None:
    """For programs that go on with the files; and what a task without a text prints anyway."""
    outputs = (
        OutputFile(path=tmp_path / "a.txt", size=1, sha256="0"),
        OutputFile(path=tmp_path / "a.srt", size=1, sha256="0"),
    )
    service.ending = lambda _: (State.SUCCEEDED, {"result": {"text": "words"}, "outputs": outputs})
    listed = f"{tmp_path}/a.txt\n{tmp_path}/a.srt\n"
    assert mlxd("run-task", "transcribe", "--print", "paths", "b")[1] == listed
    assert mlxd("run-task", "transcribe", "b", "-o", "-")[1] == "words\n"
    service.ending = lambda _: (State.SUCCEEDED, {"result": {}, "outputs": outputs})
    assert mlxd("run-task", "noop")[1] == listed


def test_a_refusal_is_one_sentence(mlxd, service: Answering) -> None:
    """4; wrong usage is 2; a missing file is said before anything is submitted."""
    service.refuse = InvalidParams("max_tokenz: there is no such parameter.")
    assert mlxd("run-task", "generate", stdin=b"x") == (4, "", "mlxd: max_tokenz: there is no such parameter.\n")
    service.refuse = None
    status, out, err = mlxd("run-task", "transcribe", "nothing.wav")
    assert (status, out, err) == (4, "", "mlxd: There is no file nothing.wav.\n")
    for wrong in (("run-task",), ("run-task", "x", "--beside", "-o", "y"), ("run-task", "x", "--print", "z")):
        status, out, err = mlxd(*wrong)
        assert (status, out) == (2, "")
        assert err
    assert service.jobs == {}


def test_without_a_daemon_it_says_how_to_start_one(mlxd, monkeypatch, tmp_path: Path) -> None:
    """3, one sentence, and nothing was started or written."""
    monkeypatch.setenv("MLXD_HOME", str(tmp_path / "h"))
    status, out, err = mlxd("run-task", "generate", stdin=b"x")
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "mlxd run" in err
    assert "mlxd service start" in err
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a\x1b]8;;x\x1b\\b", "ab"),
        ("bell\x07 back\x08 \x9b31m", "bell back 31m"),
        ("one\r\ntwo\n\n", "one\ntwo"),
        ("tab\there \u202e \U0001f399", "tab\there \u202e \U0001f399"),
        ("\x1bM\x1b", ""),
    ],
)
def test_a_model_cannot_colour_the_result(text: str, printed: str) -> None:
    """Escape sequences and control characters never reach another program; tabs and lines do."""
    assert clean(text) == printed


def test_shortcuts_at_the_command_line(mlxd, tmp_path: Path, service: Answering) -> None:
    """Install, list and remove, in words and in JSON; configured actions are among them."""
    home = Path(os.environ["MLXD_HOME"])
    (home / "config.toml").write_text('[shortcuts.memo]\ntask = "memo"\ntitle = "My memo"\n')
    dest = tmp_path / "out"
    status, out, err = mlxd("shortcuts", "install", "--dest", str(dest))
    assert status == 0
    assert out.splitlines()[-1] == f"My memo: {dest}/My memo.workflow"
    assert "Quick Actions" in err
    listed = json.loads(mlxd("shortcuts", "list", "--json")[1])
    assert {one["name"]: one["state"] for one in listed}["memo"] == "installed"
    (dest / "My memo.workflow" / "Contents" / "Info.plist").write_text("mine")
    assert "changed" in mlxd("shortcuts", "list")[1]
    status, out, err = mlxd("shortcuts", "remove", "--json")
    assert status == 1
    assert len(json.loads(out)["removed"]) == 4
    assert "--force" in err
    assert mlxd("shortcuts", "remove", "--force")[0] == 0
    assert list(dest.iterdir()) == []
    status, out, _ = mlxd(
        "shortcuts", "install", "--task", "noop", "--title", "No", "--as", "shortcut", "--dest", str(dest), "--json"
    )
    assert [one["path"] for one in json.loads(out)] == [f"{dest}/No.shortcut"]
    assert "delete it in that app" in mlxd("shortcuts", "remove", "noop")[2]


def test_shortcuts_used_wrongly(mlxd) -> None:
    """2 and what to say instead; without a Mac and without a place, 1 and what works."""
    for wrong in (
        ("x",),
        ("transcribe", "--task", "y"),
        ("--as", "folder-action"),
        ("a", "b", "--as", "folder-action"),
    ):
        status, out, err = mlxd("shortcuts", "install", *wrong)
        assert (status, out) == (2, "")
        assert err
    if sys.platform != "darwin":
        status, _, err = mlxd("shortcuts", "install")
        assert status == 1
        assert "--dest" in err


def test_selftest_at_the_command_line(mlxd) -> None:
    """A JSON list, with the daemon that answers among it; status 0."""
    status, out, _ = mlxd("selftest", "--json")
    checks = {one["id"]: one for one in json.loads(out)}
    assert status == 0
    assert set(checks["arguments"]) == {"id", "what", "result", "detail"}
    assert checks["daemon"]["result"] == "ok"
    status, out, err = mlxd("selftest")
    assert "mac-sign" in out
    assert err == "Nothing failed.\n"


def test_the_job_is_waited_for_and_not_asked_for_again_and_again(mlxd, service: Answering) -> None:
    """It ends when the job does, by events."""
    service.ending = lambda _: None
    timer = threading.Timer(
        0.1, lambda: [service.move(one, State.SUCCEEDED, result={"text": "t"}) for one in service.jobs]
    )
    timer.start()
    assert mlxd("run-task", "generate", stdin=b"x")[:2] == (0, "t\n")
    timer.join()
    assert len([call for call in service.calls if call[0] == "get"]) <= 3
