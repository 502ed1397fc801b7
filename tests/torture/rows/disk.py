"""Disks that are full, read-only or broken under state, results and logs: nothing lost, told, and gone on by itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from torture.demo_jobs import demo_jobs
from torture.disk_sabotage import BRAVE, GLOOMY, HARSH, UNSYNCED, plugin
from torture.disk_siege import Siege
from torture.inject import Fault, mounts_work, ordinary_user, strace_works, until
from torture.row import Control, Outcome, Say, Tier, percentile

#: Swept call by call: what SQLite syncs and writes, and what results are made of.
_SWEPT = (
    Fault(calls="fdatasync", error="EIO"),
    Fault(calls="pwrite64", error="EIO"),
    Fault(calls="pwrite64", error="ENOSPC"),
    Fault(calls="write", error="ENOSPC"),
    Fault(calls="fsync", error="EIO"),
    Fault(calls="openat", error="EIO"),
    Fault(calls="?link,linkat", error="EIO"),
    Fault(calls="?rename,?renameat,renameat2", error="EIO"),
    Fault(calls="?unlink,unlinkat", error="EIO"),
    Fault(calls="ftruncate", error="EIO"),
)
#: Where strace is not to be had: places in `jobs.failpoints`, which time, error.
_NAMED = (
    ("ledger.add.commit", 5, "EIO"),
    ("ledger.claim.commit", 9, "EIO"),
    ("ledger.checkpoint.commit", 3, "ENOSPC"),
    ("ledger.intend.commit", 12, "EIO"),
    ("ledger.finish.commit", 7, "EIO"),
    ("ledger.progress.commit", 4, "EIO"),
    ("output.created", 14, "ENOSPC"),
    ("output.filled", 17, "EIO"),
    ("output.synced", 20, "EROFS"),
    ("output.linked", 23, "EIO"),
)
#: Failing for a while.
_LASTING = (
    Fault(calls="pwrite64", error="EROFS"),
    Fault(calls="pwrite64", error="EDQUOT"),
    Fault(calls="?link,linkat", error="EDQUOT"),
    Fault(calls="?mkdir,mkdirat", error="EDQUOT"),
)
#: Of each tier: which faults are swept, through how many calls (None: until nothing fails any more), how often each
#: outage comes.
_SIZES = {Tier.SHORT: (_SWEPT[::2], 1, 1), Tier.LONG: (_SWEPT * 2, None, 10)}
#: Most calls of one kind that a sweep goes through one by one; then every fourth.
_ONE_BY_ONE = 24
_MANY = 96


class DiskRow:
    """Row 8."""

    number = 8
    name = "disk"
    fault = "disk full, read-only, quota, EIO on the k-th fsync, write, link, rename, open; short writes"
    promise = "nothing acknowledged after a failed sync, nothing lost or failed, told in health, well again by itself"
    timed: bool = True

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Besiege one daemon, and beside it two that deal wrongly with it."""
        notes = [*_missing(), ordinary_user()]
        with ThreadPoolExecutor(1) as pool:  # beside the attack, for most of its time is waiting
            controls = pool.submit(lambda: [*_careless(folder / "careless", seed), *_blind(folder / "blind", seed)])
            with Siege(folder / "real", seed=f"{seed}") as siege:
                reappeared = _sweep(siege, tier, say) if strace_works() else 0
                _outages(siege, tier, say)
                verdict = siege.verdict()
            failed, complaints = (0, []) if strace_works() else _named(folder / "named", seed)
        return Outcome(
            tries=sum(siege.faults.values()) + failed,
            acknowledged=verdict.promised,
            lost=verdict.lost + verdict.unfinished,
            doubled=verdict.doubled,
            recoveries=siege.recoveries,
            broken=[*siege.broken, *verdict.sentences, *complaints],
            controls=controls.result(),
            measured={
                "demo_jobs": demo_jobs(siege.history.path),
                "kinds_of_faults": len(siege.faults),
                "calls_failed": siege.injected,
                "refused_submissions": siege.refused,
                "refused_jobs_there_after_a_kill": reappeared,
                "recovery_p50_s": round(percentile(siege.recoveries, 0.5), 2),
                "restarts": len(siege.supervisor.spawns) - 1,
            },
            notes=notes,
        )


def _missing() -> list[str]:
    """Return what cannot be done on this machine."""
    found = []
    if not strace_works():
        found.append(
            "STRACE IS NOT HERE OR MAY NOT ATTACH: no system call failed, only named places of the program, and full "
            "and closed disks and short writes were tried. Install strace, run as root or allow ptrace."
        )
    if not mounts_work():
        found.append("No tmpfs could be mounted: a limit on the size of files stands in for the full disk.")
    return found


def _named(folder: Path, seed: int) -> tuple[int, list[str]]:
    """Do without strace: raise the disk's error at the named places; return how many did, and what was broken."""
    marks = folder / "marks"
    marks.mkdir(parents=True)
    points = ",".join(f"{name}@{number}={error}" for name, number, error in _NAMED)
    environ = {"MLXD_FAILPOINTS": points, "MLXD_FAILPOINTS_ONCE": str(marks)}
    with Siege(folder / "siege", seed=f"{seed}-named", environ=environ) as siege:
        siege.submit(40)
        verdict = siege.verdict()
        told = [] if siege.health()["status"] == "ok" else [f"not well at the end: {siege.health()['problems']}"]
    return len(list(marks.iterdir())), [*siege.broken, *verdict.sentences, *told]


def _sweep(siege: Siege, tier: Tier, say: Say) -> int:
    """Let single calls fail, one after the other; return how many refused jobs a kill brought back."""
    swept, most, times = _SIZES[tier]
    for fault in swept:
        say(f"{fault.calls} {fault.error}")
        for k in _steps(most):
            if siege.once(Fault(calls=fault.calls, error=fault.error, when=str(k))) == 0:
                break
    for _ in range(times):
        siege.unsyncable(seconds=0.5)
    return sum(siege.killed_after_refusal() for _ in range(times))


def _steps(most: int | None) -> list[int]:
    every = [*range(1, _ONE_BY_ONE + 1), *range(_ONE_BY_ONE + 4, _MANY, 4)]
    return every[:most]


def _outages(siege: Siege, tier: Tier, say: Say) -> None:
    """Let disks fail for a while."""
    *_, times = _SIZES[tier]
    for name, begin, end in _lasting(siege, tier):
        say(name)
        for _ in range(times):
            siege.outage(name, begin, end, seconds=0.7)
    if siege.disks and tier is Tier.LONG:
        say("state: killed while the disk is full")
        for _ in range(times):
            siege.killed_when_full()
    if strace_works():
        for fault in _LASTING[: 1 if tier is Tier.SHORT else None]:
            for _ in range(times):
                siege.failing(fault, seconds=0.7)


def _lasting(siege: Siege, tier: Tier) -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Return the outages that are possible here: name, how it begins, how it ends."""
    disks, home = siege.disks, siege.home
    found: list[tuple[str, Callable[[], object], Callable[[], object]]] = []
    for name, disk in disks.items():
        # A few bytes are left: writes are cut short before they fail.
        found.append((f"{name}: disk full", partial(siege.nearly_fill, disk), disk.free))
    if "results" in disks:
        found.append(("results: read-only", disks["results"].lock, disks["results"].unlock))
    found.append(("results: no permission", partial(home.results.chmod, 0o500), partial(home.results.chmod, 0o700)))
    if tier is Tier.SHORT and siege.disks:  # one of each place
        return found[:3]
    found.append(("state: files may not grow", siege.stunt, siege.unstunt))
    return found


def _careless(folder: Path, seed: int) -> list[Control]:
    """Besiege a build that skips syncs and fails jobs for want of room."""
    found = []
    with Siege(folder, seed=f"{seed}-careless", sabotage=plugin(UNSYNCED, HARSH)) as siege:
        if strace_works():
            taken = siege.unsyncable(seconds=0.5)
            evidence = f"{taken} jobs acknowledged while every sync failed"
            found.append(Control(name="sync skipped (synchronous=OFF)", caught=taken > 0, evidence=evidence))
        siege.outage("no room", partial(_no_room, siege), partial(_room, siege), seconds=0.5)
        verdict = siege.verdict()
    evidence = f"{verdict.lost} of {verdict.promised} acknowledged jobs failed: {_first(verdict.sentences)}"
    return [*found, Control(name="a full disk fails jobs", caught=verdict.lost > 0, evidence=evidence)]


def _blind(folder: Path, seed: int) -> list[Control]:
    """Besiege a build that acknowledges what the ledger refused, and never notices that a disk is well again."""
    with Siege(folder, seed=f"{seed}-blind", sabotage=plugin(BRAVE, GLOOMY)) as siege:
        siege.stunt()
        siege.submit(20)
        siege.unstunt()
        waited = until(lambda: siege.health()["status"] == "ok", 6.0)
        verdict = siege.verdict()
    evidence = f"{verdict.lost} of {verdict.promised} acknowledged jobs are not there: {_first(verdict.sentences)}"
    return [
        Control(name="acknowledges what the ledger refused", caught=verdict.lost > 0, evidence=evidence),
        Control(name="stays degraded", caught=waited is None, evidence="still degraded 6 s after the disk was well"),
    ]


def _no_room(siege: Siege) -> None:
    if "results" in siege.disks:
        siege.disks["results"].fill()
    siege.home.results.chmod(0o500)


def _room(siege: Siege) -> None:
    siege.home.results.chmod(0o700)
    if "results" in siege.disks:
        siege.disks["results"].free()


def _first(sentences: list[str]) -> str:
    return sentences[0] if sentences else "nothing"


ROW = DiskRow()
