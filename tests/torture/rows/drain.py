"""SIGTERM in the middle of everything."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from torture.checker import check
from torture.demo_jobs import demo_order
from torture.draining import CONFIG, KINDS, SABOTAGE, Drainer, attempts, sabotage, wrong_items
from torture.history import History
from torture.home import TortureHome
from torture.killing import FileDropper
from torture.load import Load, wait_ready
from torture.row import Control, Outcome, Say, Tier, percentile

#: Seconds a stop has to be shorter than ExitTimeOut.
SPARE_S = 5.0


@dataclass(frozen=True)
class Siege:
    """How often the daemon is stopped, and how."""

    tries: int
    #: Of them so many with jobs for a demo model in the midst, for which the daemon is given more time.
    demo: int = 0
    #: ``drain_seconds``; what is beyond five of them the jobs get to end by themselves.
    drain: float = 5.3
    #: How long the model that is always being loaded takes, and the jobs that are always at their tokens, seconds.
    loading: float = 1.5
    long: float = 3.0


SIEGES = {
    # The short drain makes many tries possible; the second siege is as the defaults have it.
    Tier.SHORT: (Siege(4, demo=1),),
    Tier.LONG: (Siege(196, demo=4), Siege(4, drain=30.0, loading=40.0, long=40.0)),
}
#: How many times as many stops there may be as were asked for, until each kind of work was met, or a control is caught.
_CHANCES = 4
CONTROL_TRIES = {Tier.SHORT: 1, Tier.LONG: 4}


@dataclass
class _Found:
    """What one siege saw."""

    drainer: Drainer
    promised: int
    lost: int
    doubled: int
    broken: list[str]
    limit_s: float
    exit_timeout_s: float


def _besiege(folder: Path, siege: Siege, *, seed: str, say: Say, broken_by: str | None = None) -> _Found:
    """Stop the daemon as often as *siege* says, let everything end, and look.

    A build that is *broken_by* sabotage only gets time to show it: whether it would ever end everything is no question.
    """
    home = TortureHome(folder, config=CONFIG.format(drain=siege.drain, loading=siege.loading))
    if broken_by is not None:
        sabotage(home, broken_by)
    history, broken = History(folder / "history.jsonl"), list[str]()
    files = FileDropper(home, history, rate=2.0, seed=seed)
    load = Load(home, history, clients=2, rate=8.0, seed=seed)
    with home.supervisor() as supervisor:
        limit_s = min(supervisor.spec.exit_timeout_s - SPARE_S, siege.drain + 10.0)
        drainer = Drainer(home, history, supervisor, limit_s=limit_s, chance=random.Random(seed))
        drainer.submit_long(2, siege.long)
        load.start()
        files.start()
        for number in range(_CHANCES * siege.tries):
            # A handful of stops may miss one of the kinds of work, by chance or because nothing begins that soon on a
            # slow machine: then there are more, later and later.
            if number >= siege.tries and (broken_by is not None or not drainer.missed()):
                break
            demo = siege.tries - siege.demo <= number < siege.tries
            if demo:
                drainer.submit(demo_order(number, random.Random(f"{seed}-demo-{number}")))
            drainer.stop_once(least_s=0.05, most_s=3.0 if demo else 1.2 * max(1.0, number / siege.tries * 2))
            if number % 20 == 19:
                say(f"{number + 1} stops, the longest {max(drainer.stops.took):.1f} s")
        if broken_by is not None:
            wait_ready(home.socket)
            time.sleep(1.0)
        files.stop()
        load.stop()
        if broken_by is None and (not files.settle(home, 60.0) or not home.settle(120.0 + siege.long)):
            broken.append(f"After the last stop {home.unfinished()} jobs were not done, and none in two minutes.")
        exit_timeout_s = supervisor.spec.exit_timeout_s
    history.close()
    verdict = check(history.path, ledger=home.ledger, executions=home.executions, results=home.results)
    broken += [*verdict.sentences, *drainer.stops.broken, *drainer.repeated(), *attempts(home), *wrong_items(home)]
    return _Found(
        drainer=drainer,
        promised=verdict.promised,
        lost=verdict.lost,
        doubled=verdict.doubled,
        broken=[*broken, *load.complaints],
        limit_s=limit_s,
        exit_timeout_s=exit_timeout_s,
    )


class Drain:
    """Row 5."""

    number, name = 5, "drain"
    fault = "SIGTERM mid-token, mid-load, mid-folder"
    promise = (
        "out within ExitTimeOut less 5 s with status 0, no attempt consumed, no runner left, folders and batches go on "
        "where they stopped"
    )

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Stop it again and again, then do the same to builds that do not drain as they should."""
        found = [
            _besiege(folder / f"home{number}", siege, seed=f"{seed}-drain-{number}", say=say)
            for number, siege in enumerate(SIEGES[tier])
        ]
        took = [seconds for one in found for seconds in one.drainer.stops.took]
        broken = [sentence for one in found for sentence in one.broken]
        midst = sum((one.drainer.stops.midst for one in found), start=type(found[0].drainer.stops.midst)())
        broken += [f"No stop came mid-{kind}." for kind in KINDS if not midst[kind]]
        return Outcome(
            tries=len(took),
            acknowledged=sum(one.promised for one in found),
            lost=sum(one.lost for one in found),
            doubled=sum(one.doubled for one in found),
            recoveries=took,
            broken=broken,
            controls=[self._control(folder, how, CONTROL_TRIES[tier], seed, say) for how in SABOTAGE],
            measured={
                "stop_p50_s": round(percentile(took, 0.5), 3),
                "stop_max_s": round(max(took), 3),
                "limits_s": [one.limit_s for one in found],
                "exit_timeouts_s": [one.exit_timeout_s for one in found],
                "items_in_flight_asked_again": sum(one.drainer.asked_again() for one in found),
                **{f"stops_mid_{kind}": count for kind, count in sorted(midst.items())},
            },
            notes=["recovery is the time from SIGTERM to the end of the daemon"],
        )

    def _control(self, folder: Path, how: str, tries: int, seed: int, say: Say) -> Control:
        """Stop the broken build until it shows: a stop may come when what is broken makes no difference."""
        told: list[str] = []
        stops = 0
        while not told and stops < _CHANCES * tries:
            place = folder / f"control{list(SABOTAGE).index(how)}-{stops}"
            found = _besiege(place, Siege(tries, loading=0.1), seed=f"{seed}-{how}-{stops}", say=say, broken_by=how)
            told = [sentence for sentence in found.broken if SABOTAGE[how][0] in sentence]
            stops += tries
        return Control(name=how, caught=bool(told), evidence=f"{len(told)} such breaches in {stops} stops: {told[:1]}")


ROW = Drain()
