"""An upgrade that dies half-way, and a program that meets the ledger of a newer one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from jobs.schema import MIGRATIONS
from torture import old_ledgers, upgrades
from torture.home import TortureHome
from torture.load import wait_ready
from torture.row import Control, Outcome, Say, Tier
from torture.upgrades import LATEST, Death, Seen

_TRIES = {Tier.SHORT: 8, Tier.LONG: 94}
_DAEMONS = {Tier.SHORT: 1, Tier.LONG: 6}
_CONTROLS = {Tier.SHORT: 3, Tier.LONG: 12}
_OPEN = ("queued", "running", "blocked")


class Upgrade:
    """See `torture.row.Row`."""

    number = 12
    name = "upgrade"
    fault = "upgrade: kill inside a migration; a newer ledger met by an older program"
    promise = "the ledger is of one version or the next, never between; the older program refuses and changes nothing"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Die at every place there is, let daemons die and go on, bring a newer ledger, then break the program."""
        rng = random.Random(f"{seed}-upgrade")
        known = upgrades.references()
        broken: list[str] = []
        chosen = _choose(upgrades.every_death(), _TRIES[tier], rng)
        for number, death in enumerate(chosen):
            broken += upgrades.attempt(_fresh(folder, f"t{number}"), death, known, rng)
        say(f"{len(chosen)} deaths inside migrations, {len(broken)} breaches")
        recoveries = []
        for number in range(_DAEMONS[tier]):
            seconds, found = _daemon_dies(folder / f"d{number}", known, rng)
            recoveries.append(seconds)
            broken += found
        say(f"{_DAEMONS[tier]} daemons died in an upgrade and went on")
        newer = list(_newer(folder, rng))
        return Outcome(
            tries=len(chosen) + _DAEMONS[tier] + 4,
            recoveries=recoveries,
            broken=[*broken, *newer],
            controls=[_control(folder, known, rng, _CONTROLS[tier])],
            measured={
                "places_in_all": len(upgrades.every_death()),
                "places_died_at": len(set(chosen)),
                "versions": LATEST,
                "newer_ledgers_met": 4,
            },
        )


def _choose(places: list[Death], tries: int, rng: random.Random) -> list[Death]:
    """Return each place as often as any other, in all *tries*; which ones come once more, or not, is chance."""
    whole, rest = divmod(tries, len(places))
    return places * whole + rng.sample(places, rest)


def _fresh(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _daemon_dies(folder: Path, known: list[Seen], rng: random.Random) -> tuple[float, list[str]]:
    """Let a daemon die in the upgrade of its ledger; return how long it took to serve, and what is wrong then."""
    home = TortureHome(folder)
    death = rng.choice([one for one in upgrades.every_death() if one.version])
    home.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    old_ledgers.build(home.ledger, death.version, rng, log=True)
    before = old_ledgers.look(home.ledger)
    marks = _fresh(folder, "marks")
    environ = {"MLXD_FAILPOINTS": f"{death.failpoint}@{death.nth}=kill", "MLXD_FAILPOINTS_ONCE": str(marks)}
    with home.supervisor(environ=environ) as launchd:
        ready = wait_ready(home.socket)
        recovery = ready - launchd.exits[0].at if launchd.exits else 0.0
        settled = home.settle(30)
    after = old_ledgers.look(home.ledger)
    jobs = {job["id"]: job for job in after.rows["jobs"]}
    found = [] if list(marks.iterdir()) else ["it did not die"]
    found += [] if settled else ["its jobs were not done after half a minute"]
    # Jobs go on by now: which of them may differ is told below.
    found += [one for one in upgrades.breaches(before, after, known, then=LATEST) if "rows of" not in one]
    for job in before.rows["jobs"]:
        now = jobs.get(job["id"], {"state": "gone"})
        if job["state"] in _OPEN:
            if now["state"] != "succeeded":
                found.append(f"the {job['state']} job {job['id']} is {now['state']}")
        elif {name: now.get(name) for name in job} != job:
            found.append(f"the {job['state']} job {job['id']} was changed")
    return recovery, [f"daemon, {death}: {sentence}" for sentence in found]


def _newer(folder: Path, rng: random.Random) -> Iterator[str]:
    """Bring a newer ledger, closed and as a death leaves it, to the program and to the daemon; yield what is wrong."""
    steps = (*MIGRATIONS, old_ledgers.FUTURE)
    for log in (False, True):
        path = _fresh(folder, f"n{log}") / "ledger"
        old_ledgers.build(path, len(steps), rng, steps=steps, log=log)
        before = old_ledgers.bytes_of(path)
        try:
            upgrades.Ledger(path).close()
            yield "an older program opened a newer ledger"
        except upgrades.LedgerUnavailable as error:
            if "newer mlxd" not in error.message or error.facts.get("found") != len(steps):
                yield f"an older program refuses a newer ledger, but says only: {error.message}"
        if old_ledgers.bytes_of(path) != before:
            yield f"a newer ledger ({'with' if log else 'without'} a log) was changed by an older program"
        yield from _newer_met_by_a_daemon(folder / f"nd{log}", before)


def _newer_met_by_a_daemon(folder: Path, content: dict[str, bytes]) -> Iterator[str]:
    home = TortureHome(folder)
    home.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for ending, data in content.items():
        Path(f"{home.ledger}{ending}").write_bytes(data)
    with home.supervisor() as launchd:
        launchd.wait_exit(1, 30)
    if not launchd.exits or launchd.exits[0].status <= 0:
        ends = [one.status for one in launchd.exits[:1]]
        yield f"a daemon with a newer ledger should end as a failure, for launchd to try again; it ended with {ends}"
    said = [path.read_text(errors="replace") for path in (home.log, home.paths.logs / "agent.err") if path.exists()]
    if len(said) < 2 or not all("newer mlxd" in text for text in said):
        yield "a daemon with a newer ledger does not say so in its log and to launchd"
    if old_ledgers.bytes_of(home.ledger) != content:
        yield "a daemon changed a newer ledger"


def _control(folder: Path, known: list[Seen], rng: random.Random, tries: int) -> Control:
    places = [one for one in upgrades.every_death() if one.failpoint == "migration.statement"]
    caught = 0
    for number, death in enumerate(rng.sample(places, tries)):
        found = upgrades.attempt(
            _fresh(folder, f"c{number}"), death, known, rng, program=upgrades.OPEN_WITHOUT_TRANSACTIONS
        )
        caught += any("between two" in sentence for sentence in found)
    return Control(
        name="migrations without a transaction",
        caught=caught == tries,
        evidence=f"{caught} of {tries} deaths left a ledger between two versions",
    )


ROW = Upgrade()
