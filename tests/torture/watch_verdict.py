"""Holds what a watcher took against what lay in its folder. Knows nothing of how mlxd decides."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torture.watched_disk import Rest

#: An empty file waits this many times longer: docs/config.md, settle_seconds.
EMPTY_WAITS = 10


class Taken(NamedTuple):
    """A file that became a job."""

    path: str
    #: SHA-256 that the watcher took it by; None if that is not known.
    digest: str | None
    #: SHA-256 of what the job would have read at that moment.
    read: str | None
    #: Seconds by the disk's clock.
    at: float
    #: From when until when the job ran that ended unread, for its file was another by then; None: it read it.
    aside: tuple[float, float] | None = None


@dataclass
class WatchVerdict:
    """What went wrong, a sentence each, and how long taking took."""

    expected: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    #: Seconds from the moment that a content lay there until it was a job.
    waits: list[float] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Return what was neither lost nor doubled, yet wrong."""
        return [*self.partial, *self.excluded, *self.late]


def judge(rests: Iterable[Rest], taken: Sequence[Taken], *, hold: float, grace: float) -> WatchVerdict:
    """Return what is wrong with *taken*.

    What held still for *hold* seconds may be taken and what held still for *grace* longer must have been, once for each
    name and content.
    """
    lying: dict[tuple[str, str], list[Rest]] = defaultdict(list)
    for rest in rests:
        lying[rest.path, rest.digest].append(rest)
    verdict = WatchVerdict()
    for one in taken:
        _may(verdict, one, lying.get((one.path, one.digest or one.read or ""), []), hold)
    times = Counter((one.path, one.digest or one.read or "") for one in taken)
    verdict.doubled += [f"{path!r}: {count} jobs for one content" for (path, _), count in times.items() if count > 1]
    first: dict[tuple[str, str], float] = {}
    for one in taken:
        first.setdefault((one.path, one.digest or one.read or ""), one.at)
    for pair, there in lying.items():
        _must(verdict, there, first.get(pair), hold, grace)
    return verdict


def _may(verdict: WatchVerdict, one: Taken, there: list[Rest], hold: float) -> None:
    at = f"{one.path!r} at {one.at:.2f}"
    if one.digest is not None and one.read != one.digest:
        verdict.partial.append(f"{at}: the job reads other content than was taken")
    if one.aside is not None and any(rest.settled <= one.aside[0] and one.aside[1] <= rest.until for rest in there):
        verdict.partial.append(f"{at}: its job ended unread, though what it was taken by lay there all the time")
    if not there:
        verdict.partial.append(f"{at}: taken with a content that nobody ever wrote whole")
        return
    now = [rest for rest in there if rest.began <= one.at <= rest.gone]
    if not any(rest.counts for rest in now):
        verdict.excluded.append(f"{at}: taken though it is {'to be left alone' if now else 'no longer there'}")
    elif one.at < min(rest.began for rest in there) + _wait(there[0], hold):
        verdict.partial.append(f"{at}: taken after {one.at - min(rest.began for rest in there):.2f} s")


def _must(verdict: WatchVerdict, there: list[Rest], taken: float | None, hold: float, grace: float) -> None:
    patience = _wait(there[0], hold) + grace
    due = min((rest.settled + patience for rest in there if rest.counts and rest.surely >= patience), default=math.inf)
    verdict.expected += due < math.inf
    if taken is not None:
        verdict.waits.append(taken - min(rest.settled for rest in there))
    if due == math.inf:
        return
    if taken is None:
        verdict.lost.append(f"{there[0].path!r} held still from {due - patience:.2f} and never became a job")
    elif taken > due:
        verdict.late.append(f"{there[0].path!r} became a job {taken - due:.2f} s too late")


def _wait(rest: Rest, hold: float) -> float:
    return hold if rest.size else hold * EMPTY_WAITS
