"""All that is being computed in a session: a group for each lane and plan, and which of a lane's groups is next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from jobs.model import Lane
from plugins.lm_answer import Answer
from plugins.lm_group import Group
from plugins.lm_plan import PLAIN, Plan

Key = tuple[Lane, Plan]


class Groups:
    """The groups that *make* makes; those of plain answers are always there, others while they have work."""

    def __init__(self, make: Callable[[Lane, Plan], Group]) -> None:
        self._make = make
        #: Those that were served longest ago first.
        self._groups: dict[Key, Group] = {(lane, PLAIN): make(lane, PLAIN) for lane in Lane}

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return any(map(len, self._groups.values()))

    @property
    def lanes(self) -> list[Lane]:
        """Return the lanes that have something to compute."""
        return [lane for lane in Lane if any(len(group) for group in self if group.lane is lane)]

    @property
    def answers(self) -> Mapping[Key, Sequence[Answer]]:
        """Return the answers that are worked on, by lane and plan."""
        return {key: group.answers for key, group in self._groups.items() if len(group)}

    def of(self, lane: Lane, plan: Plan = PLAIN) -> Group:
        """Return the group of *lane* and *plan*, a new one if there is none."""
        if (lane, plan) not in self._groups:
            self._groups[lane, plan] = self._make(lane, plan)
        return self._groups[lane, plan]

    def next(self, lane: Lane) -> Group:
        """Return the group of *lane* whose turn it is; the lane has something to compute."""
        key = next(key for key, group in self._groups.items() if key[0] is lane and len(group))
        if len(self._groups) > len(Lane):
            self._groups[key] = self._groups.pop(key)
        return self._groups[key]

    def renew(self, group: Group) -> None:
        """Put an empty group in the place of *group*."""
        self._groups[group.lane, group.plan] = self._make(group.lane, group.plan)

    def tidy(self) -> None:
        """Let go of groups that have nothing to compute."""
        if len(self._groups) > len(Lane):
            self._groups = {key: one for key, one in self._groups.items() if len(one) or key[1] == PLAIN}
