"""The hash of everything a job reads: its parameters with every file in them replaced by what is in it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from jobs.files import open_below
from jobs.provenance import InputFile

_CHUNK: Final = 1 << 20
#: Longer strings are texts, not paths.
_LONGEST_PATH: Final = 1024


class _Changed(NamedTuple):
    """A file's state, to notice a change of it while the job read it."""

    size: int
    modified: int
    inode: int


class Inputs(NamedTuple):
    """What a job reads."""

    #: Its parameters with contents in place of paths; None: something (a folder) has no content to compare.
    params: dict[str, Any] | None
    #: The file or folder it works on.
    input: InputFile | None
    files: Mapping[Path, _Changed]

    def checked(self) -> Inputs:
        """Return what is still true now: a file that changed meanwhile has no known content."""
        if all(_state(path) in (state, None) for path, state in self.files.items()):
            return self
        changed = self.input.model_copy(update={"sha256": None}) if self.input else None
        return Inputs(None, changed, {})


class _NoContent(Exception):
    """There is no content to hash."""


def hash_inputs(params: BaseModel, *, follow: bool, below: Path | None = None, check: Callable[[], None]) -> Inputs:
    """Read what *params* name. With *follow* false links are refused, also on the way below *below*.

    *check* is called between pieces, and may raise.

    A file that cannot be read has no content: the task will say what is wrong with it.
    """
    files: dict[Path, tuple[_Changed, str]] = {}

    def content(path: Path) -> str:
        if path not in files:
            files[path] = _digest(path, follow=follow, below=below, check=check)
        return f"sha256:{files[path][1]}"

    said = params.model_dump(mode="python")
    named = said.get("file") or said.get("folder")
    try:
        hashed: dict[str, Any] | None = _hashed(said, content)
    except (OSError, _NoContent):
        hashed = None
    found = None
    if isinstance(named, Path):
        state, digest = files.get(named, (None, None))
        found = InputFile(path=str(named), size=state.size if state else None, sha256=digest)
    return Inputs(hashed, found, {path: state for path, (state, _) in files.items()})


def _hashed(value: Any, content: Callable[[Path], str]) -> Any:
    if isinstance(value, Path):
        return content(value)
    if isinstance(value, str) and value.startswith("/") and len(value) < _LONGEST_PATH and Path(value).is_file():
        return content(Path(value))  # a step's parameters hold paths as plain texts
    if isinstance(value, Mapping):
        return {name: _hashed(one, content) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hashed(one, content) for one in value]
    return value


def _digest(path: Path, *, follow: bool, below: Path | None, check: Callable[[], None]) -> tuple[_Changed, str]:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags) if follow else open_below(path, flags, root=below)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _NoContent
        digest = hashlib.sha256()
        while piece := os.read(descriptor, _CHUNK):
            digest.update(piece)
            check()
    finally:
        os.close(descriptor)
    return _Changed(before.st_size, before.st_mtime_ns, before.st_ino), digest.hexdigest()


def _state(path: Path) -> _Changed | None:
    """Return a file's state; None when it is gone, which does not change what was read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Changed(found.st_size, found.st_mtime_ns, found.st_ino)
