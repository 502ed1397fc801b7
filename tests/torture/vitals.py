"""The vital signs of a daemon: what a leak would show in, and how fast it grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

MB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """One look at a process."""

    #: Seconds on the monotonic clock.
    at: float
    #: Resident memory, megabytes.
    rss_mb: float
    #: Open descriptors, threads, living children, dead ones that nobody has waited for.
    fds: int
    threads: int
    children: int
    zombies: int


def look(pid: int) -> Vitals:
    """Return the vital signs of *pid* now."""
    process = psutil.Process(pid)
    children = [_status(child) for child in process.children(recursive=True)]
    return Vitals(
        at=time.monotonic(),
        rss_mb=process.memory_info().rss / MB,
        fds=process.num_fds(),
        threads=process.num_threads(),
        children=sum(status not in (psutil.STATUS_ZOMBIE, "") for status in children),
        zombies=children.count(psutil.STATUS_ZOMBIE),
    )


def _status(child: psutil.Process) -> str:
    try:
        return str(child.status())
    except psutil.NoSuchProcess:
        return ""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of a least-squares line through *points*: of seconds and megabytes, MB/s. 0 for one point."""
    count = len(points)
    if count < 2:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
