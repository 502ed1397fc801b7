"""Where plugins come from: our own modules, installed packages, single files. Finding them imports nothing."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

#: The plugins that ship with mlxd, in the order they are loaded.
BUILTINS: Final = (
    "plugins.generate",
    "plugins.transcribe",
    "plugins.batch",
    "plugins.pipeline",
    "plugins.lm",
    "plugins.whisper",
    "plugins.pull",
    "plugins.deliver",
)

#: A single file ``shout.py`` is imported under this prefix, so that it can never stand in for a real module.
FILE_PREFIX: Final = "mlxd_plugin_"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One plugin that was found, and how to import it."""

    #: What people call it in ``plugins.disabled`` and see in ``mlxd plugins``.
    name: str
    #: "builtin", "entry-point" or "file".
    kind: str
    #: Module, distribution or path, for people.
    origin: str
    #: Imports it and returns the module or object that has the hooks.
    load: Callable[[], Any]
    version: str | None = None
    #: Why it must not be loaded, if so.
    refused: str | None = None
    #: Changes when a single file's content does.
    stamp: bytes = b""


def builtins(modules: Collection[str] = BUILTINS) -> list[Source]:
    """Return the plugins that ship with mlxd."""
    return [
        Source(name=module.rpartition(".")[2], kind="builtin", origin=module, load=_importer(module))
        for module in modules
    ]


def _importer(module: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(module)


def installed(group: str) -> list[tuple[Source, str]]:
    """Return the entry points of *group* with the name of the distribution each comes from."""
    found = []
    for point in importlib.metadata.entry_points(group=group):
        distribution = point.dist.name if point.dist else ""
        version = point.dist.version if point.dist else None
        origin = f"{distribution} ({point.value})"
        source = Source(name=point.name, kind="entry-point", origin=origin, load=point.load, version=version)
        found.append((source, distribution))
    return sorted(found, key=lambda pair: (pair[0].name, pair[1]))


def single_files(folder: Path) -> list[Source]:
    """Return the single-file plugins in *folder*, each refused if somebody else could have written it."""
    if not folder.is_dir():
        return []
    unsafe = _unsafe(folder)
    return [_single_file(path, unsafe) for path in _candidates(folder)]


def _candidates(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.suffix == ".py" and not path.name.startswith((".", "_")):
            yield path


def _single_file(path: Path, folder_unsafe: str | None) -> Source:
    refused, stamp = folder_unsafe or _unsafe(path), b""
    if refused is None and path.is_symlink():
        refused = _unsafe(path.resolve().parent)
    if refused is None:
        try:
            stamp = path.read_bytes()
        except OSError as error:
            refused = f"cannot be read: {error.strerror}"
    load = _file_importer(path)
    return Source(name=path.stem, kind="file", origin=str(path), load=load, refused=refused, stamp=stamp)


def _unsafe(path: Path) -> str | None:
    """Return why code at *path* must not be run: others may have put it there."""
    try:
        found = path.stat()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if path.suffix == ".py" and not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file"
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user; plugins run with your rights, so mlxd refuses it"
    if found.st_mode & 0o022:
        return f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod go-w '{path}'"
    return None


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles each time and leaves no ``__pycache__`` in the person's folder."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _file_importer(path: Path) -> Callable[[], Any]:
    def load() -> Any:
        name = FILE_PREFIX + path.stem
        spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
        if spec is None or spec.loader is None:  # only for a loader that refuses, which ours does not
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # pydantic looks up annotations there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module

    return load
