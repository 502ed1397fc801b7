"""Which of a lane's waiting jobs runs next, so that models are not swapped job by job. Pure: told the time.

Jobs whose model is *open* (resident, and its place promised to nobody) are taken first come, first served. A job whose
model is not open holds no worker: it waits in the line, and its model is *wanted*. Those behind it whose model is open
overtake it meanwhile, which spares a swap for each of them; but not for longer than a bound:

1. The clock of a model that is not open starts when a job of it is passed over: a free worker took one that stood
   behind it, or could take nothing. It ends when the model is open, or when no job waits for it any more.
2. A wanted model is loaded as soon as there is room, or a resident model that nobody waits for. No model of the same
   lane, or of a more urgent one, is given up for it: its jobs are taken together.
3. The one whose clock runs longest is *due* after a share of the bound: when k models wait, after the k-th part of it,
   from the moment its clock started or the one before it was opened, whichever is later. It is due in any case when
   its clock has reached the bound.
4. For a model that is due room is made: one whose jobs were taken until now is closed for the lane, and unloaded when
   the jobs that use it have ended. Until then nobody is kept waiting; only a bound of 0 lets nobody overtake at all.

A running job of the lane that waits for a model goes before what is due: there are no more of these than workers, and
its worker may be the one that the others would need (`daemon.models.residency.line_up`).

So of the models that wait in a lane each is due within the bound after one of its jobs was first passed over, and in
the time of one bound there are no more such swaps than models, however many jobs wait. Loads, and the ends of jobs that
were running, come on top; so does a load for a job that a worker took while its model was given up. Jobs of one model
keep their order, and what needs no model (an empty need) is never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobs.storage import Place


@dataclass(frozen=True, kw_only=True)
class Want:
    """A model that jobs of a lane wait for."""

    need: str
    #: Since when it is due, or since when its clock runs, seconds.
    since: float
    #: Whether room is to be made for it, at the cost of others of its lane.
    due: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a free worker takes, and what the lane would like to have."""

    #: The need whose first job is taken; None: nobody can be.
    need: str | None
    #: Most deserving first.
    wants: tuple[Want, ...] = ()
    #: Seconds until a model becomes due; None: nothing changes by waiting.
    again: float | None = None


class LanePlan:
    """The clocks of one lane; *bound* says how long a job may be overtaken, seconds."""

    def __init__(self, bound: Callable[[], float]) -> None:
        self._bound = bound
        #: When the clocks started that run.
        self._passed: dict[str, float] = {}
        #: When a model that was waited for was last opened.
        self._turn = -math.inf

    def choose(self, heads: Mapping[str, Place], opened: Callable[[str], bool], now: float) -> Choice:
        """Return what a free worker takes of a line in which the first job of each need stands at *heads*."""
        able = [need for need in heads if not need or opened(need)]
        waiting = [need for need in heads if need not in able]
        taken = min(able, key=heads.__getitem__, default=None)
        if any(need in self._passed for need in able):
            self._turn = now
        self._passed = {need: since for need, since in self._passed.items() if need in waiting}
        for need in waiting:
            if taken is None or heads[need] < heads[taken]:
                self._passed.setdefault(need, now)
        return self._choice(taken, heads, now)

    def _choice(self, taken: str | None, heads: Mapping[str, Place], now: float) -> Choice:
        line = sorted(self._passed, key=lambda need: (self._passed[need], heads[need]))
        if not line:
            return Choice(need=taken)
        due_at = self._due_at(line[0], len(line))
        if taken is not None and self._bound() <= 0 and heads[line[0]] < heads[taken]:
            taken = None
        first = Want(need=line[0], since=due_at if due_at <= now else self._passed[line[0]], due=due_at <= now)
        others = (Want(need=need, since=self._passed[need], due=False) for need in line[1:])
        return Choice(need=taken, wants=(first, *others), again=due_at - now if due_at > now else None)

    def _due_at(self, need: str, waiting: int) -> float:
        since, bound = self._passed[need], self._bound()
        return min(since + bound, max(since, self._turn) + bound / waiting)
