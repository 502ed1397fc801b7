"""Submissions in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from daemon.api.gathering import Gathering, Outcome
from jobs.errors import QueueFull
from jobs.ledger import utcnow
from jobs.model import Job, NewJob

PATIENCE = 20


def _job(new: NewJob) -> Job:
    return Job(task=new.task, id=f"id-{new.task}", seq=1, created_at=utcnow())


class Desk:
    """Accepts what it is given; batches wait while the door is closed."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.door = threading.Event()
        self.door.set()

    def submit_all(self, news: Sequence[NewJob]) -> list[Outcome]:
        self.batches.append([new.task for new in news])
        assert self.door.wait(PATIENCE)
        return [QueueFull("Full.") if new.task == "no" else (_job(new), True) for new in news]


def test_each_hears_what_became_of_his_own() -> None:
    """The first goes at once, the others together after it; who is refused hears it, and nobody else does."""
    desk = Desk()

    async def play() -> list[object]:
        gathering = Gathering(desk.submit_all)
        tasks = [gathering.ask(NewJob(task=name)) for name in ("a", "b", "no", "c")]
        try:
            return list(await asyncio.gather(*tasks, return_exceptions=True))
        finally:
            gathering.close()

    a, b, no, c = asyncio.run(play())

    assert desk.batches == [["a"], ["b", "no", "c"]]
    assert [one[0].task for one in (a, b, c)] == ["a", "b", "c"]
    assert isinstance(no, QueueFull)


def test_a_slow_batch_holds_nobody_up_for_long() -> None:
    """While a plugin takes its time over one submission, others are written down on another thread."""
    desk = Desk()
    desk.door.clear()

    async def play() -> None:
        gathering = Gathering(desk.submit_all)
        slow = gathering.ask(NewJob(task="slow"))
        quick = gathering.ask(NewJob(task="quick"))
        async with asyncio.timeout(PATIENCE):
            while len(desk.batches) < 2:  # noqa: ASYNC110 - it happens on a thread
                await asyncio.sleep(0.005)
        assert not slow.done()
        desk.door.set()
        await asyncio.gather(slow, quick)
        gathering.close()

    asyncio.run(play())

    assert desk.batches == [["slow"], ["quick"]]


def test_a_fault_reaches_who_waits() -> None:
    """What nobody foresaw is raised for everybody of the batch, and the next submission is served."""
    broken = True

    def submit_all(news: Sequence[NewJob]) -> list[Outcome]:
        if broken:
            raise RuntimeError("a bug")
        return [(_job(new), True) for new in news]

    async def play() -> Job:
        nonlocal broken
        gathering = Gathering(submit_all)
        with pytest.raises(RuntimeError):
            await gathering.ask(NewJob(task="a"))
        broken = False
        try:
            return (await gathering.ask(NewJob(task="b")))[0]
        finally:
            gathering.close()

    assert asyncio.run(play()).task == "b"
