"""Waiting for several jobs at the command line: for all of them, or for the first that ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from daemon.cli.console import Exit, exit_for_job, note, write, write_json
from daemon.cli.transport import Transport
from daemon.cli.waiting import ended
from jobs.errors import MlxdError

#: What became of waiting for one job.
_Told = dict[str, Any] | MlxdError


def finish_many(transport: Transport, ids: Sequence[str], *, first: bool, timeout: float | None, as_json: bool) -> Exit:
    """Wait until all the jobs *ids* have ended, or *first* one of them; print a line for each as it ends.

    Return 0 if every one that was waited for succeeded, otherwise the status of the first that did not, and that for a
    timeout of *timeout* seconds if one has not ended by then. Ctrl-C ends the waiting and no job.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    done: list[dict[str, Any]] = []
    try:
        for job in _as_they_end(transport, ids, deadline):
            done.append(job)
            if not as_json:
                write(f"{job['id']} {job['state']}")
            if first:
                break
    except KeyboardInterrupt:
        note("\nThe jobs go on.")
        return Exit.INTERRUPTED
    if as_json:
        write_json(done)
    return next((status for job in done if (status := exit_for_job(job)) is not Exit.OK), Exit.OK)


def _as_they_end(transport: Transport, ids: Sequence[str], deadline: float | None) -> Iterator[dict[str, Any]]:
    """Yield each job when it has ended, or as it is when the time is up."""
    told: queue.SimpleQueue[_Told] = queue.SimpleQueue()

    def wait(job_id: str) -> None:
        try:
            told.put(ended(transport, job_id, deadline))
        except MlxdError as error:
            told.put(error)

    for job_id in ids:
        # Nobody waits for these threads: with the first end, or Ctrl-C, the command is over.
        threading.Thread(target=wait, args=(job_id,), daemon=True).start()
    for _ in ids:
        one = told.get()
        if isinstance(one, MlxdError):
            raise one
        yield one
