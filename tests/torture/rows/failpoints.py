"""Kill -9 at each named failpoint, while jobs of every kind are under way."""

from __future__ import annotations

import bisect
import http.client
import math
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jobs.failpoints import NAMES
from torture import arming, broken_builds, scenarios
from torture.arming import Armed
from torture.checker import Verdict, check
from torture.demo_jobs import demo_jobs, sprinkled
from torture.history import History, read
from torture.home import TortureHome
from torture.launchsim import Exit, Supervisor
from torture.load import Load, wait_ready
from torture.row import Control, Outcome, Say, Tier, judged, percentile
from torture.withheld import Span, Withheld, lengths

#: Failpoints of a short campaign, and how often each is hit in a long one.
DOZEN, TIMES = 12, 20
#: Overrides how often in a long one.
ROUNDS = "MLXD_FAILPOINT_ROUNDS"
#: Homes at a time, from the first death to the last job: more on the same processors take no less time together, and
#: measure each other.
AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
#: Jobs a second, and the share of them for the demo models.
RATE, DEMO = 10.0, 0.05
#: Seconds, at the 99th percentile, from a death to the next claim of a job.
CLAIMED_S = 5.0
#: Seconds that one failpoint may take to be reached, on a slow machine.
_EACH_S = 10.0
#: Seconds until the end of an attack must have been heard of.
_CALM_S = 60.0
_NOTE = (
    "Recovery is the time from a death to the next claim of any job. The lanes are kept busy on purpose, so a job that "
    "was cut off may wait longer for its turn (cut_off_claimed_p99_s); that time without a line is the row kill's. "
    "The whole of it is judged; own_recovery_... is what remains without the time that the machine's host withheld."
)


@dataclass
class Seen:
    """What came of one home."""

    #: Lives of the daemon that a failpoint ended; in a runner it may have ended the runner's alone.
    deaths: int
    #: Lives that a stop ended before the program could hear of it.
    unheard: int
    #: Failpoints that fired.
    hit: set[str]
    verdict: Verdict
    #: Each death and the next claim of any job, by `time.monotonic`; seconds to it of each job that was cut off.
    recoveries: Sequence[Span]
    each: Sequence[float]
    #: Jobs for the demo models.
    demo: int
    #: Jobs that the ledger says are running, when nothing runs any more.
    stuck: int = 0
    broken: list[str] = field(default_factory=list)


class Failpoints:
    """Row 2."""

    number, name = 2, "failpoints"
    fault = f"kill -9 at each of {len(NAMES)} failpoints"
    promise = "nothing acknowledged is lost or done twice, wherever it dies; every failpoint was hit"
    timed: bool = True

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Arm the failpoints, let each fire once a round, check after each round; then break the program."""
        chance = random.Random(f"{seed}-failpoints")
        times = int(os.environ.get(ROUNDS, TIMES))
        rounds = [arming.share(seed - 1, DOZEN)] if tier is Tier.SHORT else [list(NAMES)] * times
        with ThreadPoolExecutor(AT_ONCE) as pool, Withheld() as withheld:
            running = [
                pool.submit(attack, folder / f"r{number}", names, random.Random(chance.random()))
                for number, names in enumerate(rounds)
            ]
            broken_ones = [
                pool.submit(_control, folder / name, build, random.Random(chance.random()))
                for name, build in broken_builds.BUILDS.items()
            ]
            homes = list(_told(running, say))
            controls = [one.result() for one in broken_ones]
        return _outcome(homes, controls, withheld, judged(tier))


def _told(running: Sequence[Future[Seen]], say: Say) -> Iterator[Seen]:
    for number, one in enumerate(running):
        seen = one.result()
        say(" ".join((f"round {number}: {seen.deaths} deaths, {len(seen.broken)} breaches", *seen.broken[:1])))
        yield seen


def _outcome(homes: Sequence[Seen], controls: Sequence[Control], withheld: Withheld, share: float) -> Outcome:
    spans = [span for one in homes for span in one.recoveries]
    own = withheld.own(spans)
    late = percentile(lengths(spans), share)
    slow = [f"Work went on {late:.1f} s after a death ({share:.0%} of the times)."] if late > CLAIMED_S else []
    each = [seconds for one in homes for seconds in one.each]
    return Outcome(
        tries=sum(len(one.hit) for one in homes),
        acknowledged=sum(one.verdict.promised for one in homes),
        lost=sum(one.verdict.lost for one in homes),
        doubled=sum(one.verdict.doubled for one in homes),
        recoveries=lengths(spans),
        broken=[*(sentence for one in homes for sentence in one.broken), *slow],
        controls=controls,
        notes=[_NOTE],
        measured={
            "failpoints": len(NAMES),
            "failpoints_hit": len({name for one in homes for name in one.hit}),
            "demo_jobs": sum(one.demo for one in homes),
            "daemons_killed": sum(one.deaths for one in homes),
            "stops_not_heard": sum(one.unheard for one in homes),
            "jobs_cut_off": len(each),
            "cut_off_claimed_p99_s": round(percentile(each, 0.99), 3),
            "own_recovery_p99_s": round(percentile(own, 0.99), 3),
            "own_recovery_worst_s": round(max(own, default=math.nan), 3),
            "withheld_share": round(withheld.share, 3),
        },
    )


def attack(
    folder: Path,
    names: Sequence[str],
    chance: random.Random,
    *,
    extra: str = "",
    settle_s: float = 60.0,
) -> Seen:
    """Let the daemon of a fresh home die at each of *names*; *extra* is code that breaks the program."""
    home = TortureHome(folder, config=scenarios.CONFIG, plugin=scenarios.PLUGIN + extra)
    history = History(folder / "history.jsonl")
    armed = Armed(folder / "marks", arming.arm(names, chance), chance)
    mix = sprinkled(partial(scenarios.mix, folder=folder / "placed"), DEMO)
    load = Load(home, history, clients=3, rate=RATE, seed=chance.random(), mix=mix)
    with home.supervisor(environ=armed.environ) as launchd:
        scenes = scenarios.Scenes(home, history, launchd, chance)
        load.start()
        missing = armed.watch(launchd, history, scenes, seconds=20 + _EACH_S * len(names))
        broken = [f"The failpoint {name} was not reached." for name in sorted(missing)]
        load.stop()
        broken += load.complaints + _come_to_rest(home, scenes, settle_s)
        launchd.stop()
    broken += _ends(launchd)
    recoveries, each = reclaimed(home.executions, [one.at for one in launchd.exits if one.status == -9])
    history.close()
    verdict = check(history.path, ledger=home.ledger, executions=home.executions, results=home.results, whole=False)
    lines, stuck = read(history.path), home.query("SELECT count(*) FROM jobs WHERE state = 'running'")[0][0]
    broken += [f"{stuck} jobs are left running by a daemon that is gone."] * bool(stuck)
    broken += [*verdict.sentences, *_strangers(home, lines), *scenarios.strange(home, lines)]
    hit = set(names) - missing
    return Seen(
        deaths=sum(one.status == -9 for one in launchd.exits),
        unheard=sum(map(_unheard, launchd.exits)),
        hit=hit,
        verdict=verdict,
        recoveries=recoveries,
        each=each,
        demo=demo_jobs(history.path),
        stuck=stuck,
        broken=broken,
    )


def reclaimed(executions: Path, deaths: Sequence[float]) -> tuple[list[Span], list[float]]:
    """Return each death with the first claim after it, and the seconds to the claim of each job that one cut off.

    A job that ended, or whose runner died, and that is begun again for another reason does not count.
    """
    begun: dict[str, float] = {}
    first: dict[int, Span] = {}
    each = []
    for line in executions.read_text(encoding="utf-8").splitlines():
        what, key, at = (words := line.split())[0], words[1], float(words[4])
        if what == "end":
            begun.pop(key, None)
        elif what == "begin":
            if since := bisect.bisect_right(deaths, at):
                first.setdefault(since, (deaths[since - 1], at))
            if key in begun and since > bisect.bisect_right(deaths, begun[key]):
                each.append(at - deaths[since - 1])
            begun[key] = at
    return list(first.values()), each


def _come_to_rest(home: TortureHome, scenes: scenarios.Scenes, seconds: float) -> list[str]:
    """Let nothing new begin or be held up, and wait until every file is taken and every job done."""
    if not _calmed(home, scenes):
        return [f"Nobody heard within {_CALM_S:g} s that the attack is over."]
    deadline = time.monotonic() + seconds
    while scenes.untaken() > 0 and time.monotonic() < deadline:  # what is not taken then is for the checker to say
        time.sleep(0.05)
    return [] if home.settle(seconds) else [f"{home.unfinished()} jobs were not done after {seconds:g} s of peace."]


def _calmed(home: TortureHome, scenes: scenarios.Scenes) -> bool:
    """Say that it is over until it is heard: the last failpoint may fire at that very request."""
    deadline = time.monotonic() + _CALM_S
    while time.monotonic() < deadline:
        try:
            wait_ready(home.socket, _CALM_S)
            scenes.calm()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        else:
            return True
    return False


def _ends(launchd: Supervisor) -> list[str]:
    """Every life ended by a failpoint or a stop; by the stop's signal itself only if it could not hear of it yet."""
    strange = [one.status for one in launchd.exits if one.status not in (-9, 0) and not _unheard(one)]
    found = [f"The daemon ended by itself, with {strange}."] if strange else []
    late = [one for one in launchd.exits if one.by_kill_after_timeout]
    return found + [f"{len(late)} stops took longer than launchd waits."] * bool(late)


def _unheard(one: Exit) -> bool:
    return one.status == -signal.SIGTERM and one.asked_while_deaf


def _strangers(home: TortureHome, lines: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the jobs of clients that nobody submitted."""
    asked = {line["key"] for line in lines if line["kind"] in ("ack", "unknown")}
    rows = home.query("SELECT id, idempotency_key FROM jobs WHERE source_kind = 'api'")
    return [f"nobody submitted the job {job} ({key})" for job, key in rows if key not in asked]


def _control(folder: Path, build: broken_builds.Build, chance: random.Random) -> Control:
    seen = attack(folder, build.names, random.Random(chance.random()), extra=build.code, settle_s=3.0)
    verdict = seen.verdict
    counts = {"stuck": seen.stuck} | {
        kind: getattr(verdict, kind) for kind in ("lost", "doubled", "unfinished", "wrong")
    }
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return Control(
        name=build.name,
        caught=any(counts[kind] for kind in build.caught_as),
        evidence=f"{told or 'nothing'} of {verdict.promised} after {seen.deaths} deaths",
    )


ROW = Failpoints()
