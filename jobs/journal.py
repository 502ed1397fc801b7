"""The durable side of watched folders: where inputs and outputs were moved, what was taken back, which are paused.

A move is written down before it is made, so that after a death in between the file is found at one of two places.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.ledger import Ledger
from jobs.schema import jobs, journal, pauses, reverts, seen
from jobs.statements import find_job


class Move(NamedTuple):
    """One file that was, or was about to be, moved."""

    source: Path
    target: Path
    #: Of the content, hexadecimal.
    sha256: str
    moved_at: datetime


class Journal:
    """Moves, reverts and pauses in the ledger's file. Any thread may call any method; all raise `LedgerUnavailable`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def plan(self, job_id: str, source: Path, target: Path, sha256: str, *, now: datetime) -> None:
        """Note that *source* of the job is about to become *target*; the last word about a source counts."""
        with self._ledger.transaction("plan") as connection:
            seq = find_job(connection, job_id).seq
            values = {"target": target, "sha256": sha256, "moved_at": now}
            statement = upsert(journal).values(seq=seq, source=source, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["seq", "source"], set_=values))

    def moves(self, job_id: str) -> list[Move]:
        """Return the job's moves, oldest first."""
        query = (
            select(journal.c.source, journal.c.target, journal.c.sha256, journal.c.moved_at)
            .join(jobs, jobs.c.seq == journal.c.seq)
            .where(jobs.c.id == job_id)
            .order_by(journal.c.moved_at)
        )
        with self._ledger.reading() as connection:
            return [Move(*row) for row in connection.execute(query)]

    def keys(self, job_id: str) -> list[tuple[Path, str]]:
        """Return (watched folder, key) of every watched file that became this job."""
        query = select(seen.c.folder, seen.c.key).where(seen.c.job_id == job_id)
        with self._ledger.reading() as connection:
            return [(row.folder, row.key) for row in connection.execute(query)]

    def revert(self, job_id: str, *, now: datetime) -> None:
        """Note that the job is being taken back: from now on nothing settles its input again."""
        with self._ledger.transaction("desk") as connection:
            values = {"seq": find_job(connection, job_id).seq, "reverted_at": now}
            connection.execute(upsert(reverts).values(**values).on_conflict_do_nothing())

    def reverted(self, job_id: str) -> datetime | None:
        """Return when the job was taken back, None if it was not."""
        query = select(reverts.c.reverted_at).join(jobs, jobs.c.seq == reverts.c.seq).where(jobs.c.id == job_id)
        with self._ledger.reading() as connection:
            found: datetime | None = connection.execute(query).scalar_one_or_none()
        return found

    def pause(self, folder: Path, *, now: datetime) -> None:
        """Note that nothing of *folder* is to be taken until `resume`."""
        with self._ledger.transaction("desk") as connection:
            connection.execute(upsert(pauses).values(folder=folder, since=now).on_conflict_do_nothing())

    def resume(self, folder: Path) -> None:
        """Forget that *folder* was paused."""
        with self._ledger.transaction("desk") as connection:
            connection.execute(delete(pauses).where(pauses.c.folder == folder))

    def paused(self) -> dict[Path, datetime]:
        """Return the paused folders and since when they are."""
        with self._ledger.reading() as connection:
            return {row.folder: row.since for row in connection.execute(select(pauses))}
