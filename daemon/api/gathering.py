"""Submissions that arrive while others are written down are written down together: one sync of the disk for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from jobs.errors import MlxdError
from jobs.model import Job, NewJob

#: What becomes of a submission: the job and whether it is new, or why not.
Outcome = tuple[Job, bool] | MlxdError

#: Submissions that are written down together at most.
_MOST: Final = 128
#: Batches at the same time at most: a plugin may take its time to check parameters.
_THREADS: Final = 8
#: Seconds after which others do not wait any longer for a batch that is under way.
_PATIENCE: Final = 0.05


class Gathering:
    """Hands submissions to *submit_all*, on threads of its own, in batches. To be used in one event loop.

    Who comes alone is sent off at once. Others wait for the batch before them, but never long.
    """

    def __init__(self, submit_all: Callable[[Sequence[NewJob]], Sequence[Outcome]]) -> None:
        self._submit_all = submit_all
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="submit")
        self._waiting: list[tuple[NewJob, asyncio.Future[Outcome]]] = []
        self._under_way = 0
        self._impatient: asyncio.TimerHandle | None = None

    def ask(self, new: NewJob) -> asyncio.Future[Outcome]:
        """Have *new* written down, and hear what became of it; a fault that nobody foresaw is raised there."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((new, future))
        if not self._under_way:
            self._send(loop)
        elif self._impatient is None:
            self._impatient = loop.call_later(_PATIENCE, self._send, loop)
        return future

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if not batch:
            return
        self._under_way += 1
        sent = loop.run_in_executor(self._threads, self._submit_all, [new for new, _ in batch])
        sent.add_done_callback(lambda done: self._told(loop, batch, done))

    def _told(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[NewJob, asyncio.Future[Outcome]]],
        done: asyncio.Future[Sequence[Outcome]],
    ) -> None:
        self._under_way -= 1
        if not self._under_way or len(self._waiting) >= _MOST:
            self._send(loop)
        error = done.exception()
        for number, (_, future) in enumerate(batch):
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(done.result()[number])
            else:
                future.set_exception(error)
