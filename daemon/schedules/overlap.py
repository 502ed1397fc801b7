"""What becomes of a time that comes while the job of the time before is not done: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

#: So many times of one schedule wait for their turn at most.
MOST_WAITING: Final = 100


class Overlap(StrEnum):
    """What happens when the job before is not done."""

    #: The time passes without a job.
    SKIP = "skip"
    #: Its job comes when the one before is done.
    QUEUE = "queue"
    #: The job before is cancelled, and what waits with it; then comes this one's.
    CANCEL_RUNNING = "cancel-running"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What to do about times that should become jobs now."""

    #: Times that become jobs, one after the other.
    take: tuple[datetime, ...] = ()
    #: Times that do not.
    missed: tuple[datetime, ...] = ()
    #: Times that waited for their turn and lose it.
    drop: tuple[datetime, ...] = ()
    #: Whether the schedule's unfinished jobs are cancelled.
    cancel: bool = False
    #: Why times do not become jobs, for people.
    reason: str = ""


def overlap(policy: Overlap, come: Sequence[datetime], *, busy: str | None, waiting: Sequence[datetime]) -> Turn:
    """Decide about the times *come*; *busy* says which job is not done, *waiting* are times whose turn is to come."""
    if not come or (busy is None and not waiting):
        return Turn(take=tuple(come))
    before = busy or f"{len(waiting)} of its jobs waited for their turn"
    if policy is Overlap.SKIP:
        return Turn(missed=tuple(come), reason=f"{before}; overlap is skip")
    if policy is Overlap.QUEUE:
        room = max(0, MOST_WAITING - len(waiting))
        return Turn(take=tuple(come[:room]), missed=tuple(come[room:]), reason=f"{MOST_WAITING} waited already")
    return Turn(
        take=(come[-1],),
        missed=(*waiting, *come[:-1]),
        drop=tuple(waiting),
        cancel=busy is not None,
        reason="a later one took its place; overlap is cancel-running",
    )
