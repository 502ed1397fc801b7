"""Many clients that submit at once: to the daemon's socket, and to a stock SqliteHuey with its own consumer.

Ours: connections that each send a job, wait until it is acknowledged (then it is durable) and send the next; the jobs,
of a task that does nothing, run meanwhile. Theirs: threads that enqueue into a SqliteHuey whose commits are synced as
ours are, and its consumer in another process. The clients of both are one process apart from what they submit to.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import percentile
from house import PATIENCE, House
from machine import interpreter, path_to_ours

path_to_ours()

from daemon.cli.client import Client  # noqa: E402 - the checkout has to be found first

_TASKS = """
import os, time
from huey import SqliteHuey
huey = SqliteHuey(filename=os.environ["HUEY_FILE"], fsync=True, results=False, timeout=60)
done = 0

@huey.task()
def nothing():
    global done
    done += 1
    if done == int(os.environ["HUEY_ALL"]):
        with open(os.environ["HUEY_DONE"] + ".new", "w") as file:
            file.write(str(time.time()))
        os.rename(os.environ["HUEY_DONE"] + ".new", os.environ["HUEY_DONE"])
"""
#: Feeds the stock queue from many threads, and tells when it began, when all were accepted, and each one's wait.
_FEED = """
import json, sys, threading, time
from tasks import huey, nothing
clients, each = int(sys.argv[1]), int(sys.argv[2])
waits = []

def client():
    for _ in range(each):
        at = time.perf_counter()
        nothing()
        waits.append(time.perf_counter() - at)
    huey.storage.close()

threads = [threading.Thread(target=client) for _ in range(clients)]
began = time.time()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([began, time.time(), waits]))
"""


@dataclass(frozen=True)
class Reading:
    """One arm of one round."""

    #: Acknowledged submissions a second.
    submits: float
    #: Jobs a second, from the first submission to the end of the last run.
    jobs: float
    #: Seconds from sending to the acknowledgement: median, 99th percentile.
    p50: float
    p99: float


def ours(house: House, clients: int, each: int) -> Reading:
    """Submit to the daemon and wait until all has run."""
    client = Client(house.socket)
    count = clients * each
    before = client.health().counts.get("succeeded", 0)
    began, accepted, waits = _told([interpreter(), __file__, str(house.socket), str(clients), str(each)], {}, None)
    deadline = time.time() + PATIENCE
    while client.health().counts.get("succeeded", 0) < before + count:
        if time.time() > deadline:
            raise SystemExit("The daemon did not run everything.")
        time.sleep(0.02)
    return _reading(began, accepted, time.time(), waits, count)


def theirs(clients: int, each: int, workers: int) -> Reading:
    """Submit to stock huey and wait until all has run."""
    folder = Path(tempfile.mkdtemp(prefix="mlxd-bench-huey-"))
    (folder / "tasks.py").write_text(_TASKS)
    done = folder / "done"
    names = {"HUEY_FILE": str(folder / "huey.db"), "HUEY_DONE": str(done), "HUEY_ALL": str(clients * each)}
    environ = {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **names}
    consumer = subprocess.Popen(
        [interpreter(), "-m", "huey.bin.huey_consumer", "tasks.huey", "-w", str(workers), "-k", "thread", "-q"],
        env={**os.environ, **environ},
        cwd=folder,
    )
    try:
        time.sleep(1.0)  # it sets itself up; nothing tells when it has
        began, accepted, waits = _told([interpreter(), "-c", _FEED, str(clients), str(each)], environ, folder)
        deadline = time.time() + PATIENCE
        while not done.exists():
            if consumer.poll() is not None or time.time() > deadline:
                raise SystemExit("The stock queue did not run everything.")
            time.sleep(0.02)
        return _reading(began, accepted, float(done.read_text()), waits, clients * each)
    finally:
        consumer.kill()
        consumer.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _told(command: list[str], environ: dict[str, str], folder: Path | None) -> tuple[float, float, list[float]]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environ}, cwd=folder
    )
    if done.returncode:
        raise SystemExit(f"The clients failed:\n{done.stderr[-2000:]}")
    began, accepted, waits = json.loads(done.stdout)
    return began, accepted, waits


def _reading(began: float, accepted: float, ran: float, waits: list[float], count: int) -> Reading:
    if len(waits) != count:
        raise SystemExit(f"{len(waits)} of {count} submissions were acknowledged.")
    return Reading(count / (accepted - began), count / (ran - began), percentile(waits, 0.5), percentile(waits, 0.99))


class _Client(asyncio.Protocol):
    """One connection that submits *count* jobs, one after the other."""

    def __init__(self, count: int, request: bytes, waits: list[float], done: asyncio.Future[None]) -> None:
        self._left, self._request, self._waits, self._done = count, request, waits, done
        self._got = b""
        self._transport: Any = None
        self._at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        """Send the next one."""
        self._at = time.perf_counter()
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(SystemExit(f"The daemon hung up: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        if b" 201 " not in head[:20]:
            self._done.set_exception(SystemExit(f"Not accepted: {self._got[:500]!r}"))
            return
        self._waits.append(time.perf_counter() - self._at)
        self._got = b""
        self._left -= 1
        if self._left:
            self.begin()
        else:
            self._done.set_result(None)
            self._transport.close()


async def _storm(path: str, clients: int, each: int) -> tuple[float, float, list[float]]:
    """Submit from all clients at once; return when it began and when all was acknowledged, and each one's wait."""
    body = json.dumps({"task": "noop", "params": {}}).encode()
    head = "POST /v1/jobs HTTP/1.1\r\nHost: mlxd\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    ends = [loop.create_future() for _ in range(clients)]
    made = [await loop.create_unix_connection(lambda end=end: _Client(each, request, waits, end), path) for end in ends]
    began = time.time()
    for _, one in made:
        one.begin()
    await asyncio.gather(*ends)
    return began, time.time(), waits


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_storm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
