"""A disk that is full, broken, locked, read-only or damaged: one clear sentence, nothing accepted, then on again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes_jobs import Disk

from jobs.errors import LedgerUnavailable
from jobs.ledger import Ledger
from jobs.model import Job, NewJob, Progress, State


@pytest.fixture
def disk() -> Disk:
    """A disk that can be broken."""
    return Disk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger lies."""
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path, disk: Disk) -> Iterator[Ledger]:
    """A ledger on that disk."""
    ledger = Ledger(path, connect=disk.connect)
    yield ledger
    ledger.close()


def add(ledger: Ledger) -> Job:
    return ledger.add(NewJob(task="t", params={"text": "x" * 5000}))[0]


@pytest.mark.parametrize(
    ("name", "message", "advice"),
    [
        ("SQLITE_FULL", "database or disk is full", "Free some space"),
        ("SQLITE_IOERR_FSYNC", "disk I/O error", "Check the disk"),
        ("SQLITE_BUSY", "database is locked", "another program"),
        ("SQLITE_SOMETHING", "never heard of", "never heard of"),
    ],
)
def test_a_failed_commit_is_not_acknowledged(ledger: Ledger, disk: Disk, name: str, message: str, advice: str) -> None:
    """The caller gets a sentence to act on; the job, the claim and the end did not happen; afterwards all works."""
    kept, running = add(ledger), add(ledger)
    claimed = ledger.claim(running.id, "me")
    assert claimed is not None
    opened = disk.opened
    disk.break_commits(name, message)
    for write in (
        lambda: ledger.add(NewJob(task="t", idempotency_key="k")),
        lambda: ledger.claim(kept.id, "me"),
        lambda: ledger.finish(claimed.id, claimed.fence, {}, []),
        lambda: ledger.progress(claimed.id, claimed.fence, Progress()),
    ):
        with pytest.raises(LedgerUnavailable, match=advice) as caught:
            write()
        assert caught.value.facts["sqlite"] == name
        assert "Nothing was accepted" in caught.value.message
    assert ledger.find(newest_first=False) == [kept, claimed]
    disk.repair()
    assert ledger.add(NewJob(task="t", idempotency_key="k"))[1]
    assert ledger.finish(claimed.id, claimed.fence, {}, []).state is State.SUCCEEDED
    # Each failure threw its connection away: after a failed sync a file handle may claim what is not on the disk.
    assert disk.opened >= opened + 4


def test_a_full_disk_is_told_from_the_real_error(ledger: Ledger) -> None:
    """SQLite's own "database or disk is full", in the middle of a transaction, leaves the ledger as it was."""
    first = add(ledger)
    with ledger._db.write("add") as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerUnavailable, match="the disk is full"):
        [add(ledger) for _ in range(10)]
    assert ledger.find()[-1] == first
    # The next connection knows no such limit: as if somebody had freed some space.
    assert add(ledger).seq > first.seq


def test_a_read_only_file_is_told(ledger: Ledger) -> None:
    """A ledger that may not be written says what to check."""
    with ledger._db.write("add") as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable, match="Check the permissions"):
        add(ledger)


def test_a_foreign_lock_is_told_and_passes(ledger: Ledger, path: Path) -> None:
    """While another program writes, reading goes on and writing says who is in the way; then it goes on too."""
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="another program holds it locked"):
        add(ledger)
    assert ledger.find() == []
    foreign.execute("ROLLBACK")
    foreign.close()
    assert [add(ledger)] == ledger.find()


@pytest.mark.parametrize(
    "content", [b"not a database at all, but quite long " * 40, b"SQLite format 3\0" + b"\xff" * 4080]
)
def test_a_damaged_file_is_refused_and_kept(path: Path, content: bytes) -> None:
    """Garbage in the ledger's place is not overwritten: somebody may want to rescue it."""
    path.write_bytes(content)
    with pytest.raises(LedgerUnavailable, match=r"Restore a copy|Check the disk") as caught:
        Ledger(path)
    assert caught.value.facts["path"] == str(path)
    assert path.read_bytes() == content


def test_a_newer_ledger_is_refused_untouched(path: Path) -> None:
    """An older program opens nothing that a newer one wrote."""
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="newer mlxd"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_folder_in_the_ledgers_place_is_told(path: Path) -> None:
    """A path that cannot be opened gives a sentence, not a traceback."""
    path.mkdir()
    with pytest.raises(LedgerUnavailable, match="cannot be opened"):
        Ledger(path)
    with pytest.raises(LedgerUnavailable, match="cannot be opened"):
        Ledger(Path("/proc/nowhere/ledger"))


def test_an_error_of_the_caller_rolls_back(ledger: Ledger) -> None:
    """Whatever ends a transaction early, nothing of it stays and the writer is free again."""
    job = add(ledger)

    def interrupted() -> None:
        with ledger._db.write("add") as connection:
            connection.exec_driver_sql("DELETE FROM jobs")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ledger.find() == [job]
    assert add(ledger).seq == job.seq + 1


def test_one_key_from_many_threads_is_one_job(ledger: Ledger) -> None:
    """Of many simultaneous submits with one key exactly one creates the job, and all return it."""
    start = threading.Barrier(8)

    def submit(_: int) -> tuple[str, bool]:
        start.wait()
        job, created = ledger.add(NewJob(task="t", idempotency_key="same"), seen=None)
        return job.id, created

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert len({job for job, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1


def test_one_key_from_two_programs_is_one_job(ledger: Ledger, path: Path) -> None:
    """The unique index holds between two openings of the file too."""
    other = Ledger(path)
    job, _ = ledger.add(NewJob(task="t", idempotency_key="same"))
    assert other.add(NewJob(task="t", idempotency_key="same")) == (job, False)
    other.close()


def test_one_job_goes_to_one_of_many_claimants(ledger: Ledger) -> None:
    """Threads that claim the same jobs at once get each job once, while others read."""
    jobs = [add(ledger) for _ in range(20)]
    start = threading.Barrier(4)

    def claim_all(owner: int) -> list[str]:
        start.wait()
        taken = [ledger.claim(job.id, str(owner)) for job in jobs]
        assert sum(ledger.counts().values()) == len(jobs)
        return [job.id for job in taken if job is not None]

    with ThreadPoolExecutor(4) as pool:
        taken = [job for part in pool.map(claim_all, range(4)) for job in part]
    assert sorted(taken) == sorted(job.id for job in jobs)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_taken_away_accepts_nothing(ledger: Ledger, path: Path, *, replaced: bool) -> None:
    """A job written into a file that has no name any more would be lost at the next start; put back, all goes on."""
    job = add(ledger)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    if replaced:
        path.write_bytes(b"")
    for use in (lambda: add(ledger), lambda: ledger.claim(job.id, "me"), ledger.counts, lambda: ledger.get(job.id)):
        with pytest.raises(LedgerUnavailable, match="was deleted, moved or replaced"):
            use()
    assert not replaced or path.read_bytes() == b""
    aside.replace(path)
    assert [add(ledger), job] == ledger.find()


def test_the_last_write_is_remembered(ledger: Ledger, disk: Disk) -> None:
    """While writing fails, reading may go on: `problem` says so until a write succeeds."""
    assert ledger.problem is None
    disk.break_commits("SQLITE_FULL", "database or disk is full")
    with pytest.raises(LedgerUnavailable):
        add(ledger)
    assert ledger.counts()[State.QUEUED] == 0
    assert "the disk is full" in str(ledger.problem)
    disk.repair()
    add(ledger)
    assert ledger.problem is None


def test_a_probe_finds_out_whether_the_problem_has_passed(ledger: Ledger, disk: Disk) -> None:
    """Nobody need submit anything for a degraded ledger to be well again; the probe changes nothing."""
    told: list[str | None] = []
    ledger.on_problem(lambda: told.append(ledger.problem))
    job = add(ledger)
    disk.break_commits("SQLITE_FULL", "database or disk is full")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            add(ledger)
    assert not ledger.probe()
    # Only its coming up is told: whoever is woken by it probes, and must not wake itself.
    assert len(told) == 1
    disk.repair()
    assert ledger.probe()
    assert ledger.problem is None
    assert ledger.find() == [job]


def test_nothing_is_acknowledged_on_top_of_a_log_that_may_have_holes(ledger: Ledger, disk: Disk, path: Path) -> None:
    """After a failed sync the log is folded into the file before the next commit: the system forgets what it lost."""
    log = path.with_name(f"{path.name}-wal")
    jobs = [add(ledger) for _ in range(5)]
    assert len(ledger.find()) == len(jobs)  # a reader stays connected: closing the last connection folds the log too
    size = log.stat().st_size
    disk.break_commits("SQLITE_IOERR_FSYNC", "disk I/O error")
    with pytest.raises(LedgerUnavailable):
        add(ledger)
    disk.repair()
    assert ledger.probe()
    assert log.stat().st_size < size
    # The file alone, without its log, has everything that was acknowledged.
    copy = path.with_name("copy.sqlite3")
    copy.write_bytes(path.read_bytes())
    with sqlite3.connect(copy) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM jobs")} == {job.id for job in jobs}
    connection.close()


def test_a_reader_holds_the_folding_up_only(ledger: Ledger, disk: Disk, path: Path) -> None:
    """While somebody reads an old state, the doubtful log stays, and so nothing is accepted; then it goes on."""
    add(ledger)
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN")
    foreign.execute("SELECT * FROM jobs").fetchall()
    disk.break_commits("SQLITE_IOERR_FSYNC", "disk I/O error")
    with pytest.raises(LedgerUnavailable):
        add(ledger)
    disk.repair()
    with pytest.raises(LedgerUnavailable, match="recovers from an error of the disk"):
        add(ledger)
    foreign.execute("ROLLBACK")
    foreign.close()
    add(ledger)
    assert ledger.problem is None


def test_a_full_disk_alone_needs_no_folding(ledger: Ledger, disk: Disk, path: Path) -> None:
    """SQLite hears of a full disk before anything is lost, and folding would need the space that is not there."""
    log = path.with_name(f"{path.name}-wal")
    jobs = [add(ledger) for _ in range(5)]
    assert len(ledger.find()) == len(jobs)  # see above
    size = log.stat().st_size
    disk.break_commits("SQLITE_FULL", "database or disk is full")
    with pytest.raises(LedgerUnavailable):
        add(ledger)
    disk.repair()
    add(ledger)
    assert log.stat().st_size >= size


def test_a_newer_ledger_keeps_every_byte(path: Path, tmp_path: Path) -> None:
    """An older program refuses it and changes nothing, not even the log that a newer one left behind as it died."""
    newer = tmp_path / "newer"
    ledger = Ledger(newer)
    with ledger._db.write("migrate") as connection:
        connection.exec_driver_sql("PRAGMA user_version = 99")
    for ending in ("", "-wal"):  # while it is open, as a death leaves it
        Path(f"{path}{ending}").write_bytes(Path(f"{newer}{ending}").read_bytes())
    ledger.close()
    before = {ending: Path(f"{path}{ending}").read_bytes() for ending in ("", "-wal")}
    assert before["-wal"]
    with pytest.raises(LedgerUnavailable, match=r"newer mlxd.*99"):
        Ledger(path)

    assert {ending: Path(f"{path}{ending}").read_bytes() for ending in ("", "-wal")} == before
