"""Death at any step of writing a result: the repeated attempt ends with exactly one right file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_jobs import STEPS, Died, ScriptedFiles

from jobs.ledger import Ledger
from jobs.model import Job, NewJob, OutputFile
from jobs.outputs import OutputWriter


def die() -> None:
    raise Died


def claimed(ledger: Ledger) -> Job:
    """Return the one job, running for a new attempt, as after a start of the daemon."""
    ledger.recover("checker")
    job, _ = ledger.add(NewJob(task="t", idempotency_key="the one"))
    taken = ledger.claim(job.id, "attempt")
    assert taken is not None
    return taken


def writer(ledger: Ledger, folder: Path, files: ScriptedFiles | None = None) -> OutputWriter:
    job = claimed(ledger)
    return OutputWriter(
        folder,
        job_id=job.id,
        intend=lambda output: ledger.intend(job.id, job.fence, output),
        mine=ledger.intended(job.id),
        files=files,
    )


def attempt(ledger: Ledger, folder: Path, content: str, files: ScriptedFiles | None = None) -> OutputFile:
    return writer(ledger, folder, files).write("memo.txt", content)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where results go."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


#: Replacing an own file takes a rename where a first writing takes a link.
AGAIN = ("open_folder", "digest", "digest", "create", "write", "publish", "sync", "replace", "sync")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stranger", [False, True], ids=["alone", "stranger"])
@pytest.mark.parametrize("same", [False, True], ids=["other", "same"])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_death_at_any_step_of_a_first_writing(
    tmp_path: Path, folder: Path, step: int, *, same: bool, stranger: bool, after: bool
) -> None:
    """Whether the next attempt writes the same or something else: one file, its content, nothing else."""
    ledger = Ledger(tmp_path / "ledger")
    if stranger:
        (folder / "memo.txt").write_text("a stranger's")
    with pytest.raises(Died):
        attempt(ledger, folder, "first", ScriptedFiles(step, die, after=after))
    content = "first" if same else "second"
    attempt(ledger, folder, content)
    expected = {"memo.txt": "a stranger's", "memo (2).txt": content} if stranger else {"memo.txt": content}
    assert contents(folder) == expected
    ledger.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(len(AGAIN)))
def test_death_at_any_step_of_a_replacement(tmp_path: Path, folder: Path, step: int, *, after: bool) -> None:
    """A file that an earlier attempt finished is whole at every moment, old or new, and replaced once."""
    ledger = Ledger(tmp_path / "ledger")
    attempt(ledger, folder, "first")
    files = ScriptedFiles(step, die, after=after)
    with pytest.raises(Died):
        attempt(ledger, folder, "second", files)
    assert files.done == list(AGAIN[: step + 1])
    assert (folder / "memo.txt").read_text() in {"first", "second"}
    attempt(ledger, folder, "third")
    assert contents(folder) == {"memo.txt": "third"}
    ledger.close()


def test_a_stranger_who_comes_after_a_death_is_respected(tmp_path: Path, folder: Path) -> None:
    """The intent alone does not make a file ours: it was noted, the file never came, somebody else's did."""
    ledger = Ledger(tmp_path / "ledger")
    with pytest.raises(Died):
        attempt(ledger, folder, "first", ScriptedFiles(STEPS.index("link"), die))
    (folder / "memo.txt").write_text("somebody else's")
    attempt(ledger, folder, "first")
    assert contents(folder) == {"memo.txt": "somebody else's", "memo (2).txt": "first"}
    ledger.close()


#: Writes one file and kills itself, no clean-up possible, at the given operation.
CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fakes_jobs import ScriptedFiles
from jobs.ledger import Ledger
from test_outputs_crash import attempt

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

step, after = int(sys.argv[4]), sys.argv[5] == "after"
attempt(Ledger(Path(sys.argv[2])), Path(sys.argv[3]), "content", ScriptedFiles(step, kill, after=after))
"""


@pytest.mark.parametrize(
    ("step", "after"),
    [("create", "after"), ("write", "after"), ("sync", "after"), ("link", "before"), ("link", "after")],
)
def test_kill_9_while_writing(tmp_path: Path, folder: Path, step: str, after: str) -> None:
    """The same with a real process, a real ledger and a real SIGKILL."""
    here = Path(__file__).parent
    arguments = [str(here.parent), str(tmp_path / "ledger"), str(folder), str(STEPS.index(step)), after]
    environment = os.environ | {"PYTHONPATH": str(here)}
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False, env=environment, timeout=50)
    assert done.returncode == -9
    ledger = Ledger(tmp_path / "ledger")
    attempt(ledger, folder, "content")
    assert contents(folder) == {"memo.txt": "content"}
    ledger.close()
