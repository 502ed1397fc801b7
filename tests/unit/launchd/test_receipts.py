"""`launchd.receipts`: what a person changed is neither overwritten nor removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from launchd.contract import ServiceFailure
from launchd.receipts import Condition, Receipt, Receipts, fingerprint, install, remove

FILES = {"Contents/Info.plist": b"info", "Contents/document.wflow": b"flow"}


@pytest.fixture(name="bundle")
def _bundle(tmp_path: Path) -> Receipt:
    return placed(tmp_path / "Services" / "It's.workflow")


def placed(path: Path) -> Receipt:
    files = install(path, FILES, known=None)
    return Receipt(name="it", kind="quick-action", title="It's", path=path, files=files)


def change(bundle: Receipt, how: str) -> None:
    inner = bundle.path / "Contents" / "document.wflow"
    if how == "edited":
        inner.write_bytes(b"flow!")
    elif how == "more":
        (bundle.path / "Contents" / "notes").write_text("mine")
    elif how == "less":
        inner.unlink()
    elif how == "linked file":
        inner.unlink()
        inner.symlink_to("Info.plist")
    elif how == "linked folder":
        (bundle.path / "more").symlink_to("/tmp")
    else:
        shutil.move(bundle.path, bundle.path.with_name("elsewhere"))
        bundle.path.symlink_to("elsewhere")


CHANGES = ["edited", "more", "less", "linked file", "linked folder", "linked bundle"]


def test_installing_and_removing(bundle: Receipt) -> None:
    """What was installed is whole, private to nobody, and goes without a trace."""
    assert {inner: (bundle.path / inner).read_bytes() for inner in FILES} == FILES
    assert bundle.condition() is Condition.INSTALLED
    assert [path.name for path in bundle.path.parent.iterdir()] == ["It's.workflow"]
    assert remove(bundle)
    assert bundle.condition() is Condition.GONE
    assert not remove(bundle)
    assert list(bundle.path.parent.iterdir()) == []


@pytest.mark.parametrize("how", CHANGES)
def test_what_was_changed_stays(bundle: Receipt, how: str) -> None:
    """Whatever the person did to it: it is neither removed nor replaced, unless that is asked for."""
    change(bundle, how)
    assert bundle.condition() is Condition.CHANGED
    with pytest.raises(ServiceFailure, match="--force"):
        remove(bundle)
    with pytest.raises(ServiceFailure, match="--force"):
        install(bundle.path, FILES, known=bundle)
    assert os.path.lexists(bundle.path)
    assert remove(bundle, force=True)
    assert not os.path.lexists(bundle.path)


@pytest.mark.parametrize("how", CHANGES)
def test_force_replaces(bundle: Receipt, how: str) -> None:
    """And then it is as new; what a link led to is left alone."""
    change(bundle, how)
    assert install(bundle.path, FILES, known=bundle, force=True) == bundle.files
    assert bundle.condition() is Condition.INSTALLED
    if how == "linked bundle":
        assert (bundle.path.with_name("elsewhere") / "Contents").is_dir()


def test_finders_litter_is_no_change(bundle: Receipt) -> None:
    """A .DS_Store comes from looking at the folder."""
    (bundle.path / ".DS_Store").write_bytes(b"x")
    assert bundle.condition() is Condition.INSTALLED
    assert remove(bundle)


def test_a_strangers_file_is_not_taken(tmp_path: Path) -> None:
    """Something of that name which we did not install stays; the same content may be adopted after a crash."""
    path = tmp_path / "x.workflow"
    path.write_text("theirs")
    with pytest.raises(ServiceFailure, match="not from mlxd"):
        install(path, FILES, known=None)
    assert path.read_text() == "theirs"
    assert install(path, FILES, known=None, force=True)
    assert install(path, FILES, known=None) == fingerprint(path)


def test_a_newer_version_replaces_what_is_unchanged(bundle: Receipt) -> None:
    """Installing again is how a new version, or a new configuration, arrives."""
    assert install(bundle.path, {"Contents/document.wflow": b"new"}, known=bundle) != bundle.files
    assert [path.name for path in (bundle.path / "Contents").iterdir()] == ["document.wflow"]


def test_a_single_file(tmp_path: Path) -> None:
    """A launcher is made executable, a shortcut is not."""
    for data, mode in ((b"#!/bin/sh\n", 0o700), (b"bplist00", 0o644)):
        path = tmp_path / f"{mode}"
        files = install(path, {"": data}, known=None)
        assert list(files) == [""]
        assert path.stat().st_mode & 0o777 == mode
        assert remove(Receipt(name="x", kind="launcher", title="", path=path, files=files))


def test_receipts_are_kept(tmp_path: Path, bundle: Receipt) -> None:
    """In a file of one's own, one for each path, the last word counting."""
    receipts = Receipts(tmp_path / "state" / "shortcuts.json")
    assert receipts.all() == []
    other = placed(tmp_path / "\u00fc.workflow")
    receipts.add(bundle)
    receipts.add(other)
    receipts.add(bundle)
    assert receipts.all() == [other, bundle]
    assert receipts.at(bundle.path) == bundle
    receipts.drop(bundle)
    assert Receipts(tmp_path / "state" / "shortcuts.json").all() == [other]
    assert (tmp_path / "state" / "shortcuts.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"receipts": [1]}', '{"receipts": [{"name": "x"}]}', "\udcff"])
def test_damaged_receipts_are_said(tmp_path: Path, text: str) -> None:
    """Nothing is guessed, nothing is removed."""
    (path := tmp_path / "r.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ServiceFailure, match="damaged"):
        Receipts(path).all()
    path.unlink()
    path.mkdir()
    with pytest.raises(ServiceFailure, match="Cannot read"):
        Receipts(path).all()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """With the path, and nothing half done."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceFailure, match="Cannot write"):
        install(tmp_path / "file" / "x.workflow", FILES, known=None)
