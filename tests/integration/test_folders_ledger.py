"""Watched folders on the real ledger: what a restart remembers, and what a full or broken one costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import Bench, watching

from daemon.config.folders import FolderConfig
from jobs.errors import QueueFull
from jobs.ledger import Ledger
from jobs.model import ErrorInfo, Job, NewJob, OutputFile, State


class Counting:
    """The ledger with the service's `submit`, and a way to wait for jobs."""

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.ledger = Ledger(path)
        self.limit = limit
        self.seen = self.ledger.seen
        self.remember = self.ledger.remember
        self.is_output = self.ledger.is_output
        self.get = self.ledger.get

    def submit(self, new: NewJob, *, seen: tuple[Path, str] | None = None) -> tuple[Job, bool]:
        return self.ledger.add(new, limit=self.limit, seen=seen)

    @property
    def inputs(self) -> list[str]:
        jobs = self.ledger.find(limit=5000, newest_first=False)
        return [Path(job.params["file"]).name for job in jobs]


@contextmanager
def session(home: Path, root: Path, *, limit: int | None = None, **options: Any) -> Iterator[tuple[Bench, Counting]]:
    """One life of the daemon, as far as folders and ledger are concerned."""
    counting = Counting(home / "ledger.sqlite3", limit=limit)
    bench = Bench(FolderConfig(path=root, **{"task": "x", **options}), ledger=counting)
    try:
        yield bench, counting
    finally:
        counting.ledger.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_a_restart_does_nothing_twice(tmp_path: Path, root: Path) -> None:
    """What was taken before is known, what came meanwhile is taken, without reading the old files again."""
    for number in range(20):
        (root / f"{number}.txt").write_text(str(number))
    with session(tmp_path, root) as (bench, ledger):
        bench.settle()
        assert len(ledger.inputs) == 20
    for number in range(20):
        (root / f"{number}.txt").chmod(0)
    (root / "new.txt").write_text("new")
    with session(tmp_path, root) as (bench, ledger):
        bench.settle()
        assert ledger.inputs[20:] == ["new.txt"]
        assert bench.problem is None


def test_a_failed_input_is_not_resubmitted(tmp_path: Path, root: Path) -> None:
    """Neither at rescans nor after a restart; put there once more, it is."""
    path = root / "a.txt"
    path.write_text("a")
    for life in range(2):
        with session(tmp_path, root) as (bench, ledger):
            bench.settle()
            if life == 0:
                job = ledger.ledger.find()[0]
                claimed = ledger.ledger.claim(job.id, "me")
                assert claimed is not None
                failed = ledger.ledger.fail(
                    job.id, claimed.fence, ErrorInfo(type="invalid-input", message="no"), retry_at=None
                )
                assert failed.state is State.FAILED
            bench.settle()
            assert ledger.inputs == ["a.txt"]
    (root / "b.txt").write_text("a")
    for _ in range(2):
        with session(tmp_path, root) as (bench, ledger):
            bench.settle()
            assert ledger.inputs == ["a.txt", "b.txt"]


def test_outputs_beside_the_input_never_become_inputs(tmp_path: Path, root: Path) -> None:
    """Known from the moment the job meant to write them."""
    (root / "a.txt").write_text("a")
    with session(tmp_path, root) as (bench, ledger):
        bench.settle()
        job = ledger.ledger.find()[0]
        claimed = ledger.ledger.claim(job.id, "me")
        assert claimed is not None
        output = root / "a.out.txt"
        ledger.ledger.intend(job.id, claimed.fence, OutputFile(path=output, size=3, sha256="0" * 64))
        output.write_text("out")
        bench.settle()
        assert ledger.inputs == ["a.txt"]


def test_a_full_queue_loses_nothing(tmp_path: Path, root: Path) -> None:
    """Files wait until there is room, and are then taken."""
    for number in range(5):
        (root / f"{number}.txt").write_text(str(number))
    with session(tmp_path, root, limit=2) as (bench, ledger):
        bench.settle()
        assert len(ledger.inputs) == 2
        assert str(bench.problem).startswith("files wait:")
        with pytest.raises(QueueFull):
            ledger.submit(NewJob(task="x"))
        for job in ledger.ledger.find():
            ledger.ledger.cancel(job.id)
        bench.turn(1.0)
        assert len(ledger.inputs) == 4
        ledger.limit = None
        bench.turn(60.0)
        assert len(ledger.inputs) == 5
        assert bench.problem is None


def test_an_unavailable_ledger_loses_nothing(tmp_path: Path, root: Path) -> None:
    """While nothing can be written down nothing is taken; afterwards everything is."""
    (root / "a.txt").write_text("a")
    with session(tmp_path, root) as (bench, ledger):
        ledger.ledger.close()
        for passed in (0, 2):
            bench.clock.now += passed
            bench.patrol.turn(bench.clock.now)
        assert str(bench.problem).startswith("files wait:")
    with session(tmp_path, root) as (bench, ledger):
        bench.settle()
        assert ledger.inputs == ["a.txt"]


def kill_after_the_job(failpoint: str) -> None:
    if failpoint == "file.taken":
        raise KeyboardInterrupt


def test_dying_between_job_and_note_does_nothing_twice(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job and the content's key are one transaction: whatever follows may be lost."""
    (root / "a.txt").write_text("a")
    with session(tmp_path, root) as (bench, _), monkeypatch.context() as patch:
        patch.setattr("daemon.folders.intake.reach", kill_after_the_job)
        with pytest.raises(KeyboardInterrupt):
            bench.settle()
    with session(tmp_path, root) as (bench, ledger):
        bench.settle()
        bench.settle()
        assert ledger.inputs == ["a.txt"]


def test_a_burst_through_the_real_ledger(tmp_path: Path, root: Path) -> None:
    """Hundreds of files, events on: each is one durable job."""
    ledger = Counting(tmp_path / "ledger.sqlite3")
    names = {f"{number}.txt" for number in range(300)}
    folder = FolderConfig(path=root, task="x", settle_seconds=0.05)
    try:
        with watching(folder, ledger=ledger, rescan_seconds=3600) as (watcher, _):
            watcher.rescan()
            for name in names:
                (root / name).write_text(name)
            while watcher.rescan():
                pass
            assert sorted(ledger.inputs) == sorted(names)
    finally:
        ledger.ledger.close()
