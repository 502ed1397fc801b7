"""Try out, pause, resume and take back, over the socket and with the `mlxd` command, on a real ledger and watcher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes_folders import watching
from fakes_socket import FakeService, serving

from daemon.cli import main as cli
from daemon.config.folders import FolderConfig
from daemon.folders.desk import FolderDesk, past_jobs
from daemon.folders.intake import Intake
from daemon.folders.preview import Asking
from daemon.folders.reverting import Reverting
from daemon.folders.trash import Trash
from daemon.folders.watcher import Watcher
from jobs.journal import Journal
from jobs.ledger import Ledger, utcnow
from jobs.model import OutputFile


class Office(FakeService):
    """A service with a folder desk."""

    def __init__(self, root: Path, ledger: Ledger, watcher: Watcher, folder: FolderConfig) -> None:
        super().__init__()
        journal, trash = Journal(ledger), Trash(root / "trash", system=False)
        intake = Intake(submit=ledger.add, ledger=ledger)
        self.watcher = watcher
        self.desk = FolderDesk(
            folders=lambda: (folder,),
            watcher=watcher,
            journal=journal,
            revert=Reverting(ledger=ledger, journal=journal, trash=trash, clock=utcnow),
            asking=Asking(
                known=intake.known,
                is_output=intake.is_output,
                takes=lambda _task: None,
                prepared=intake.prepared,
                validate=lambda _new: None,
                past=lambda task: past_jobs(ledger, journal, task),
                models=lambda _new: (),
                estimate=lambda _ref, _runtime: ("m", 1),
            ),
            clock=utcnow,
        )

    @property
    def folder_desk(self) -> FolderDesk:
        return self.desk

    def folders(self) -> list:
        return self.watcher.status()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture
def folder(tmp_path: Path) -> FolderConfig:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.txt").write_text("hello")
    return FolderConfig(path=tmp_path / "in", task="generate", settle_seconds=0, events="off")


@pytest.fixture
def home(tmp_path: Path, ledger: Ledger, folder: FolderConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with the socket in it; the folder starts paused, so that nothing happens by itself."""
    Journal(ledger).pause(folder.path, now=utcnow())
    with (
        watching(folder, paused=Journal(ledger).paused) as (watcher, _),
        serving(Office(tmp_path, ledger, watcher, folder)) as socket,
    ):
        monkeypatch.setenv("MLXD_HOME", str(socket.parent.parent))
        yield socket


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.run(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.usefixtures("home")
def test_a_dry_run_of_a_folder_a_sub_folder_and_a_file(
    folder: FolderConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people and for programs; relative paths count from where the person is."""
    monkeypatch.chdir(folder.path)
    for path in (".", "sub", "sub/a.txt"):
        status, out, _ = run(capsys, "folders", "test", path, "--json")
        (one,) = json.loads(out)["files"]
        assert (status, one["verdict"], one["path"]) == (0, "would_run", str(folder.path / "sub" / "a.txt"))
    status, out, err = run(capsys, "folders", "test", str(folder.path))
    assert "1 of 1 would run" in out
    assert "sub/a.txt" in out
    assert "is paused" in err


@pytest.mark.usefixtures("home")
def test_elsewhere_is_refused_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in no watched folder, one that is not there, and a sub-folder that is not watched by itself."""
    for arguments in (("test", "/"), ("test", f"{tmp_path}/in/none"), ("pause", f"{tmp_path}/in/sub")):
        status, _, err = run(capsys, "folders", *arguments)
        assert status != 0
        assert "does not exist" in err or f"Watched are: {tmp_path}/in" in err


@pytest.mark.usefixtures("home")
def test_pause_and_resume(folder: FolderConfig, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The state is shown, and stands in the ledger."""
    assert json.loads(run(capsys, "folders", "list", "--json")[1])[0]["state"] == "paused"
    assert run(capsys, "folders", "resume", str(folder.path))[0] == 0
    assert Journal(ledger).paused() == {}
    assert json.loads(run(capsys, "folders", "list", "--json")[1])[0]["state"] == "watching"
    assert "is paused" in run(capsys, "folders", "pause", str(folder.path))[2]
    assert list(Journal(ledger).paused()) == [folder.path]
    assert "paused" in run(capsys, "folders")[1]


@pytest.mark.usefixtures("home")
def test_a_job_is_taken_back(folder: FolderConfig, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """What went where is printed; what was left alone is a complaint and the status is 1."""
    from daemon.folders.rules import new_job

    path = folder.path / "sub" / "a.txt"
    job, _ = ledger.add(new_job(folder, folder.rules[0], path))
    assert run(capsys, "revert", job.id)[0] != 0, "it has not ended"
    claimed = ledger.claim(job.id, "me")
    assert claimed is not None
    good, edited = folder.path / "good.out.txt", folder.path / "edited.out.txt"
    outputs = []
    for output in (good, edited):
        output.write_text("x")
        digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        outputs.append(OutputFile(path=output, size=1, sha256=digest))
    ledger.finish(job.id, claimed.fence, {}, outputs)
    edited.write_text("y")
    status, out, err = run(capsys, "revert", job.id[:6])
    assert status == 1
    assert f"trashed   {good}" in out
    assert f"{edited} was left alone: it was changed since the job wrote it." in err
    (past,) = past_jobs(ledger, Journal(ledger), "generate")
    assert past.size == 5
