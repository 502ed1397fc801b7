"""What was installed, file by file: so that nothing a person changed is ever overwritten or removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from launchd.contract import ServiceFailure
from launchd.files import write_file

_VERSION: Final = 1
#: Finder leaves it in every folder it has shown; it is nobody's change.
_LITTER: Final = frozenset({".DS_Store"})


class Condition(StrEnum):
    """What became of something installed."""

    INSTALLED = "installed"
    #: Somebody edited it, or put something into it.
    CHANGED = "changed"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One file or bundle that was installed."""

    #: Short name, as in ``mlxd shortcuts remove NAME``.
    name: str
    #: "quick-action", "shortcut", "folder-action", "launcher".
    kind: str
    title: str
    #: Absolute.
    path: Path
    #: Path within a bundle ("" for a single file) -> hexadecimal SHA-256.
    files: Mapping[str, str]
    #: What a folder action is bound to.
    bound: str = ""

    def condition(self) -> Condition:
        """Compare what is on the disk with what was installed."""
        if not os.path.lexists(self.path):
            return Condition.GONE
        return Condition.INSTALLED if fingerprint(self.path) == dict(self.files) else Condition.CHANGED


class Receipts:
    """The receipts of one home, in the JSON file *path*.

    Raises:
        ServiceFailure: the file cannot be read or written, or is not ours.

    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Receipt]:
        """Return the receipts in the order of installing."""
        try:
            raw = json.loads(self._path.read_bytes())
            return [_receipt(one) for one in raw["receipts"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ServiceFailure(f"Cannot read {self._path}: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceFailure(f"{self._path} is damaged. Move it away; then what it told of is yours.") from error

    def at(self, path: Path) -> Receipt | None:
        """Return the receipt of what was installed at *path*."""
        return next((one for one in self.all() if one.path == path), None)

    def add(self, receipt: Receipt) -> None:
        """Note *receipt* in place of an earlier one for the same path."""
        self._write([*(one for one in self.all() if one.path != receipt.path), receipt])

    def drop(self, receipt: Receipt) -> None:
        """Forget *receipt*."""
        self._write(one for one in self.all() if one.path != receipt.path)

    def _write(self, receipts: Iterable[Receipt]) -> None:
        listed = [{**asdict(one), "path": str(one.path)} for one in receipts]
        text = json.dumps({"version": _VERSION, "receipts": listed}, indent=1, ensure_ascii=False) + "\n"
        write_file(self._path, text.encode(), mode=0o600)


def fingerprint(path: Path) -> dict[str, str]:
    """Return path within -> SHA-256 of everything at *path*, a file or a folder; links are not followed."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        return {"": _digest(path)}
    found = {}
    for folder, folders, names in os.walk(path):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*names, *links):
            if name not in _LITTER:
                inner = Path(folder, name)
                found[inner.relative_to(path).as_posix()] = _digest(inner)
    return dict(sorted(found.items()))


def install(path: Path, files: Mapping[str, bytes], *, known: Receipt | None, force: bool = False) -> dict[str, str]:
    """Put *files* at *path* (a bundle; or a single file, whose path within is "") and return their fingerprint.

    *known* is the receipt of an earlier installation there. With *force* whatever is there is replaced.

    Raises:
        ServiceFailure: something is there that we did not install, or that was changed since; or it cannot be written.

    """
    try:
        if not force and os.path.lexists(path) and fingerprint(path) != _digests(files):
            _refuse_strangers(path, known)
        _put(path, files)
        return fingerprint(path)
    except OSError as error:
        raise ServiceFailure(f"Cannot write {path}: {error.strerror}.") from error


def remove(receipt: Receipt, *, force: bool = False) -> bool:
    """Remove what *receipt* tells of and return whether it was there.

    Raises:
        ServiceFailure: it was changed since (and not *force*), or it cannot be removed.

    """
    condition = receipt.condition()
    if condition is Condition.GONE:
        return False
    if condition is Condition.CHANGED and not force:
        raise ServiceFailure(
            f"{receipt.path} was changed since it was installed, so it stays. Remove it yourself, or with --force."
        )
    try:
        _delete(receipt.path)
    except OSError as error:
        raise ServiceFailure(f"Cannot remove {receipt.path}: {error.strerror}.") from error
    return True


def _refuse_strangers(path: Path, known: Receipt | None) -> None:
    if known is None:
        raise ServiceFailure(f"{path} is there already, and not from mlxd. Move it away, or replace it with --force.")
    if known.condition() is Condition.CHANGED:
        raise ServiceFailure(
            f"{path} was changed since it was installed, so it stays. Rename it, or replace it with --force."
        )


def _put(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if set(files) == {""}:
        write_file(path, files[""], mode=0o700 if files[""].startswith(b"#!") else 0o644)
        return
    # Whole or not at all: beside, then a rename; what was there before goes last.
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        new = work / "new"
        for name, data in files.items():
            write_file(new / name, data, mode=0o644)
        if os.path.lexists(path):
            path.rename(work / "old")
        new.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _delete(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"  # noqa: PTH115 - the text of the link, whatever it is
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "not a file"


def _receipt(raw: Mapping[str, Any]) -> Receipt:
    names = ("name", "kind", "title")
    files = {str(name): str(digest) for name, digest in raw["files"].items()}
    texts = {name: str(raw[name]) for name in names}
    return Receipt(**texts, path=Path(raw["path"]), files=files, bound=str(raw.get("bound", "")))
