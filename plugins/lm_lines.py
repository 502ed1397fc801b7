"""Who waits for a place in the batch, and who may begin: by lane, by places, by the memory of the caches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from jobs.model import Lane
from plugins.lm_answer import Answer
from plugins.lm_memory import LmMemory
from plugins.lm_plan import Plan
from plugins.lm_turns import Overtaking

#: Places beyond the batch that only the interactive lane may take: a person never waits for a batch to end.
RESERVE: Final = 8
#: Share of the caches' memory that is kept for the interactive lane.
_KEPT_BACK: Final = 0.25
#: In the batch lane new answers begin when this part of the places is free.
_WAVES: Final = 8

#: How many may overtake one that waits for its adapter or for the draft model, or that has a long prompt in the batch
#: lane; and how far back they are looked for.
_OVERTAKING: Final = 64

#: Lane and plan -> the answers that are worked on.
Working = Mapping[tuple[Lane, Plan], Sequence[Answer]]


class Lines:
    """A line for each lane; *batch* places, *memory* for the caches of all; *alone* for one at a time.

    *bounds* says how often a lane may be overtaken (`plugins.lm_turns`); *order* who of the batch lane is preferred:
    who has the lower number.
    """

    def __init__(
        self,
        *,
        batch: int,
        memory: LmMemory,
        alone: bool = False,
        bounds: Mapping[Lane, int] | None = None,
        order: Callable[[Answer], int] = lambda answer: len(answer.prompt),
    ) -> None:
        self._memory = memory
        #: Those who were in a step that raised: they go on one at a time, with nobody beside them.
        self.suspects: list[Answer] = []
        self._batch = batch
        self._alone = alone
        self._lines: dict[Lane, list[Answer]] = {lane: [] for lane in Lane}
        self._overtaking = Overtaking(bounds)
        self._order = order

    def __bool__(self) -> bool:
        return bool(self.suspects or any(self._lines.values()))

    def add(self, answer: Answer) -> None:
        """Put *answer* at the end of its lane's line."""
        self._lines[answer.request.lane].append(answer)

    def put_back(self, answer: Answer) -> None:
        """Put *answer* at the head of its lane's line, where it was."""
        self._lines[answer.request.lane].insert(0, answer)

    def drop(self, request_id: str) -> None:
        """Forget a request."""
        self.suspects = [one for one in self.suspects if one.id != request_id]
        self._lines = {lane: [one for one in line if one.id != request_id] for lane, line in self._lines.items()}

    def clear(self) -> None:
        """Forget everybody."""
        self.suspects.clear()
        for line in self._lines.values():
            line.clear()

    def next(
        self, working: Working, reading: Mapping[Lane, int], fits: Callable[[Answer], bool], *, taken: int = 0
    ) -> Answer | None:
        """Take out the one who may begin now.

        *reading* says how many prompts of each lane are on their way, *fits* whether what an answer needs besides a
        place and memory is there, *taken* the tokens whose room in the caches something else has.
        """
        if self.suspects:
            return None if working or not fits(self.suspects[0]) else self.suspects.pop(0)
        asking: dict[Lane, Answer] = {}
        for lane in Lane:
            answer = self._candidate(lane, fits)
            if answer is not None and self._has_place(lane, working, reading[lane]):
                asking[lane] = answer
        chosen = self._first(asking, _Load(working, taken)) if asking else None
        if chosen is None:
            return None
        self._overtaking.began(chosen, asking)
        return self._taken_out(chosen, asking[chosen])

    def _first(self, asking: Mapping[Lane, Answer], load: _Load) -> Lane | None:
        """Return which lane's answer, of those *asking*, is next and has memory to begin."""
        memory = self._memory.tokens
        owed = self._overtaking.owed(asking)
        if owed is not None and load.plus(asking[owed]) <= memory:
            return owed
        kept = [asking[owed]] if owed is not None else []
        for lane, answer in asking.items():
            share = 1 if lane is Lane.INTERACTIVE else 1 - _KEPT_BACK
            if lane is not owed and load.plus(answer, *kept) <= memory * share:
                return lane
            if load.plus(answer) > memory * share:
                return None  # nobody less urgent begins to its cost
        return None

    def _candidate(self, lane: Lane, fits: Callable[[Answer], bool]) -> Answer | None:
        """Return who of the line could begin; who waits for more than a place is overtaken, for a while.

        That is the first, in the batch lane the one with the shortest prompt: short ones fill the batch sooner, and
        prompts that are read together are more alike. Nobody is overtaken by more than `_OVERTAKING`.
        """
        able: list[Answer] = []
        for answer in itertools.islice(self._lines[lane], _OVERTAKING):
            if fits(answer):
                able.append(answer)
            if answer.overtaken >= _OVERTAKING or (able and lane is not Lane.BATCH):
                break
        return min(able, key=self._order, default=None)

    def _taken_out(self, lane: Lane, answer: Answer) -> Answer:
        line = self._lines[lane]
        at = line.index(answer)
        for one in line[:at]:
            one.overtaken += 1
        return line.pop(at)

    def _has_place(self, lane: Lane, working: Working, reading: int) -> bool:
        """Whether one more of *lane* may be worked on."""
        if not working:
            return True
        if lane in self._memory.paused or not self._worth_beginning(lane, working, reading):
            return False
        reserve = RESERVE if lane is Lane.INTERACTIVE and not self._alone else 0
        return _count(lane, working) < self._batch + reserve

    def _worth_beginning(self, lane: Lane, working: Working, reading: int) -> bool:
        """Whether to let the next one begin now; in the batch lane several begin together, which costs a step less."""
        if lane is not Lane.BATCH or reading:
            return True
        free = self._batch - _count(lane, working)
        return free >= min(max(1, self._batch // _WAVES), len(self._lines[lane]))


class _Load:
    """The tokens of plain caches that those *working*, and what else has *taken* room, need at their longest."""

    def __init__(self, working: Working, taken: int) -> None:
        self._rows = {key: (len(answers), _longest(answers)) for key, answers in working.items()}
        self._taken = taken

    def plus(self, *answers: Answer) -> int:
        """Return them with *answers* working, too; 0 if those are the first."""
        if not self._rows:
            return 0
        rows = dict(self._rows)
        for one in answers:
            key = one.request.lane, one.way.plan
            count, longest = rows.get(key, (0, 0))
            rows[key] = count + 1, max(longest, one.cost)
        return sum(count * longest for count, longest in rows.values()) + self._taken


def _count(lane: Lane, working: Working) -> int:
    return sum(len(answers) for key, answers in working.items() if key[0] is lane)


def padded(answers: Sequence[Answer]) -> int:
    """Return the tokens of plain caches that those of *answers*, computed together, take at their longest."""
    return len(answers) * _longest(answers)


def _longest(answers: Sequence[Answer]) -> int:
    return max((answer.cost for answer in answers), default=0)
