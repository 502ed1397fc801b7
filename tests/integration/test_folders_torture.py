"""Watched folders under many random changes: whatever happens in whatever order, nothing is missed or done twice."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import FakeLedger, watching

from daemon.config.folders import FolderConfig
from daemon.folders.file_events import make_observer

CHANGES = 400


class Chaos:
    """Makes, grows, renames, replaces, moves and removes files; knows which contents must have been seen in the end."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.number = 0

    def change(self) -> None:
        self.random.choice(
            [self.make, self.make, self.make, self.grow, self.rename, self.replace, self.remove, self.move, self.trap]
        )()

    def make(self) -> None:
        self.number += 1
        suffix = self.random.choice([".txt", ".txt", ".wav", ".part", ".tmp"])
        folder = self.root / self.random.choice(["", "a", "a/b", "c", "done", ".git"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.number}{suffix}").write_text(f"content {self.number}")

    def grow(self) -> None:
        if path := self.any_file():
            with path.open("a") as file:
                file.write("+")

    def rename(self) -> None:
        if path := self.any_file():
            self.number += 1
            path.rename(path.with_name(f"{self.number}.txt"))

    def replace(self) -> None:
        if path := self.any_file():
            self.number += 1
            new = path.with_name(f".{self.number}.swp")
            new.write_text(f"replaced {self.number}")
            new.replace(path)

    def remove(self) -> None:
        if path := self.any_file():
            path.unlink()

    def move(self) -> None:
        folders = [path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink()]
        if folders:
            self.number += 1
            self.random.choice(folders).rename(self.root / f"moved{self.number}")

    def trap(self) -> None:
        self.number += 1
        if self.random.random() < 0.5:
            (self.root / f"{self.number}.txt").symlink_to("/etc/passwd")
        else:
            os.mkfifo(self.root / f"{self.number}.txt")

    def any_file(self) -> Path | None:
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]
        return self.random.choice(sorted(files)) if files else None

    def stable(self) -> set[str]:
        """Return the digests of the contents that lie where they count."""
        return {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.root.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and path.suffix in (".txt", ".wav")
            and not {"done", ".git"} & set(path.relative_to(self.root).parts)
        }


class Reading(FakeLedger):
    """Notes the content that every job was made for, by its digest: the file itself may change at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: list[str] = []
        self.files: list[tuple[str, str]] = []

    def submit(self, new: Any, *, seen: Any = None) -> Any:
        path = Path(new.params["file"])
        assert not path.is_symlink()
        job, created = super().submit(new, seen=seen)
        if created:
            kind, digest, *_ = seen[1].split(":")
            assert kind == "content"
            self.contents.append(digest)
            self.files.append((digest, str(path)))
        return job, created


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("events", ["native", "off"])
def test_every_stable_file_is_one_job(tmp_path: Path, seed: int, events: str) -> None:
    """Each content that lies there in the end became a job, one for each name; no link was followed, no pipe opened."""
    root = tmp_path / "in"
    root.mkdir()
    chaos, ledger = Chaos(root, seed), Reading()
    folder = FolderConfig(path=root, task="x", match=("*.txt", "*.wav"), settle_seconds=0.02, events=events)
    options = {"rescan_seconds": 0.1 if events == "off" else 3600, "observer_factory": make_observer}
    with watching(folder, ledger=ledger, **options) as (watcher, _):
        watcher.rescan()
        for _ in range(CHANGES):
            chaos.change()
        wanted = chaos.stable()
        deadline = time.monotonic() + 30
        while not wanted <= set(ledger.contents):
            assert time.monotonic() < deadline, wanted - set(ledger.contents)
            watcher.rescan()
        assert watcher.status()[0].problem is None
    assert len(ledger.files) == len(set(ledger.files))
