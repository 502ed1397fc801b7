"""What becomes of hints in bad weather: lost, doubled, reordered, replaced by garbage, sent for other jobs.

`StormyStorage` stands between huey and mlxd's own storage and does all of it, each with its probability.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

from jobs.queue import TASK_NAME
from jobs.storage import LaneStorage


class Trap:
    """Unpickled, it leaves a file behind: the proof that somebody ran what the queue's file said."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._path), 0o700)


@dataclass
class Weather:
    """The probabilities of one episode, 0 to 1 each, and the ids that exist."""

    lost: float = 0.0
    doubled: float = 0.0
    reordered: float = 0.0
    garbage: float = 0.0
    others: float = 0.0
    chance: random.Random = field(default_factory=random.Random)
    ids: list[str] = field(default_factory=list)
    trap: Path = Path("trapped")

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        #: How many faults there were.
        self.faults = 0

    def strikes(self, probability: float) -> bool:
        """Tell whether a fault happens, and count it."""
        with self._lock:
            struck = self.chance.random() < probability
            self.faults += struck
            return struck

    def other(self) -> str:
        """Return the id of some other job: one that waits, runs, has ended, or never was."""
        with self._lock:
            made_up = "".join(self.chance.choices("0123456789abcdefghjkmnpqrstvwxyz", k=10))
            return self.chance.choice(self.ids) if self.ids and self.chance.random() < 0.7 else made_up

    def junk(self) -> bytes:
        """Return a message that is none of ours."""
        with self._lock:
            return self.chance.choice(junk(self.chance, self.ids, self.trap))


CALM = Weather()
#: What the storages go by; a calm is the default.
WEATHER = [CALM]


def hint(job_id: str, *, name: str = TASK_NAME, version: object = 1) -> bytes:
    """Return a message as mlxd writes it."""
    return json.dumps({"name": name, "job_id": job_id, "v": version}, separators=(",", ":")).encode()


def junk(chance: random.Random, ids: list[str], trap: Path) -> list[bytes]:
    """Return messages of every kind that nobody should act upon."""
    known = chance.choice(ids) if ids else "0123456789"
    return [
        hint(known, name="mlxd.run_other"),
        hint(known, version=2),
        hint(known, version="1"),
        hint(known[:5]),
        hint(known + "x" * 80),
        hint("\0" * 10),
        hint("\ud800'; DROP TABLE jobs; --"),
        json.dumps({"job_id": known}).encode(),
        pickle.dumps(Trap(trap)),
        pickle.dumps((known, TASK_NAME, (), {}, 0, None, None, None)),
        b"",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe" + chance.randbytes(200),
        b"x" * 100_000,
        hint(known)[:-3],
    ]


class StormyStorage(LaneStorage):
    """mlxd's storage, behind everything that may happen to a message on its way in and out."""

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Take *data*, or something else, or nothing."""
        weather = WEATHER[0]
        if weather.strikes(weather.others):
            super().enqueue(hint(weather.other()), priority)
        if weather.strikes(weather.garbage):
            super().enqueue(weather.junk(), weather.chance.uniform(-100, 100))
            if weather.strikes(0.5):  # instead of it, not only beside it
                return
        if weather.strikes(weather.lost):
            return
        if weather.strikes(weather.reordered):
            priority = weather.chance.randint(-100, 100)
        super().enqueue(data, priority)
        if weather.strikes(weather.doubled):
            super().enqueue(data.replace(b"{", b"{ ", 1), priority)  # other bytes, the same hint

    def dequeue(self) -> bytes | None:
        """Return a message, losing some and leaving some where they were."""
        # The weather is that of the moment in which the message comes: a worker may have waited here since the storm,
        # and what it lost after it would be no fault of the storm's, but one more.
        while (data := super().dequeue()) is not None and WEATHER[0].strikes(WEATHER[0].lost / 2):
            pass
        if data is not None and WEATHER[0].strikes(WEATHER[0].doubled):
            super().enqueue(data.replace(b"{", b"{  ", 1), 100)
        return data
