"""In what order jobs run: huey behind ``put``, ``start`` and ``stop``.

The queue carries hints. Losing, doubling or inventing one does no harm: whoever executes a job claims it in the ledger
first. Of huey serve the message format, the registry and the worker loop; of its consumer neither the signal handlers
(SIGTERM would lose work), nor the scheduler thread, nor the main loop (both tick).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from huey.api import Huey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

from jobs.hints import HintFile
from jobs.model import Lane
from jobs.storage import LaneStorage, Order

log = logging.getLogger(__name__)

#: What every message says it is for. Fixed, because huey would otherwise use our module path, and renaming a module
#: would lose what is waiting.
TASK_NAME: Final = "mlxd.run_job"

_VERSION: Final = 1
_LONGEST_ID: Final = 64


class HintSerializer(Serializer):  # type: ignore[misc]  # huey has no types
    """Messages as JSON, one kind only; huey's own are pickles, which run whatever the file says."""

    def _serialize(self, data: Message) -> bytes:
        (job_id,) = data.args
        return _encoded(data.name, job_id)

    def _deserialize(self, data: bytes) -> Message:
        hint = json.loads(data)
        match hint:
            case {"name": str(name), "job_id": str(job_id), "v": 1} if len(job_id) <= _LONGEST_ID:
                return Message(id=job_id, name=name, args=(job_id,), kwargs={})
            case _:
                raise ValueError("not a hint of ours")


class LaneHuey(Huey):  # type: ignore[misc]  # huey has no types
    """huey for one lane."""

    def dequeue(self) -> Any:
        """Return the next task that can be read, or None when the lane closes; unreadable messages are dropped."""
        while (data := self.storage.dequeue()) is not None:
            try:
                return self.deserialize_task(data)
            except Exception as error:  # noqa: BLE001 - whatever a foreign message provokes, the next one is served
                log.warning("Skipped a broken queue message: %s", error, extra={"action": "hint_skipped"})
        return None


class LaneConsumer(Consumer):  # type: ignore[misc]  # huey has no types
    """The worker threads of one lane and nothing else of huey's consumer."""

    def start(self) -> None:
        """Start the worker threads."""
        for thread in self.threads:
            thread.start()

    @property
    def threads(self) -> list[threading.Thread]:
        """Return the worker threads."""
        return [thread for _, thread in self.worker_threads]

    def _create_process(self, process: Any, name: str) -> threading.Thread:
        thread: threading.Thread = super()._create_process(process, f"{self.huey.name}-{name.lower()}")
        return thread


class JobQueue:
    """Calls *execute* with a job's id and the lane of its hint, each lane on as many threads as *workers* says.

    The file is *path*. What *execute* raises is logged; saying what became of the job is its own business. *order*
    decides what a free worker takes; without it that is the first in the lane.
    """

    def __init__(
        self,
        path: Path,
        execute: Callable[[str, Lane], None],
        *,
        workers: Mapping[Lane, int],
        storage: type[LaneStorage] = LaneStorage,
        order: Order | None = None,
    ) -> None:
        self._file = HintFile(path)
        self._lanes: dict[Lane, tuple[LaneHuey, LaneConsumer]] = {}
        for lane in Lane:
            kept = {"storage_class": storage, "file": self._file, "order": order}
            huey = LaneHuey(lane.value, results=False, serializer=HintSerializer(), **kept)
            huey.task()(_guarded(execute, lane))
            self._lanes[lane] = huey, LaneConsumer(huey, workers=workers.get(lane, 0), periodic=False)

    def put(self, job_id: str, *, lane: Lane = Lane.NORMAL, priority: int = 0, need: str = "") -> None:
        """Hint that *job_id* may run: at once if a worker of *lane* is free, else higher *priority* first.

        *need* is what the job cannot do without, as far as that is known: the order of the lane goes by it. Cheap,
        never blocks for long, and does nothing if the same hint waits already.
        """
        storage, message = self._lanes[lane][0].storage, _encoded(TASK_NAME, job_id)
        storage.label(message, need)
        storage.enqueue(message, priority)  # what huey would put there itself, without a task made for it

    def start(self) -> None:
        """Start the workers; hints of the last time are served too."""
        for _, consumer in self._lanes.values():
            consumer.start()

    def stop(self, timeout: float) -> bool:
        """Let each worker finish its call and end it; return whether all had ended within *timeout* seconds.

        Hints that nobody took stay on disk. A worker that is still busy ends after its call.
        """
        deadline = time.monotonic() + timeout
        for huey, consumer in self._lanes.values():
            consumer.stop_flag.set()
            huey.storage.close()
        threads = [thread for _, consumer in self._lanes.values() for thread in consumer.threads]
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0))
        self._file.close()
        return not any(thread.is_alive() for thread in threads)

    def hinted(self, job_id: str, *, lane: Lane) -> bool:
        """Return whether a hint for *job_id* waits in *lane*."""
        huey, _ = self._lanes[lane]
        waits: bool = huey.storage.holds(_encoded(TASK_NAME, job_id))
        return waits

    def poke(self) -> None:
        """Let workers that wait ask again what they may take: what some hints need has come or gone."""
        for huey, _ in self._lanes.values():
            huey.storage.poke()

    def waiting(self) -> int:
        """Return how many hints wait, over all lanes."""
        return sum(huey.storage.queue_size() for huey, _ in self._lanes.values())


def _encoded(name: str, job_id: str) -> bytes:
    return f'{{"name":{json.dumps(name)},"job_id":{json.dumps(job_id)},"v":{_VERSION}}}'.encode()


def _guarded(execute: Callable[[str, Lane], None], lane: Lane) -> Callable[[str], None]:
    """Return the huey task function."""

    def run_job(job_id: str) -> None:
        try:
            execute(job_id, lane)
        except BaseException:  # a plugin's SystemExit must not end the worker either: nobody would start another
            log.exception("Executing a job failed", extra={"action": "execute_failed", "job": job_id})

    run_job.__module__, _, run_job.__name__ = TASK_NAME.rpartition(".")
    return run_job
