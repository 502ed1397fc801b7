"""How many arenas the C library's allocator has."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from daemon.allocator import few_arenas

_THREADS = """
import ctypes, sys, threading
from daemon.allocator import few_arenas
if sys.argv[1] == "few":
    assert few_arenas()
everybody = threading.Barrier(12)
def work():
    everybody.wait(20)
    kept = [bytes(2000) for _ in range(500)]
    everybody.wait(20)
threads = [threading.Thread(target=work) for _ in range(12)]
for one in threads:
    one.start()
for one in threads:
    one.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas that can be counted")
def test_threads_share_an_arena():
    """Twelve threads that take memory at the same time have two arenas; without the call they have more."""
    counted = {}
    for how in ("few", "many"):
        done = subprocess.run(
            [sys.executable, "-c", _THREADS, how], check=True, capture_output=True, text=True, timeout=60
        )
        counted[how] = done.stderr.count("Arena ")
    assert counted["few"] <= 2 < counted["many"]


def test_a_library_without_the_knob_is_left_alone():
    """As on macOS."""
    assert few_arenas(object()) is False
