"""SQLite on the simulated disk: everything it does is written down, and the ledger cannot tell it from sqlite3."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture.crash_cut import cut
from torture.crash_disk import Disk, Image, Op, Replay, of_folder, rng
from torture.crash_ledger import NAME, Life
from torture.crash_verdict import Promise, examine, promised
from torture.crash_vfs import CrashVfs
from torture.rows.power_ledger import Plan, Tally, attack

from jobs.errors import LedgerUnavailable
from jobs.ledger import Ledger
from jobs.model import NewJob


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[CrashVfs]:
    """A recording file system on a folder of its own."""
    root = tmp_path / "disk"
    root.mkdir()
    vfs = CrashVfs(root, Disk())
    yield vfs
    vfs.unregister()


def everything(disk: Disk) -> Image:
    """Return the image in which all that was done has reached the disk."""
    for inode in {event.inode for event in disk.events if event.op is not Op.MARK}:
        disk.sync(inode, full=True)
    replay = Replay(disk.events)
    replay.forward(len(disk.events))
    return cut(replay, random.Random(1))


@pytest.mark.parametrize("ended", [False, True])
def test_the_record_is_complete(tmp_path: Path, *, ended: bool) -> None:
    """Played back whole, it gives what really lies in the folder, byte by byte, while the ledger is open and after."""
    disk = Disk()
    life = Life(tmp_path, disk, random.Random("complete"), start={})
    life.run(60)
    if ended:
        life.end()
    assert of_folder(tmp_path, leave_out=["-shm"]) == everything(disk)
    if not ended:
        life.end()


def test_a_commit_is_lost_without_its_sync_and_not_with_it(vfs: CrashVfs, tmp_path: Path) -> None:
    """Just before the last sync of a durable commit some cuts lose it; just after, none does."""
    ledger = Ledger(vfs.root / NAME, connect=vfs.connect)
    ledger.add(NewJob(task="t", idempotency_key="the one"))
    end = len(vfs.disk.events)
    assert vfs.disk.events[-1].op is Op.FULL_SYNC
    ledger.close()
    place = tmp_path / "place"
    place.mkdir()
    assert {found(vfs.disk, place, end - 1, number) for number in range(20)} == {0, 1}
    assert {found(vfs.disk, place, end, number) for number in range(20)} == {1}


def found(disk: Disk, place: Path, at: int, number: int) -> int:
    """Return how many jobs plain sqlite3 finds after a cut."""
    replay = Replay(disk.events)
    replay.forward(at)
    for path, content in cut(replay, rng(number)).items():
        (place / path).write_bytes(content or b"")
    with contextlib.closing(sqlite3.connect(place / NAME)) as plain:
        ((count,),) = plain.execute("SELECT count(*) FROM jobs").fetchall()
    for path in place.iterdir():
        path.unlink()
    return int(count)


def test_a_new_ledger_opens_whenever_the_power_went_on_a_drive_with_a_cache(vfs: CrashVfs, tmp_path: Path) -> None:
    """At every moment of its making; a first page that no full sync protects would be "not a database" for ever."""
    Ledger(vfs.root / NAME, connect=vfs.connect).close()
    place = tmp_path / "place"
    place.mkdir()
    replay = Replay(vfs.disk.events, cached=True)
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no rows
    for at in range(0, min(60, len(vfs.disk.events)), 2):
        replay.forward(at)
        for number in range(3):
            random_ = rng(at, number)
            finding = examine(cut(replay, random_), place, [nothing], Promise(acknowledged=0, begun=0), random_)
            assert not finding.sentence, f"before event {at}: {finding.sentence}"


def test_errors_are_sqlite3s(vfs: CrashVfs) -> None:
    """What goes wrong below comes out as the same exceptions, with the same names."""
    connection = vfs.connect(vfs.root / "x")
    connection.execute("CREATE TABLE t (a UNIQUE)")
    connection.execute("INSERT INTO t VALUES (?)", (1,))
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute("INSERT INTO t VALUES (1)")
    assert caught.value.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE"
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        connection.execute("SELECT * FROM nowhere")
    connection.close()
    (vfs.root / "garbage").write_bytes(b"not a database at all, but quite long " * 40)
    with pytest.raises(LedgerUnavailable, match="Restore a copy"):
        Ledger(vfs.root / "garbage", connect=vfs.connect)


def test_the_checker_tells_lost_from_sound(tmp_path: Path) -> None:
    """A ledger without its last acknowledged change is found out; with it, it is sound; garbage is damaged."""
    disk, root, place = Disk(), tmp_path / "root", tmp_path / "place"
    root.mkdir()
    place.mkdir()
    life = Life(root, disk, random.Random("checker"), start={})
    life.run(10)
    life.end()
    image, promise = everything(disk), promised(disk.events, life.first)[-1]
    assert not examine(image, place, life.states, promise, random.Random(1)).sentence
    early = of_the_past(disk, life)
    assert examine(early, place, life.states, promise, random.Random(1)).lost > 0
    assert examine({NAME: b"\xff" * 9000}, place, life.states, promise, random.Random(1)).corrupt


def of_the_past(disk: Disk, life: Life) -> Image:
    """Return the disk as it was when half of the life had passed."""
    replay = Replay(disk.events)
    replay.forward(len(disk.events) // 2)
    return cut(replay, random.Random(1))


def test_the_attack_holds_and_its_control_does_not() -> None:
    """The row in small: FULL loses nothing, NORMAL does."""
    sound, broken = Tally(), Tally()
    attack(Plan(seeds=1, points=20, steps=20), sound, seed="test")
    attack(Plan(seeds=1, points=20, steps=20), broken, seed="test", synchronous="NORMAL")
    assert (sound.lost, sound.corrupt, sound.sentences) == (0, 0, [])
    assert broken.lost > 0
