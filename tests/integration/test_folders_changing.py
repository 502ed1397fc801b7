"""Files that are written anew while their jobs wait: real folders, the real ledger, the real executor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_daemon import Bench as Work
from fakes_folders import Bench as Folders

from daemon.aftermath import Aftermath
from daemon.config.folders import FolderConfig
from daemon.folders.taken import TakenFiles
from daemon.folders.trash import Trash
from jobs.errors import InputChanged
from jobs.journal import Journal
from jobs.model import After, Job, State
from plugins.manager import PluginManager


class House:
    """A watched folder and what does its jobs; every look and every job is the test's to begin."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.root = home / "in"
        self.root.mkdir()
        self.work = Work(home)
        ledger, journal = self.work.ledger, Journal(self.work.ledger)
        ledger.submit = ledger.add  # type: ignore[attr-defined]
        self.folders = Folders(FolderConfig(path=self.root, task="read", match=("*",), **options), ledger=ledger)
        self.work.world.require_input = TakenFiles(journal).require
        self.aftermath = Aftermath(
            plugins=PluginManager(builtins=()),
            unblock=lambda: None,
            journal=journal,
            trash=Trash(home / "trash", system=False, environ={}),
            anew=lambda path: self.folders.patrol.reconsider(path.name, self.folders.clock.now),
        )
        #: What the jobs read, in order.
        self.read: list[str] = []
        self.work.task("read", self._read)

    def _read(self, ctx: Any, params: Any) -> dict[str, Any]:
        self.read.append(Path(params.file).read_text())
        ctx.input_read()
        return {}

    def put(self, text: str, name: str = "a.txt") -> None:
        """Write the file and let it settle."""
        (self.root / name).write_text(text)
        self.settle()

    def settle(self) -> None:
        """Look at everything, and again when what was found has held still."""
        self.folders.patrol.expedite()
        for seconds in (0.0, 2.0):
            self.folders.clock.now += seconds
            self.folders.patrol.turn(self.folders.clock.now)

    def jobs(self) -> list[Job]:
        return self.work.ledger.find(limit=100, newest_first=False)

    def run(self, job: Job) -> State:
        self.work.executor.execute(job.id)
        done = self.work.ledger.get(job.id)
        self.aftermath(done)
        return done.state


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.work.close()


def test_each_content_is_read_once(house: House) -> None:
    """The job of what is gone ends unread; the job of what came instead reads it, once."""
    house.put("one")
    house.put("two")
    assert [house.run(job) for job in house.jobs()] == [State.CANCELLED, State.SUCCEEDED]
    assert house.read == ["two"]
    house.settle()
    assert len(house.jobs()) == 2


def test_what_came_back_is_read(house: House) -> None:
    """One, two, and one again before any job began: the first job has its file, the second has none."""
    for text in ("one", "two", "one"):
        house.put(text)
    assert [house.run(job) for job in house.jobs()] == [State.SUCCEEDED, State.CANCELLED]
    assert house.read == ["one"]
    house.put("two")
    assert [house.run(job) for job in house.jobs()[2:]] == [State.SUCCEEDED]
    assert house.read == ["one", "two"]


def test_what_comes_back_while_its_job_steps_aside_is_read(house: House) -> None:
    """The watcher saw it as that job's, which ran; then the job was no more. It looks again, and takes it."""
    house.put("one")
    house.put("two")
    first, second = house.jobs()
    require = house.work.world.require_input

    def late(job: Job, stopping: Callable[[], bool]) -> None:
        try:
            require(job, stopping)
        except InputChanged:
            house.put("one")
            assert len(house.jobs()) == 2
            raise

    house.work.world.require_input = late
    assert house.run(first) is State.CANCELLED
    house.work.world.require_input = require
    house.settle()
    assert house.run(second) is State.CANCELLED
    house.settle()
    assert [house.run(job) for job in house.jobs()[2:]] == [State.SUCCEEDED]
    assert house.read == ["one"]


def test_a_copy_is_known_though_the_first_ones_job_stepped_aside(house: House) -> None:
    """The content's key was the first file's; the copy is known by its own name, and touching it changes nothing."""
    house.put("one")
    house.put("one", "b.txt")
    house.put("two")
    assert sorted(house.run(job) for job in house.jobs()) == [State.CANCELLED, State.SUCCEEDED, State.SUCCEEDED]
    os.utime(house.root / "b.txt", ns=(1, 1))
    house.settle()
    assert len(house.jobs()) == 3
    assert sorted(house.read) == ["one", "two"]


def test_a_file_that_was_only_touched_keeps_its_job(house: House) -> None:
    """A new date is no new content."""
    house.put("one")
    os.utime(house.root / "a.txt", ns=(1, 1))
    house.settle()
    assert [house.run(job) for job in house.jobs()] == [State.SUCCEEDED]


@pytest.mark.parametrize("again", [False, True])
def test_what_was_written_meanwhile_is_not_put_away(tmp_path: Path, again: bool) -> None:
    """The job read its file; the one that lies there by then is another's, and stays until that has read it."""
    house = House(tmp_path, after=After.DELETE, again=again)
    house.put("one")

    def read_then_lose(ctx: Any, params: Any) -> dict[str, Any]:
        ctx.input_read()
        Path(params.file).write_text("two!")
        return {}

    house.work.task("read", read_then_lose)
    assert house.run(house.jobs()[0]) is State.SUCCEEDED
    house.work.task("read", house._read)
    house.settle()
    assert [house.run(job) for job in house.jobs()[1:]] == [State.SUCCEEDED]
    assert house.read == ["two!"]
    assert not (house.root / "a.txt").exists()
    house.work.close()
