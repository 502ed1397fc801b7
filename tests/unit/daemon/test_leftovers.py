"""What a dead daemon's jobs had half-written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import leftovers
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, OutputFile, Placement


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


def begun(ledger: Ledger, owner: str, directory: Path | None = None) -> Job:
    """Return a job that *owner* runs."""
    job, _ = ledger.add(NewJob(task="noop", placement=Placement(directory=directory)))
    claimed = ledger.claim(job.id, owner)
    assert claimed is not None
    return claimed


def half(folder: Path, job: Job) -> Path:
    """Write what a death in the middle of writing leaves, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".a.txt.{job.id}.mlxd-tmp"
    path.write_text("half")
    return path


def test_half_written_files_of_a_dead_daemon_go(ledger: Ledger, tmp_path: Path) -> None:
    """Wherever the job writes: its own folder and those below, the one it was given, and those of its intents."""
    results, given, noted = tmp_path / "results", tmp_path / "given", tmp_path / "noted"
    own, placed = begun(ledger, "dead"), begun(ledger, "dead", given)
    ledger.intend(placed.id, placed.fence, OutputFile(path=noted / "b.txt", size=1, sha256="0" * 64))
    gone = [half(results / own.id, own), half(results / own.id / "sub", own), half(given, placed), half(noted, placed)]

    leftovers.clear(ledger, "living", results=results)

    assert not [path for path in gone if path.exists()]


def test_nothing_else_goes(ledger: Ledger, tmp_path: Path) -> None:
    """What a living attempt writes stays, and so do results and files that only look alike."""
    results = tmp_path / "results"
    dead, mine = begun(ledger, "dead"), begun(ledger, "living")
    stays = [half(results / mine.id, mine), half(results / dead.id, mine)]
    for name in ("a.txt", f"a.{dead.id}.mlxd-tmp"):
        stays.append(results / dead.id / name)
        stays[-1].write_text("a person's")

    leftovers.clear(ledger, "living", results=results)

    assert [path for path in stays if path.exists()] == stays


def test_folders_that_are_gone_are_no_trouble(ledger: Ledger, tmp_path: Path) -> None:
    """A start does not fail because a disk is not there."""
    begun(ledger, "dead", tmp_path / "unplugged")

    leftovers.clear(ledger, "living", results=tmp_path / "results")

    assert not (tmp_path / "unplugged").exists()
