"""What a dead daemon's jobs had half-written.

The next attempt of a job removes that by itself. But a job that was asked to stop ends when it is found, and one that
waits for its next attempt may be cancelled: nobody writes for these again.
"""

from __future__ import annotations

import os
from pathlib import Path

from jobs.ledger import Ledger
from jobs.model import Job
from jobs.outputs import sweep


def clear(ledger: Ledger, owner: str, *, results: Path) -> None:
    """Remove the temporary files of the running jobs that *owner* does not hold.

    Call it before `Ledger.recover`, which forgets which they were: then a death in between leaves nothing either.

    Raises:
        LedgerUnavailable: the ledger cannot be read.

    """
    for job in ledger.orphans(owner):
        sweep(job.id, _folders(job, results / job.id, ledger))


def _folders(job: Job, own: Path, ledger: Ledger) -> set[Path]:
    """Return where the job may have written; not what lies below a folder of somebody else's: that may be huge."""
    below = (Path(at) for at, _, _ in os.walk(own))
    return {job.placement.directory or own, *(path.parent for path in ledger.intended(job.id)), *below}
