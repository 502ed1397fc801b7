"""Who waits for a place in the batch, and who may begin: by lane, by places, by the memory of the caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from jobs.model import Lane
from plugins.lm_answer import Answer
from plugins.lm_memory import LmMemory

#: Places beyond the batch that only the interactive lane may take: a person never waits for a batch to end.
RESERVE: Final = 8
#: Share of the caches' memory that is kept for the interactive lane.
_KEPT_BACK: Final = 0.25
#: In the batch lane new answers begin when this part of the places is free.
_WAVES: Final = 8

#: Lane -> the answers that are worked on.
Working = Mapping[Lane, Sequence[Answer]]


class Lines:
    """A line for each lane; *batch* places, *memory* for the caches of all; *alone* for one at a time."""

    def __init__(self, *, batch: int, memory: LmMemory, alone: bool = False) -> None:
        self._memory = memory
        #: Those who were in a step that raised: they go on one at a time, with nobody beside them.
        self.suspects: list[Answer] = []
        self._batch = batch
        self._alone = alone
        self._lines: dict[Lane, list[Answer]] = {lane: [] for lane in Lane}

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

    def next(self, working: Working, reading: Mapping[Lane, int]) -> Answer | None:
        """Take out the one who may begin now; *reading* says how many prompts of each lane are on their way."""
        if self.suspects:
            return None if any(working.values()) else self.suspects.pop(0)
        for lane in Lane:
            line = self._lines[lane]
            if line and self._worth_beginning(lane, working, reading[lane]) and self._has_room_for(line[0], working):
                return line.pop(0)
        return None

    def _worth_beginning(self, lane: Lane, working: Working, reading: int) -> bool:
        """Whether to let the next one begin now; in the batch lane several begin together, which costs a step less."""
        if lane is not Lane.BATCH or reading:
            return True
        free = self._batch - len(working[lane])
        return free >= min(max(1, self._batch // _WAVES), len(self._lines[lane]))

    def _has_room_for(self, answer: Answer, working: Working) -> bool:
        """Whether there is a place, and memory: rows of a batch are padded to the longest."""
        if not any(working.values()):
            return True
        lane = answer.request.lane
        if lane in self._memory.paused:
            return False
        urgent = lane is Lane.INTERACTIVE
        if len(working[lane]) >= self._batch + (RESERVE if urgent and not self._alone else 0):
            return False
        tokens = sum(padded(working[other]) for other in Lane if other is not lane)
        tokens += padded([*working[lane], answer])
        return tokens <= self._memory.tokens * (1 if urgent else 1 - _KEPT_BACK)


def padded(answers: Sequence[Answer]) -> int:
    """Return the tokens that the caches of *answers* have together at their longest."""
    return len(answers) * max((answer.length for answer in answers), default=0)
