"""Jobs that write results on a disk that is written down, and what their files must look like after a cut."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import LedgerUnavailable
from jobs.ledger import Ledger
from jobs.model import After, Job, NewJob, Placement, Source, State
from jobs.provenance import is_sidecar, sidecar_of
from torture.crash_disk import Disk, Image, Op, materialise
from torture.crash_files import recording
from torture.crash_office import Office, digests, unfinished
from torture.crash_vfs import CrashVfs

#: Names that jobs of one life fight for; strangers have some of them already.
_NAMES = ("memo.txt", "memo (2).txt", "deep/notes.md", "deep/er/notes.md", "Ünïcode.txt", f"{'long' * 50}.txt")
_SIZES = (0, 10, 511, 4096, 20_000)
_STRANGERS = ("out/memo.txt", "out/deep/notes.md", "out/Ünïcode.txt", "out/.hidden")


@dataclass
class Findings:
    """What is wrong after one cut."""

    #: Succeeded, as its submitter was told, and not so any more, or without its files.
    lost: int = 0
    #: Files of one output that are there twice.
    doubled: int = 0
    sentences: list[str] = field(default_factory=list)

    def say(self, sentence: str, *, lost: int = 0, doubled: int = 0) -> None:
        self.lost += lost
        self.doubled += doubled
        self.sentences.append(sentence)


class Outputs:
    """Some jobs below *root*, recorded from the first to the last; then cuts, each examined on the same place."""

    def __init__(self, root: Path, random_: random.Random, *, cached: bool, deaf: str = "") -> None:
        self._root = root
        self._random = random_
        self.disk = Disk()
        self._start = self._first_image()
        self._known: dict[str, set[str]] = {}
        with _at(root, self._start):
            self.disk.load(self._start)
            self.first = len(self.disk.events)
            with recording(root, self.disk, cached=cached, deaf=deaf):
                self._work()

    def _first_image(self) -> Image:
        image: Image = {"in": None, "out": None, "in/a.wav": b"input a" * 500, "in/b.wav": b"input b" * 500}
        for path in _STRANGERS:
            if self._random.random() < 0.5:
                image |= {"out/deep": None, path: self._random.randbytes(700)}
        return image

    def _work(self) -> None:
        vfs = CrashVfs(self._root, self.disk)
        new_id = lambda: f"{self._random.getrandbits(40):010x}"  # noqa: E731 - repeatable, as everything here
        office = Office(self._root, connect=vfs.connect, ended=self._told, new_id=new_id)
        for number in range(4):
            office.ledger.add(self._job(number))
            self._say_new(office.ledger)
            for job in office.ledger.ready(self._random.randint(0, 2)):
                office.run(job.id)
        office.work()
        office.close()
        vfs.unregister()

    def _say_new(self, ledger: Ledger) -> None:
        (job,) = ledger.find(limit=1)
        self._known[job.id] = digests(job)
        self.disk.mark(("added", job.id))

    def _told(self, job: Job) -> None:
        if job.terminal:
            self.disk.mark(("ended", job.id, job.state.value))

    def _job(self, number: int) -> NewJob:
        random_ = self._random
        files = [(name, random_.choice(_SIZES)) for name in random_.sample(_NAMES, random_.randint(1, 3))]
        fates = [(random_.randint(0, len(files)), random_.choice(["fail", "crash", "stop"])) for _ in range(3)]
        watched = number < 2
        directory = random_.choice(["out", "out/new/er", None])
        placement = Placement(
            directory=self._root / directory if directory else None,
            input=self._root / "in" / f"{'ab'[number]}.wav" if watched else None,
            after=random_.choice(list(After)) if watched else After.LEAVE,
        )
        params = {"key": f"job-{number}", "files": files, "fresh": random_.random() < 0.5}
        return NewJob(
            task="write",
            params=params | {"fates": fates[: random_.randint(0, 3)]},
            source=Source(kind="folder", rule="r") if watched else Source(),
            placement=placement,
            max_failures=10,
        )

    def promised(self, at: int) -> tuple[set[str], set[str]]:
        """Return the jobs that were acknowledged before event *at*, and those that were told to have succeeded."""
        notes = [event.note for event in self.disk.events[self.first : at] if event.op is Op.MARK]
        added = {note[1] for note in notes if note[0] == "added"}
        return added, {note[1] for note in notes if note[0] == "ended" and note[2] == State.SUCCEEDED.value}

    def examine(self, image: Image, at: int) -> Findings:
        """Look at what a cut left, let a new daemon go on with it, and look again."""
        found = Findings()
        with _at(self._root, image):
            try:
                self._examine(image, at, found)
            except (sqlite3.DatabaseError, LedgerUnavailable, AssertionError) as error:
                found.say(f"{type(error).__name__}: {error}")
        return found

    def _examine(self, image: Image, at: int, found: Findings) -> None:
        added, succeeded = self.promised(at)
        self._look(image, found)
        office = Office(self._root, day=1)
        try:
            jobs = {job.id: job for job in office.ledger.find(limit=100)}
            for job_id in added - jobs.keys():
                found.say(f"job {job_id} is gone", lost=1)
            for job_id in succeeded & jobs.keys():
                if jobs[job_id].state is not State.SUCCEEDED:
                    found.say(f"job {job_id} had succeeded and is {jobs[job_id].state.value}", lost=1)
            _look_at_outputs(jobs, found)
            self._look_at_inputs(jobs, found)
            office.start()
            office.work()
            jobs = {job.id: job for job in office.ledger.find(limit=100)}
        finally:
            office.close()
        self._look_at_the_end(jobs, found)

    def _look(self, image: Image, found: Findings) -> None:
        """See that strangers' files are as they were, and every other final path is whole."""
        for path in _STRANGERS:
            if path in self._start and image.get(path) != self._start[path]:
                found.say(f"the stranger's {path} was touched")
        anybodys = set().union(*self._known.values())
        for path, data in _finals(image, self._start):
            if is_sidecar(Path(path)):
                if not _is_json(data):
                    found.say(f"{path} is no whole provenance file ({len(data)} bytes)")
            elif hashlib.sha256(data).hexdigest() not in anybodys:
                found.say(f"{path} holds {len(data)} bytes that no job wrote")

    def _look_at_inputs(self, jobs: dict[str, Job], found: Findings) -> None:
        """An input is where it was until its job has succeeded, and somewhere ever after."""
        of = {job.placement.input: job for job in jobs.values() if job.placement.input is not None}
        for name in ("in/a.wav", "in/b.wav"):
            job = of.get(self._root / name)
            places = [self._root / name]
            if job is not None and job.state is State.SUCCEEDED:
                places += [*(self._root / "in" / "done").glob("*"), *(self._root / "trash").rglob("*")]
            if not any(place.is_file() and place.read_bytes() == self._start[name] for place in places):
                found.say(f"the input {name} is gone")

    def _look_at_the_end(self, jobs: dict[str, Job], found: Findings) -> None:
        """See that every job has succeeded, and that there is one file for each of its outputs and no other."""
        for job in jobs.values():
            if unfinished(job.state) or job.state is not State.SUCCEEDED:
                found.say(f"job {job.id} is {job.state.value} in the end: {job.error and job.error.message}")
        _look_at_outputs(jobs, found)
        outputs = {output.path for job in jobs.values() for output in job.outputs}
        allowed = outputs | {sidecar_of(path) for path in outputs}
        wanted = sum(len(job.params["files"]) for job in jobs.values())
        if len(outputs) != wanted:
            found.say(f"{len(outputs)} outputs instead of {wanted}", doubled=1)
        for folder in ("out", "results"):
            for path in (self._root / folder).rglob("*"):
                relative = path.relative_to(self._root).as_posix()
                if path.is_file() and path not in allowed and relative not in self._start:
                    found.say(f"{relative} is nobody's", doubled=1)


def _look_at_outputs(jobs: dict[str, Job], found: Findings) -> None:
    """See that whoever succeeded has every output, with content of its own."""
    for job in jobs.values():
        for output in job.outputs if job.state is State.SUCCEEDED else ():
            data = output.path.read_bytes() if output.path.is_file() else None
            if data is None:
                found.say(f"job {job.id} succeeded and {output.path.name} is not there", lost=1)
            elif hashlib.sha256(data).hexdigest() != output.sha256 or output.sha256 not in digests(job):
                found.say(f"job {job.id} succeeded and {output.path.name} is not what it wrote", lost=1)


def _finals(image: Image, start: Image) -> Iterator[tuple[str, bytes]]:
    """Return the files in the output folders that are neither strangers' nor temporary."""
    for path, data in image.items():
        hidden = path.rsplit("/", 1)[-1].startswith(".") and path.endswith(".mlxd-tmp")
        if data is not None and path.startswith(("out/", "results/")) and path not in start and not hidden:
            yield path, data


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


class _at:  # noqa: N801 - used as a function
    """The image, in *root*, for as long as the block lasts."""

    def __init__(self, root: Path, image: Image) -> None:
        self._root, self._image = root, image

    def __enter__(self) -> None:
        materialise(self._image, self._root)

    def __exit__(self, *_: object) -> None:
        for path in self._root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
