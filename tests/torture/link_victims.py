"""What mlxd does with files of a watched folder, one round at a time, while somebody swaps them for links."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from daemon.config.folders import FolderConfig
from daemon.folders.complaints import Complaints
from daemon.folders.finder import Finder
from daemon.folders.intake import Intake
from daemon.folders.trash import Trash
from daemon.hashing import hash_inputs
from jobs.errors import InvalidInput, JobNotFound, OutputError
from jobs.inputs import clear_error_sidecar, settle_input, write_error_sidecar
from jobs.model import After, Job, NewJob, OutputFile, Placement
from jobs.outputs import OutputWriter
from plugins.inputs import opening, read_text
from torture.link_swapper import HARMLESS, SECRET, Field

_SECRET_DIGEST: Final = hashlib.sha256(SECRET).hexdigest()
_HARMLESS_DIGEST: Final = hashlib.sha256(HARMLESS).hexdigest()


class Params(BaseModel):
    """Of a task that reads a file."""

    file: Path


class Reader:
    """Finds the file, takes it, and reads it as a job does. Counts what it got to see."""

    def __init__(self, at: Field) -> None:
        self._at = at
        self._folder = FolderConfig(path=at.root, task="generate", match="*.txt")
        self._finder = Finder(self._folder, complaints=Complaints())
        self._intake = Intake(submit=self._submit, ledger=self, takes=lambda _task: {"front_matter"})  # type: ignore[arg-type]
        self._placement = Placement(input=at.file, root=at.root)
        #: Rounds in which the finder met somebody else's file, and in which the harmless file was read.
        self.met = self.harmless = 0
        #: What of the secret was read, a sentence each.
        self.leaks: list[str] = []

    def round(self) -> None:
        """Do all of it once."""
        self._take()
        with contextlib.suppress(InvalidInput):
            self._saw(read_text(self._at.file, limit=1 << 20, **opening(self._placement)).encode(), "a task")
        hashed = hash_inputs(Params(file=self._at.file), **opening(self._placement), check=lambda: None)
        if hashed.input and hashed.input.sha256 == _SECRET_DIGEST:
            self.leaks.append("a sidecar would have had the secret's hash")

    def _take(self) -> None:
        relative = str(self._at.file.relative_to(self._at.root))
        for found in self._finder.at(relative):
            self.met += found.facts.size == len(SECRET)
            rule = self._finder.rule(relative, found.facts)
            assert rule is not None
            with self._reading():
                self._intake.file(self._folder, self._at.file, rule=rule, facts=found.facts)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Note when the secret is read from, even if nothing comes of it."""
        real, secret = os.read, self._at.secret().stat()

        def read(file: int, count: int) -> bytes:
            if os.path.samestat(os.fstat(file), secret):
                self.leaks.append("the watcher read the secret")
            return real(file, count)

        os.read = read
        try:
            yield
        finally:
            os.read = real

    def _saw(self, content: bytes, who: str) -> None:
        self.harmless += content.strip() == HARMLESS.strip()
        if content.strip() == SECRET.strip():
            self.leaks.append(f"{who} read the secret")

    # What intake asks of the service and the ledger: it knows nothing, so that every round reads the file.

    def _submit(self, new: NewJob, *, seen: tuple[Path, str] | None = None) -> tuple[Job, bool]:
        key = (seen or (None, ""))[1]
        self.harmless += _HARMLESS_DIGEST in key
        if _SECRET_DIGEST in key:
            self.leaks.append("the secret became a job's input")
        raise InvalidInput(str(new.task))

    def seen(self, *_: Any) -> None:
        """Know nothing."""

    remember = seen

    def get(self, job_id: str) -> Job:
        """Know no job."""
        raise JobNotFound(job_id)

    def is_output(self, _path: Path) -> bool:
        """Have written nothing."""
        return False


class Writer:
    """Writes results and reports, and puts the input away. Counts what arrived."""

    def __init__(self, at: Field, trash: Path, *, rooted: bool = True) -> None:
        """With *rooted* false it does not know where links begin to matter: the control."""
        self._at = at
        self._root = at.root if rooted else None
        self._real = os.open(at.file.parent, os.O_RDONLY | os.O_DIRECTORY)
        self._trash = Trash(trash, system=False)
        self._outside = _tree(at.outside)
        self._number = 0
        #: Writes and moves that were done, and that were refused.
        self.done = self.refused = 0
        #: What happened outside, a sentence each.
        self.escapes: list[str] = []

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._real)

    def round(self) -> None:
        """Do all of it once, then look whether anything outside has changed."""
        self._number += 1
        for directory in (self._at.file.parent, self._at.file.parent / "results"):
            self._try(lambda directory=directory: self._write(directory))
        self._try(lambda: write_error_sidecar(self._at.file, "no", root=self._root))
        self._try(lambda: clear_error_sidecar(self._at.file, root=self._root))
        self._input()
        after = After.DONE if self._number % 2 else After.DELETE
        self._try(lambda: settle_input(self._at.file, after, root=self._root, discard=self._discard))
        if (now := _tree(self._at.outside)) != self._outside:
            self.escapes.append(f"outside: {sorted(set(now) ^ set(self._outside)) or 'a content'}"[:200])
            self._outside = now

    def _discard(self, path: Path) -> None:
        self._trash.put(path, root=self._root)

    def _write(self, directory: Path) -> None:
        writer = OutputWriter(directory, job_id="j", intend=_nothing, mine={}, root=self._root)
        writer.write(f"out{self._number}.txt", b"x")

    def _try(self, action: Any) -> None:
        try:
            action()
        except (OutputError, OSError):
            self.refused += 1
        else:
            self.done += 1

    def _input(self) -> None:
        """Put the input back, into the real folder, wherever that is just now, whatever is in its place."""
        name = f".again{self._number}"
        file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=self._real)
        os.write(file, HARMLESS)
        os.close(file)
        if self._number == 1 or not _is_link(self._at.file.name, self._real):
            os.rename(name, self._at.file.name, src_dir_fd=self._real, dst_dir_fd=self._real)
        else:
            os.unlink(name, dir_fd=self._real)


def _nothing(_output: OutputFile) -> None:
    """Note no intent."""


def _is_link(name: str, folder: int) -> bool:
    try:
        return os.path.stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _tree(top: Path) -> dict[str, int]:
    """Return every path below *top*, with its length."""
    return {path: os.lstat(path).st_size for path in _paths(str(top))}


def _paths(top: str) -> Iterator[str]:
    with os.scandir(top) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _paths(entry.path)
