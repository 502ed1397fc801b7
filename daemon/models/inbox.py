"""What a runner was told and has not taken in yet."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jobs.model import Lane

Message = Mapping[str, Any]
#: Seconds in which a batch's next request follows the one before, from a daemon that is not starved of its processor.
COMPANY_S: Final = 0.004
#: Seconds that the first of them waits for the others at most.
MOST_S: Final = 0.02


def waiting(
    inbox: queue.SimpleQueue[Message], *, block: bool, clock: Callable[[], float] = time.monotonic
) -> Iterator[Message]:
    """Yield every message there is; with *block* sleep until there is one.

    The first request that a session without work gets of the batch lane is given a moment for its companions to come:
    computed together their prompts cost little more than one, and their answers end together. Who is of another lane
    waits for nobody.
    """
    if block:
        message = inbox.get()
        yield message
        end = clock() + MOST_S
        with contextlib.suppress(queue.Empty):
            while message.get("lane") == Lane.BATCH and clock() < end:
                message = inbox.get(timeout=COMPANY_S)
                yield message
    with contextlib.suppress(queue.Empty):
        while True:
            yield inbox.get_nowait()
