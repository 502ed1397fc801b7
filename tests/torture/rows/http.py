"""The HTTP interface under a property tester that knows its schema, and under traffic that knows no rules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from fakes_acceptance import SpawnedDaemon
from fakes_socket import FakeService, serving

from daemon.views import Health
from torture import http_raw
from torture.http_schema import APART, explore
from torture.http_stage import descriptors, relay, socket_of, stage
from torture.row import Control, Outcome, Say, Tier

#: Tier -> seconds of schemathesis (None: a few examples each), random streams, connections of slow clients.
SIZES = {Tier.SHORT: (None, 400, 20), Tier.LONG: (120.0, 10_000, 200)}
#: Streams under way at a time, and seconds after which one that was not answered counts as unfinished.
AT_ONCE, UNFINISHED = 16, 0.15
#: Descriptors that may come for each 1,000 streams: none, and room for one that is late.
SLOPE = 0.5
#: How much longer than its deadline of 30 s an unfinished request may live.
SLOW = 36.0


@dataclass
class _Seen:
    """What has been found so far."""

    broken: list[str] = field(default_factory=list)
    tries: int = 0
    measured: dict[str, Any] = field(default_factory=dict)


class Http:
    """See `torture.row.Row`."""

    number = 18
    name = "http"
    fault = "generated and malformed HTTP traffic"
    promise = "no undeclared 5xx, no hang over 5 s, no descriptor left behind, and the schema tells the truth"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Attack one daemon with everything, one after the other."""
        seconds, streams, crowd = SIZES[tier]
        seen = _Seen()
        with stage() as daemon:
            self._generated(daemon, folder, seen, seconds=seconds, seed=seed)
            say(f"schemathesis: {seen.tries} requests, {len(seen.broken)} complaints")
            self._raw(daemon, seen, streams=streams, seed=seed)
            say(f"raw traffic: {seen.measured['streams_per_s']} streams a second")
            self._slow(daemon, seen, crowd=crowd, patient=tier is Tier.LONG)
            seen.broken += [] if daemon.process and daemon.process.poll() is None else ["the daemon ended"]
        return Outcome(
            tries=seen.tries,
            broken=seen.broken,
            controls=[_raising(folder, seed), _hanging(), _leaking(seed)],
            measured=seen.measured,
            notes=[]
            if tier is Tier.LONG
            else ["the 30 s deadline of a slow request is waited for in the long run only"],
        )

    def _generated(self, daemon: SpawnedDaemon, folder: Path, seen: _Seen, *, seconds: float | None, seed: int) -> None:
        with relay(socket_of(daemon)) as url:
            found = explore(url, folder, seconds=seconds, seed=seed)
        seen.broken += found.failures
        if found.operations[0] < found.operations[1] - len(APART):
            seen.broken.append("schemathesis called {} of {} operations".format(*found.operations))
        seen.tries += found.cases
        seen.measured |= {"generated_requests": found.cases, "operations": "{} of {}".format(*found.operations)}

    def _raw(self, daemon: SpawnedDaemon, seen: _Seen, *, streams: int, seed: int) -> None:
        path, taken = socket_of(daemon), 0.0
        memory = psutil.Process(daemon.process.pid).memory_info
        before, samples, resting = memory().rss, [], descriptors(daemon)
        for name, data in http_raw.MALFORMED.items():
            seen.broken += http_raw.judged(path, name, data)
        seen.broken += http_raw.pipelining(path)

        def one(numbered: tuple[int, bytes]) -> list[str]:
            number, data = numbered
            return http_raw.judged(path, f"stream {number} ({data[:60]!r})", data, first=UNFINISHED)

        numbered = list(enumerate(http_raw.streams(streams, seed=seed)))
        step = max(1, streams // 20)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for at in range(0, streams, step):
                began = time.monotonic()
                seen.broken += [wrong for found in pool.map(one, numbered[at : at + step]) for wrong in found]
                taken += time.monotonic() - began
                # One more of the ledger's connections may have come to stay: that is waited out once, and counted.
                resting = _settled(daemon, at_most=resting)
                samples.append((at + step, resting))
        slope = 1000 * http_raw.slope(samples)
        if slope > SLOPE:
            seen.broken.append(f"{slope:.1f} descriptors left behind for each 1,000 streams")
        seen.tries += streams + len(http_raw.MALFORMED)
        seen.measured |= {
            "streams_per_s": round(streams / taken),
            "fd_slope_per_1000": round(slope, 3),
            "memory_growth_MB": round((memory().rss - before) / 1e6, 1),
        }

    def _slow(self, daemon: SpawnedDaemon, seen: _Seen, *, crowd: int, patient: bool) -> None:
        path = socket_of(daemon)
        memory = psutil.Process(daemon.process.pid).memory_info
        idle = _settled(daemon, at_most=0)
        with http_raw.slow_senders(path, count=crowd) as socks:
            seen.broken += http_raw.responsive(path, during=f"{crowd} slow senders")
            if patient and (gone := http_raw.ended_by_the_other_side(socks, within=SLOW)) < crowd:
                seen.broken.append(f"{crowd - gone} of {crowd} slow senders were still there after {SLOW:g} s")
        before = memory().rss
        with http_raw.never_reading(path, count=crowd):
            for _ in range(5):
                seen.broken += http_raw.responsive(path, during=f"{crowd} clients that never read")
            seen.measured["never_reading_MB_each"] = round((memory().rss - before) / 1e6 / crowd, 2)
        left = _settled(daemon, at_most=idle)
        if left > idle:
            seen.broken.append(f"{left - idle} descriptors left behind by {2 * crowd} slow clients")
        seen.tries += 2 * crowd


def _settled(daemon: SpawnedDaemon, *, at_most: int) -> int:
    """Return the daemon's descriptors, as soon as there are *at_most* so many, or after a few seconds."""
    deadline = time.monotonic() + 4
    while (found := descriptors(daemon)) > at_most and at_most and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


class _Raises(FakeService):
    """The planted fault: one operation fails in a way that nobody foresaw."""

    def config(self) -> dict[str, Any]:
        raise ZeroDivisionError


class _Hangs(FakeService):
    """The planted fault: an answer that comes too late."""

    def health(self) -> Health:
        time.sleep(3)
        return super().health()


class _Leaks(FakeService):
    """The planted fault: each answer leaves a descriptor behind."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def health(self) -> Health:
        self.kept.append(Path("/dev/null").open("rb"))  # noqa: SIM115 - that is the fault
        return super().health()


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the planted faults' own tracebacks out of the campaign's output."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _raising(folder: Path, seed: int) -> Control:
    with _silenced(), serving(_Raises()) as path, relay(path) as url:
        (folder / "control").mkdir()
        found = explore(url, folder / "control", seconds=None, seed=seed, only=["/v1/config"])
        raw = http_raw.judged(
            path, "raw", b"GET /v1/config HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n" + b" " * 0
        )
    caught = any("Server error" in one for one in found.failures) and bool(raw)
    return Control(name="a handler that raises", caught=caught, evidence=f"{found.failures}, {raw}")


def _hanging() -> Control:
    with serving(_Hangs()) as path:
        found = http_raw.responsive(path, during="the control", patience=1.0)
    return Control(name="a handler that hangs", caught=bool(found), evidence="; ".join(found) or "nothing")


def _leaking(seed: int) -> Control:
    service, samples = _Leaks(), []
    with serving(service) as path:
        for number in range(100):
            http_raw.responsive(path, during="the control")
            samples.append((number, psutil.Process().num_fds()))
    for one in service.kept:
        one.close()
    slope = 1000 * http_raw.slope(samples)
    return Control(
        name="a handler that leaks a descriptor", caught=slope > SLOPE, evidence=f"{slope:.0f} for each 1,000 requests"
    )


ROW = Http()
