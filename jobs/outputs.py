"""Result files: whole or not at all, never over a stranger's file, the same after a crash as without one.

A file is written in six steps, and the process may die between any two:

1. a temporary file, hidden, for us only, in the same folder;
2. its content, synced;
3. the intent: the ledger notes the final path and the content's SHA-256;
4. the final name, by a link that fails if the name is taken (or a rename, if the file there is this job's own);
5. the temporary name goes;
6. the folder is synced.

A repeated attempt knows its own files by path *and* content: after step 4 it keeps or replaces them, before it there
is nothing to find but the temporary file, which it replaces. A file with the intended name and other content is a
stranger's, and so is one that somebody has edited since.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from jobs.errors import OutputError
from jobs.failpoints import reach
from jobs.files import Files, explain
from jobs.inputs import clear_error_sidecar, settle_input, write_error_sidecar
from jobs.model import OutputFile
from jobs.names import LONGEST, numbered, safe_name, shortened

__all__ = ["OutputWriter", "clear_error_sidecar", "safe_name", "settle_input", "sweep", "write_error_sidecar"]

#: How many numbered names are tried; more files of one name are somebody's mistake.
_MOST: Final = 1000
#: How far beyond the first free name an earlier attempt's file is looked for.
_LOOK_BEYOND: Final = 16


def sweep(job_id: str, folders: Iterable[Path]) -> None:
    """Remove the job's temporary files in *folders*; no attempt of it may be writing."""
    ending = _ending(job_id)
    for folder in folders:
        with contextlib.suppress(OSError):  # not there yet, or not ours to read: nothing was left there
            for path in folder.iterdir():
                if path.name.startswith(".") and path.name.endswith(ending):
                    path.unlink()


class OutputWriter:
    """Writes the files of one attempt of the job *job_id* into *directory*.

    *intend* makes a file's coming durable (`Ledger.intend`). *mine* is what earlier attempts wrote or meant to write:
    path -> the SHA-256 of every content it may have (`Ledger.intended`). Below *root*, if *directory* lies there, no
    link is followed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        job_id: str,
        intend: Callable[[OutputFile], None],
        mine: Mapping[Path, Collection[str]],
        root: Path | None = None,
        files: Files | None = None,
    ) -> None:
        self._directory = directory.absolute()
        inside = root is not None and (root == self._directory or root in self._directory.parents)
        self._root = root if root is not None and inside else self._directory
        self._job_id = job_id
        self._intend = intend
        self._mine = {path: set(contents) for path, contents in mine.items()}
        self._files = files or Files()
        # A task may write from several threads; the choice of a name must not be interleaved.
        self._lock = threading.Lock()
        self._written: dict[Path, OutputFile] = {}
        #: Where the files went that this attempt was asked for, and who has each place.
        self._places: dict[Path, Path] = {}
        self._tenants: dict[Path, Path] = {}

    @property
    def directory(self) -> Path:
        """Where everything is written, absolute."""
        return self._directory

    def names(self) -> dict[str, Path]:
        """Return what this attempt was asked to write (relative names, made safe) and where it is."""
        with self._lock:
            return {str(wanted.relative_to(self._directory)): place for wanted, place in self._places.items()}

    def find(self, name: str) -> OutputFile | None:
        """Return the file that an earlier attempt wrote under *name*, if its content is still this job's."""
        if not self._mine:
            return None
        folders, wanted = self._wanted(name)
        with self._lock:
            if not self._directory.joinpath(*folders).is_dir():
                return None
            with self._folder(folders) as folder:
                own = self._own(wanted, folder)
                digest = self._files.digest(own.name, folder=folder) if own else None
                if own is None or not digest:
                    return None
                return OutputFile(path=own, size=os.stat(own.name, dir_fd=folder).st_size, sha256=digest)

    @property
    def outputs(self) -> tuple[OutputFile, ...]:
        """What this attempt wrote or kept, each path once, in the order of its first writing."""
        with self._lock:
            return tuple(self._written.values())

    def write(self, name: str, data: str | bytes) -> OutputFile:
        """Write *data* (text as UTF-8) under *name*, or the nearest free name, and return what is on disk now.

        *name* may have folders in it; each part is made safe, and all stay under the directory.

        Raises:
            OutputError: it could not be written; nothing half-written is left.

        """
        content = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
        folders, wanted = self._wanted(name)
        with self._lock:
            try:
                with self._folder(folders) as folder:
                    output = self._write(wanted, content, folder)
            except OSError as error:
                raise explain(error, wanted, needs=len(content)) from error
            self._places[wanted], self._tenants[output.path] = output.path, wanted
            self._written[output.path] = output
            return output

    def sweep(self) -> None:
        """Remove the temporary files of attempts that died while writing; call it before the first `write`."""
        sweep(self._job_id, {self._directory, *(path.parent for path in self._mine)})

    def _wanted(self, name: str) -> tuple[list[str], Path]:
        *folders, name = [safe_name(part) for part in name.split("/") if part not in {"", ".", ".."}] or [safe_name("")]
        return folders, self._directory.joinpath(*folders, name)

    @contextlib.contextmanager
    def _folder(self, parts: list[str]) -> Iterator[int]:
        below = self._directory.relative_to(self._root).parts
        folder = self._files.open_folder(self._root, [*below, *parts])
        try:
            yield folder
        finally:
            os.close(folder)

    def _write(self, wanted: Path, content: bytes, folder: int) -> OutputFile:
        digest = hashlib.sha256(content).hexdigest()
        temporary = self._temporary(wanted.name)
        own = self._own(wanted, folder)
        if own is not None and self._files.digest(own.name, folder=folder) == digest:
            # The last attempt may have died right after step 4: make sure of the others.
            reach("output.kept")
            self._files.remove(temporary, folder=folder)
            self._files.sync(folder)
            return OutputFile(path=own, size=len(content), sha256=digest)
        try:
            self._fill(temporary, content, folder)
            output = OutputFile(path=wanted, size=len(content), sha256=digest)
            output = self._name(temporary, wanted, own, output, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.remove(temporary, folder=folder)
            raise
        reach("output.settled")
        return output

    def _fill(self, temporary: str, content: bytes, folder: int) -> None:
        """Take steps 1 and 2."""
        file = self._files.create(temporary, folder=folder)
        try:
            reach("output.created")
            self._files.write(file, content)
            self._files.publish(file, folder=folder)
            reach("output.filled")
            self._files.sync(file)
            reach("output.synced")
        finally:
            os.close(file)

    def _name(self, temporary: str, wanted: Path, own: Path | None, output: OutputFile, folder: int) -> OutputFile:
        """Take steps 3 to 6."""
        if own is not None:
            output = self._intended(output, own)
            self._files.replace(temporary, own.name, folder=folder)
            reach("output.replaced")
            self._files.sync(folder)
            return output
        for number in range(1, _MOST):
            path = wanted.with_name(numbered(wanted.name, number))
            if self._files.taken(path.name, folder=folder):
                continue
            output = self._intended(output, path)
            if self._files.link(temporary, path.name, folder=folder):
                reach("output.named")
                self._files.sync(folder)
                return output
        raise OutputError(f"There are too many files named like {wanted}. Move some away.", path=str(wanted))

    def _intended(self, output: OutputFile, path: Path) -> OutputFile:
        output = output.model_copy(update={"path": path})
        self._intend(output)
        reach("output.intended")
        self._mine.setdefault(path, set()).add(output.sha256)
        return output

    def _own(self, wanted: Path, folder: int) -> Path | None:
        """Return the file of this job that stands for *wanted*, if there is one with content of ours."""
        if not self._mine:
            return None
        first_free = None
        for number in range(1, _MOST):
            path = wanted.with_name(numbered(wanted.name, number))
            contents = self._mine.get(path, ()) if self._tenants.get(path, wanted) == wanted else ()
            if contents and self._files.digest(path.name, folder=folder) in contents:
                return path
            if first_free is None and not self._files.taken(path.name, folder=folder):
                first_free = number
            if first_free is not None and number >= first_free + _LOOK_BEYOND:
                return None
        return None

    def _temporary(self, name: str) -> str:
        ending = _ending(self._job_id)
        return f".{shortened(name, LONGEST - 1 - len(ending.encode()))}{ending}"


def _ending(job_id: str) -> str:
    return f".{job_id}.mlxd-tmp"
