"""Deaths inside the ledger's migrations: every place there is, what must be found afterwards, and who says so."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import LedgerUnavailable
from jobs.ledger import Ledger
from jobs.schema import MIGRATIONS
from torture import old_ledgers
from torture.old_ledgers import Seen

LATEST = len(MIGRATIONS)
#: Opens the ledger as the daemon does, and closes it.
OPEN = "import sys; from pathlib import Path; from jobs.ledger import Ledger; Ledger(Path(sys.argv[1])).close()"
#: The same program with each statement of a migration committed on its own.
OPEN_WITHOUT_TRANSACTIONS = f"""
from jobs import database, schema

def upgrade(self):
    with self._engine.connect() as connection:
        return schema.upgrade(connection, self._path)

database.Database._upgrade = upgrade
{OPEN}
"""


@dataclass(frozen=True, kw_only=True)
class Death:
    """One place to die at while a ledger of *version* is opened."""

    version: int
    failpoint: str
    #: Which time it is reached.
    nth: int
    #: The version that must be found afterwards.
    then: int

    def __str__(self) -> str:
        return f"version {self.version}, {self.failpoint}@{self.nth}"


def deaths(version: int) -> Iterator[Death]:
    """Yield every place at which opening a ledger of *version* can die: after each statement, around each commit."""
    statement = 0
    for current in range(version, LATEST):
        for _ in MIGRATIONS[current]:
            statement += 1
            yield Death(version=version, failpoint="migration.statement", nth=statement, then=current)
    # One more transaction than there are steps: the last one finds that nothing is left to do.
    for number in range(1, LATEST - version + 2):
        before, after = version + number - 1, min(version + number, LATEST)
        yield Death(version=version, failpoint="ledger.migrate.commit", nth=number, then=before)
        yield Death(version=version, failpoint="ledger.migrate.committed", nth=number, then=after)


def every_death() -> list[Death]:
    """Return all places, of all versions there ever were; 0 is a file that was made and nothing more."""
    return [death for version in range(LATEST) for death in deaths(version)]


def die(path: Path, death: Death, program: str) -> int:
    """Open the ledger *path* in a process that dies at *death*; return its exit status (-9 is what is wanted)."""
    environ = {"MLXD_FAILPOINTS": f"{death.failpoint}@{death.nth}=kill", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-I", "-c", program, str(path)]
    return subprocess.run(command, env=environ, stderr=subprocess.DEVNULL, check=False).returncode


def references() -> list[Seen]:
    """Return what an empty ledger of each version looks like."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for version in range(LATEST + 1):
            path = Path(folder) / str(version)
            old_ledgers.build(path, version, random.Random(version))
            found.append(old_ledgers.look(path))
        return found


def breaches(before: Seen, after: Seen, known: Sequence[Seen], *, then: int) -> Iterator[str]:
    """Yield what is wrong with a ledger that was *before* and is *after*, and should be of version *then*."""
    yield from after.damage
    if after.version != then:
        yield f"it is of version {after.version} instead of {then}"
    if after.version >= len(known):
        yield "there is no such version"
    elif (after.shape, after.application) != (known[after.version].shape, known[after.version].application):
        yield f"it says version {after.version}, but its tables are not that version's: it is between two"
    for table, rows in before.rows.items():
        found = after.rows.get(table)
        if found is None:
            yield f"the table {table} is gone"
        elif [{name: row.get(name) for name in rows[0]} if rows else row for row in found] != rows:
            yield f"the rows of {table} are not what they were"


def attempt(folder: Path, death: Death, known: Sequence[Seen], rng: random.Random, *, program: str = OPEN) -> list[str]:
    """Die there, maybe once more somewhere else, then open the ledger in peace; return every breach."""
    path = folder / f"{death.version}-{death.failpoint}-{death.nth}"
    old_ledgers.build(path, death.version, rng, log=rng.random() < 0.5)
    before = old_ledgers.look(path)
    found = _died(path, death, before, known, program)
    if not found and rng.random() < 0.3 and death.then < LATEST:
        found = _died(path, rng.choice(list(deaths(death.then))), before, known, program)
    if not found:
        try:
            Ledger(path).close()
        except LedgerUnavailable as error:
            found = [f"it cannot be opened any more: {error.message}"]
        else:
            found = list(breaches(before, old_ledgers.look(path), known, then=LATEST))
    return [f"{death}: {sentence}" for sentence in found]


def _died(path: Path, death: Death, before: Seen, known: Sequence[Seen], program: str) -> list[str]:
    status = die(path, death, program)
    if status != -9:
        return [f"{death} was not reached; the program ended with {status}"]
    return list(breaches(before, old_ledgers.look(path), known, then=death.then))
