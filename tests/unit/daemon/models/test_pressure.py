"""What the system says of memory: footprints, levels, kills."""

import ctypes
import os
import struct

from daemon.models import footprint, pressure
from daemon.models.watermarks import Level

SMAPS = b"5583-7fff ---p 0 00:00 0  [rollup]\nRss:    2000 kB\nPss:    1500 kB\nPss_Anon:  7 kB\n"


def test_linux_counts_shared_pages_once(tmp_path):
    """The proportional set is read from smaps_rollup, the resident set from statm; a process that is gone has none."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_bytes(SMAPS)
    (tmp_path / "7" / "statm").write_bytes(b"900 500 3 4 5 6 7\n")
    assert footprint.proportional_set(7, tmp_path) == 1500 * 1024
    assert footprint.resident_set(7, tmp_path) == 500 * os.sysconf("SC_PAGE_SIZE")
    assert footprint.proportional_set(8, tmp_path) is footprint.resident_set(8, tmp_path) is None


def test_a_mac_is_asked_for_the_physical_footprint():
    """The eighth counter after the uuid is taken from the kernel's struct; a refusal is no number."""

    def rusage(pid, flavor, buffer):
        struct.pack_into("=16x8Q", buffer, 0, 1, 2, 3, 4, 5, 6, 7, 4096 + pid)
        return 0

    assert footprint.physical_footprint(rusage, 10) == 4106
    assert footprint.physical_footprint(lambda *_: -1, 10) is None


def test_a_tree_is_counted_exactly_only_when_it_matters():
    """Below the mark the cheap numbers do; above it each process is counted with its share of shared pages."""
    quick, exact = {1: 60, 2: 70}.get, {1: 50, 2: 40}.get
    asked = []

    def exactly(pid):
        asked.append(pid)
        return exact(pid)

    assert footprint.tree_footprint([1, 2, 3], beyond=130, quick_one=quick, exact_one=exactly) == 130
    assert asked == []
    assert footprint.tree_footprint([1, 2, 3], beyond=129, quick_one=quick, exact_one=exactly) == 90
    assert asked == [1, 2, 3]


def test_this_process_is_found():
    """The real system answers for a real process, and the exact number is no greater than the quick one, or nearly."""
    assert footprint.footprint() > 10**6
    assert (footprint.exact(os.getpid()) or 0) > 10**6


def test_a_macs_level_is_its_sysctl():
    """1, 2 and 4 are the levels; anything else, and a refusal, is normal."""

    def answering(value, code=0):
        def sysctlbyname(name, found, size, new, length):
            assert name == b"kern.memorystatus_vm_pressure_level"
            ctypes.cast(found, ctypes.POINTER(ctypes.c_int))[0] = value
            return code

        return sysctlbyname

    levels = [pressure.mac_level(answering(value)) for value in (1, 2, 4, 9)]
    assert levels == [Level.NORMAL, Level.WARN, Level.CRITICAL, Level.NORMAL]
    assert pressure.mac_level(answering(4, code=-1)) is Level.NORMAL


def test_linux_is_short_when_little_is_available():
    """A twentieth of the memory left is a warning, a fiftieth critical; a text without numbers says nothing."""
    text = "MemTotal:  100000 kB\nMemFree: 1 kB\nMemAvailable:  {} kB\n"
    levels = [pressure.linux_level(text.format(left).encode()) for left in (50_000, 4_999, 1_999)]
    assert levels == [Level.NORMAL, Level.WARN, Level.CRITICAL]
    assert pressure.linux_level(b"") is Level.NORMAL
    assert pressure.kernel_level("plan9") is Level.NORMAL
    assert pressure.kernel_level("linux") in Level
