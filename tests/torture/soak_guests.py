"""Those who come to a daemon during a soak: they follow and leave, change their minds, ask how it is."""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable

from torture.history import History
from torture.home import TortureHome
from torture.load import Order, Refused, ask, submit_one

_TROUBLE = (OSError, http.client.HTTPException, ValueError, Refused)


class Guest:
    """A thread that does *once* again and again, with random pauses of up to *pause_s* between."""

    def __init__(self, name: str, once: Callable[[random.Random], None], *, pause_s: float, seed: str) -> None:
        self.name = name
        self._once, self._pause_s = once, pause_s
        self._chance = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: How often it was done, and what went wrong, a sentence each.
        self.visits = 0
        self.complaints: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Come no more."""
        self._stopping.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0.0, 2 * self._pause_s)):
            try:
                self._once(self._chance)
                self.visits += 1
            except _TROUBLE as error:
                self.complaints.append(f"{type(error).__name__}: {error}")


class Guests:
    """All kinds of them at one home."""

    def __init__(self, home: TortureHome, history: History, *, seed: int) -> None:
        self._home, self._history = home, history
        self._numbers = itertools.count()
        #: Seconds until the health page was answered.
        self.health: list[float] = []
        self.everybody = [
            Guest("followers", self._follow, pause_s=0.5, seed=f"{seed}-follower"),
            Guest("cancellations", self._change_mind, pause_s=0.7, seed=f"{seed}-canceller"),
            Guest("health_probes", self._ask_health, pause_s=0.25, seed=f"{seed}-prober"),
        ]

    def _follow(self, chance: random.Random) -> None:
        """Read a few bytes of the events, of all jobs or of one's own, and go away without a word."""
        target = "/v1/events" if chance.random() < 0.5 else f"/v1/jobs/{self._submit('followed', 0.3)}/events"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(10.0)
            sock.connect(str(self._home.socket))
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: mlxd\r\n\r\n".encode())
            for _ in range(chance.randint(0, 3)):
                sock.recv(256)

    def _change_mind(self, chance: random.Random) -> None:
        job = self._submit("cancelled", 2.0, state=["cancelled", "succeeded"])
        time.sleep(chance.uniform(0.0, 0.5))
        ask(self._home.socket, "POST", f"/v1/jobs/{job}/cancel")

    def _ask_health(self, _: random.Random) -> None:
        began = time.monotonic()
        status, _, _ = ask(self._home.socket, "GET", "/v1/health")
        self.health.append(time.monotonic() - began)
        if status != 200:
            raise ValueError(f"health was answered with {status}")

    def _submit(self, kind: str, seconds: float, **expect: object) -> str:
        key = f"{kind}-{next(self._numbers)}"
        order = Order(key=key, params={"key": key, "seconds": seconds})
        job = submit_one(self._home.socket, order)
        self._history.ack(job, key, **expect)
        return job
