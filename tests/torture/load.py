"""Clients under load: submit stub jobs over the socket, and write down what they are told."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torture.history import History
from torture.home import TortureHome

#: Seconds that an answer may take before a client gives up and asks again.
PATIENCE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """One job to be submitted, and what must come of it (see `History.ack`)."""

    key: str
    params: Mapping[str, Any]
    task: str = "stub"
    lane: str = "normal"
    expect: Mapping[str, Any] = field(default_factory=dict)
    #: Further members of the submission: placement, priority, max_failures, ...
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the submission as JSON."""
        given = {"task": self.task, "params": dict(self.params), "lane": self.lane, "idempotency_key": self.key}
        return {**given, **self.more}


#: Makes the next order out of a number and the load's random numbers.
Mix = Callable[[int, random.Random], Order]


def mixed(number: int, chance: random.Random, *, model: str | None = "stub:a") -> Order:
    """Return a job of the usual mix: short ones, some with steps and checkpoints, some with several files.

    A third runs on *model*, the rest in the daemon itself.
    """
    key, kind = f"job-{number}", chance.random()
    size, lane = chance.choice((64, 300, 5000)), chance.choice(("interactive", "normal", "normal", "batch"))
    params: dict[str, Any] = {"key": key, "size": size, "seconds": round(chance.uniform(0.0, 0.05), 3)}
    if kind < 0.2:
        params |= {"steps": chance.randint(2, 6), "seconds": round(chance.uniform(0.1, 0.5), 3)}
    elif kind < 0.4:
        params["outputs"] = chance.randint(2, 4)
    elif kind < 0.7 and model is not None:
        params["model"] = model
    return Order(key=key, params=params, lane=lane, expect={"size": size, "outputs": params.get("outputs", 1)})


class Refused(Exception):
    """The daemon said no, and when to ask again."""

    def __init__(self, status: int, body: str, retry_after: float) -> None:
        super().__init__(f"{status}: {body[:600]}")
        self.status = status
        self.retry_after = retry_after


class Load:
    """Threads that submit the orders of *mix*, *rate* a second in all (None: as fast as they are answered).

    Each order keeps its key until it is acknowledged: when no answer came, or a refusal that may pass, it is submitted
    again. A share of *repeat* of the acknowledged orders is submitted once more, and has to give the same job. After
    *limit* orders nothing more is begun.
    """

    def __init__(
        self,
        home: TortureHome,
        history: History,
        *,
        clients: int = 2,
        rate: float | None = None,
        seed: int | str = 1,
        mix: Mix = mixed,
        repeat: float = 0.05,
        limit: int | None = None,
        prefix: str = "",
    ) -> None:
        self._home, self._history, self._mix, self._prefix = home, history, mix, prefix
        self._rate, self._repeat = rate, repeat
        self._numbers = iter(itertools.count() if limit is None else range(limit))
        self._lock = threading.Lock()
        self._stopping, self._abandoned = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed}-load-{number}"),), daemon=True)
            for number in range(clients)
        ]
        self._began = 0.0
        self._taken = 0
        #: Different jobs that were acknowledged.
        self.acknowledged = 0
        #: Submissions that got no answer, and that were refused; each was made again.
        self.unanswered = 0
        self.refused = 0
        #: What should never happen, a sentence each.
        self.complaints: list[str] = []

    def start(self) -> None:
        """Begin to submit."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 60.0) -> None:
        """Begin nothing more, and wait until what was begun is acknowledged; the daemon has to be up for that."""
        self._stopping.set()
        self.join(timeout)

    def join(self, timeout: float = 60.0) -> None:
        """Wait until everything is acknowledged."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.complaints.append(f"A client was not done with its last job after {timeout:g} s.")
        self._abandoned.set()

    def _work(self, chance: random.Random) -> None:
        while not self._stopping.is_set() and (number := self._next()) is not None:
            order = self._mix(number, chance)
            if self._prefix:
                named = f"{self._prefix}{order.key}"
                own = {"key": named} if "key" in order.params else {}
                order = replace(order, key=named, params={**order.params, **own})
            first = self._until_acknowledged(order)
            if first is not None and chance.random() < self._repeat:
                again = self._until_acknowledged(order, repeated=True)
                if again not in (first, None):
                    self.complaints.append(f"The key {order.key} gave {first}, and then {again}.")

    def _next(self) -> int | None:
        with self._lock:
            number = next(self._numbers, None)
            self._taken += 1
            due = self._began + self._taken / self._rate if self._rate else 0.0
        self._stopping.wait(max(0.0, due - time.monotonic()))
        return number

    def _until_acknowledged(self, order: Order, *, repeated: bool = False) -> str | None:
        """Return the job's id, or None when the daemon will not have it however often it is asked."""
        while not self._abandoned.is_set():
            try:
                job_id = submit_one(self._home.socket, order)
            except Refused as error:
                self._history.refused(order.key, str(error))
                with self._lock:
                    self.refused += 1
                if error.status not in (429, 503):
                    self.complaints.append(f"{order.key} was refused: {error}")
                    return None
                time.sleep(min(error.retry_after, 0.2))
            except (OSError, http.client.HTTPException, ValueError):
                self._history.unknown(order.key)
                with self._lock:
                    self.unanswered += 1
                time.sleep(0.02)
            else:
                self._history.ack(job_id, order.key, **order.expect)
                with self._lock:
                    self.acknowledged += not repeated
                return job_id
        return None


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("mlxd", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def submit_one(path: Path, order: Order, *, patience: float = PATIENCE_S) -> str:
    """Submit *order* to the daemon on the socket *path* and return the job's id.

    Raises:
        Refused: the daemon answered that it does not take it.
        OSError, http.client.HTTPException, ValueError: no whole answer came.

    """
    status, headers, body = ask(path, "POST", "/v1/jobs", order.body(), patience=patience)
    if status not in (200, 201):
        raise Refused(status, body.decode(errors="replace"), float(headers.get("retry-after", 0.1)))
    return str(json.loads(body)["id"])


def ask(
    path: Path, method: str, target: str, body: Any = None, *, patience: float = PATIENCE_S
) -> tuple[int, dict[str, str], bytes]:
    """Make one request and return status, headers (lower case) and body; raises as `submit_one` does."""
    connection = _Connection(path, patience)
    try:
        given = {} if body is None else {"body": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        connection.request(method, target, **given)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def wait_ready(path: Path, timeout: float = 30.0) -> float:
    """Return `time.monotonic` when the daemon's health page was first answered.

    Raises:
        TimeoutError: nobody answered within *timeout* seconds.

    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            status, _, _ = ask(path, "GET", "/v1/health", patience=max(0.01, deadline - time.monotonic()))
            if status == 200:
                return time.monotonic()
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"mlxd did not answer within {timeout:g} s.")
        time.sleep(0.005)
