"""Which requests are aboard a runner, and which wait their turn. Pure: told the time, holds no lock, sends nothing.

When a runner dies, whatever was aboard may have killed it. Whoever is suspected is asked again *alone*, with no other
request beside it, so that the next death has one culprit:

1. A request goes aboard at once unless it, or one that is aboard, wants to be alone.
2. Those that wait go by lane, and waiting lifts (`daemon.models.residency.urgency`): a person overtakes a suspect of a
   lower lane, and a suspect at the head of the line lets nobody behind it aboard, so that its turn does come.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.models.calls import EngineCall
from daemon.models.residency import urgency
from jobs.model import Lane


@dataclass(frozen=True, kw_only=True, eq=False)
class Ticket:
    """A request that wants aboard."""

    call: EngineCall
    request: Mapping[str, Any]
    lane: Lane
    #: Whether no other request may be aboard meanwhile.
    alone: bool
    #: Whose it is: requests of one lease are one job's.
    holder: object
    #: When it arrived, seconds on the engine's clock.
    since: float


class Admission:
    """The requests of one runner; its owner guards it with a lock."""

    def __init__(self) -> None:
        self._seq = itertools.count()
        self._aboard: dict[str, Ticket] = {}
        #: In order of arrival, each under its number.
        self._line: dict[int, Ticket] = {}

    @property
    def aboard(self) -> Mapping[str, Ticket]:
        """The requests that the runner has, or is being sent, by the id of their call."""
        return self._aboard

    def enter(self, ticket: Ticket, now: float) -> list[Ticket]:
        """Take *ticket* in; return the requests to send to the runner now."""
        self._line[next(self._seq)] = ticket
        return self._board(now)

    def leave(self, call_id: str, now: float) -> list[Ticket]:
        """Forget a request that has ended, wherever it is; return those whose turn has come."""
        if self._aboard.pop(call_id, None) is None:
            self._line = {seq: one for seq, one in self._line.items() if one.call.id != call_id}
        return self._board(now)

    def clear(self) -> tuple[list[Ticket], list[Ticket]]:
        """Forget all requests; return those that were aboard and those that waited."""
        aboard, waiting = list(self._aboard.values()), list(self._line.values())
        self._aboard.clear()
        self._line.clear()
        return aboard, waiting

    def _board(self, now: float) -> list[Ticket]:
        boarded = []
        for seq, ticket in sorted(self._line.items(), key=lambda item: urgency(item[1].lane, item[1].since, now)):
            if not self._has_place(ticket):
                break
            del self._line[seq]
            self._aboard[ticket.call.id] = ticket
            boarded.append(ticket)
        return boarded

    def _has_place(self, ticket: Ticket) -> bool:
        return not any(ticket.alone or one.alone for one in self._aboard.values())
